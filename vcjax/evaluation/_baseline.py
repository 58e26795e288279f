"""The baseline of a measured screen, ready to be evaluated against it."""

import os

from anndata import AnnData

from ..io import Baseline, baseline_screen, log_normalised, read_target_map, resolve_targets, Screen
from ._presets import Preset
from ._select import get_preset
from ._sides import read_side, Reading


def baseline_of(
    real: str | os.PathLike | AnnData | Screen,
    reading: Reading | None = None,
    preset: str | Preset = "v2",
    kind: Baseline | None = None,
    seed: int = 0,
) -> tuple[Screen, Screen]:
    """`(prediction, measured)`: what to give to `evaluate` to learn what a score must beat.

    **Arguments:**

    - `reading`: how the file is read, and which genes its labels target.
    - `kind`: see `vcjax.io.baseline_screen`; by default that of the tool that the preset reproduces: `"mean"`, or
        `"dispersed"`, with its draws from `seed`.

    **Raises:** `vcjax.io.Refusal`, as `vcjax.io.read_screen` and `vcjax.io.baseline_screen`.
    """
    reading, preset = reading or Reading(), get_preset(preset)
    if kind is None:
        kind = "mean" if preset.space == "lognorm" else "dispersed"
    measured = read_side(real, reading, reading.input_type_real, require_control=True)
    if not isinstance(measured, Screen):
        raise ValueError("A baseline is made of cells, and a summary has none.")
    targets = resolve_targets(measured.perts, measured.genes, read_target_map(reading.target_map))
    pred = baseline_screen(measured, kind, targets=targets, seed=seed)
    return pred, log_normalised(measured) if kind == "mean" else measured
