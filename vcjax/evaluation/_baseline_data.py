"""From screens to what baselines are fitted to, and what some of them need besides."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .._profiles import Profiles
from ..baselines import Baseline, Features, get_baseline, PertData
from ..io import log_normalised, Refusal, Screen, summarise
from ..io._context import one_context
from ..io._errors import listing
from ..io._matrix import BLOCK_ENTRIES
from ..io._picked import PickedCells
from ._baseline_features import options_of
from ._pair import take_perts
from ._sides import read_side, Reading, Source


Space = Literal["lognorm", "bulk_lognorm"]
_MOST_CELLS = 2000  # held in memory for a mean of random cells


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A measured screen as arrays: `data`, what baselines are fitted to; `profiles` of the same perturbations, what
    predictions are scored against; `target_sum`, the library size that cells were scaled to.
    """

    data: PertData
    profiles: Profiles
    target_sum: float | None


def read_cells(source: Source, reading: Reading, name: str, *, control: bool = True) -> Screen:
    """A source of baselines as a screen; `control`: whether it must have control cells.

    **Raises:** `ValueError` for a summary; `Refusal` as `vcjax.io.read_screen`.
    """
    screen = read_side(source, reading, reading.input_type_real, require_control=control)
    if not isinstance(screen, Screen):
        raise ValueError(f"`{name}` must be a screen of cells: a summary has none.")
    return screen


def measure(
    screen: Screen, *, space: Space, targets: np.ndarray, target_sum: float | None = None, context: str = ""
) -> Measured:
    """All perturbations of a screen that have cells, in JAX's default float type.

    **Raises:** `Refusal` as `vcjax.io.summarise`, and if no perturbation has cells.
    """
    summary = summarise(screen, space=space, target_sum=target_sum, targets=targets, noise=True)
    kept = [pert for pert, n in zip(summary.perts, summary.cells, strict=True) if n > 0]
    if not kept:
        raise Refusal(
            what="No perturbation has cells.",
            where=screen.name,
            why="A baseline is fitted to measured effects.",
            fix="check the labels, the context and what is held out.",
        )
    profiles = take_perts(summary, kept).to_profiles()
    return Measured(PertData.of(profiles, kept, summary.genes, context), profiles, summary.target_sum)


def take_rows(profiles: Profiles, rows: np.ndarray) -> Profiles:
    """Some perturbations of profiles without tables of differential expression."""
    cut = lambda x: None if x is None else x[rows]
    return dataclasses.replace(
        profiles,
        mean=profiles.mean[rows],
        cells=cut(profiles.cells),
        noise=cut(profiles.noise),
        targets=cut(profiles.targets),
    )


def by_context(screen: Screen) -> tuple[tuple[str, Screen], ...]:
    """Every context of a screen as a screen of its own, with its name; one without contexts is called by its file."""
    if screen.context_codes is None:
        return ((screen.name, screen),)
    parts = ((name, one_context(screen, name)) for name in screen.contexts)
    return tuple((name, part) for name, part in parts if np.any(part.codes >= 0) and part.has_control)


def without(screen: Screen, perts: Sequence[str]) -> Screen:
    """A screen from whose cells those of some perturbations are left out."""
    hidden = np.array([*(pert in set(perts) for pert in screen.perts), False, False])
    codes = np.where(hidden[screen.codes], -2, screen.codes)  # -1 and -2 read the two at the end
    return dataclasses.replace(screen, codes=codes.astype(screen.codes.dtype))


def metadata_of(screen: Screen) -> dict[str, tuple[float, float]]:
    """The number of cells of each perturbation, and the median of their totals (library sizes, if they are counts)."""
    totals = screen.totals
    if totals is None:
        return {}
    facts = {}
    for code, pert in enumerate(screen.perts):
        mine = np.asarray(totals)[screen.codes == code]
        if len(mine):
            facts[pert] = (float(len(mine)), float(np.median(mine)))
    return facts


def configure(
    name: str,
    options: Mapping[str, Any],
    screen: Screen,
    data: PertData,
    *,
    target_map: Mapping[str, str | None] | None = None,
    metadata: Mapping[str, tuple[float, float]] | None = None,
    features: Features | None = None,
    external: bool = False,
    seed: int = 0,
) -> Baseline:
    """The baseline of that name, with what it needs of a training screen besides its profiles, and of features.

    **Raises:** `Refusal` for an unknown name, and for options that are unknown or lacking.
    """
    options = dict(options)
    outer, _, inner = name.partition(":")
    last = inner or outer
    if last == "sparse_mean" and "cells" not in options:
        options["cells"], options["groups"] = random_cells(screen, data, seed)
    if last == "crispr_mean" and target_map:
        options.setdefault("target_map", tuple(target_map.items()))
    if last == "metadata_neighbour" and "facts" not in options and metadata:
        options["perts"] = tuple(metadata)
        options["facts"] = np.array(list(metadata.values()))
    if features is not None:
        options = {**options_of(last, features, external=external), **options}
    try:
        return get_baseline(name, **options)
    except (ValueError, TypeError) as error:
        raise refusal_of(error, name) from error


def refusal_of(error: Exception, baseline: str) -> Refusal:
    """What a baseline says that it cannot be fitted, as a refusal."""
    return Refusal(
        what=str(error) if isinstance(error, ValueError) else f"The options do not fit: {error}",
        where=f"baseline= / --baseline {baseline}",
        why="Another baseline in its place would not be the one that was asked for.",
        fix="see `vcjax baseline --list` for what each needs.",
    )


def random_cells(screen: Screen, data: PertData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`(cells, groups)`: random cells of the training perturbations as dense rows, and the row of `data` of each."""
    place = {pert: row for row, pert in enumerate(data.perts)}
    table = np.array([place.get(pert, -1) for pert in screen.perts] + [-1])
    groups = np.where(screen.codes >= 0, table[np.maximum(screen.codes, -1)], -1)
    chosen = np.flatnonzero(groups >= 0)
    if len(chosen) > _MOST_CELLS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MOST_CELLS, replace=False))
    source = screen if data.space == "bulk_lognorm" else log_normalised(screen)
    cells = np.zeros((len(chosen), len(screen.genes)), np.float32)
    for start, block in PickedCells(source.matrix, chosen).blocks(BLOCK_ENTRIES):
        cells[start : start + len(block.indptr) - 1] = block.toarray()
    return cells, groups[chosen].astype(np.int32)


def refuse_unknown(labels: Sequence[str], screen: Screen, where: str) -> None:
    """Refuses labels that a screen does not have.

    **Raises:** `Refusal`.
    """
    unknown = [label for label in labels if label not in screen.perts]
    if unknown:
        raise Refusal(
            what=f"{len(unknown)} labels are not perturbations of the training screen: {listing(unknown)}.",
            where=f"{where}; {screen.name} has {listing(screen.perts, 8)}",
            why="Nothing would be held out under a misspelt label.",
            fix="correct them; labels that are only to be predicted go to predict= / --perts.",
        )
