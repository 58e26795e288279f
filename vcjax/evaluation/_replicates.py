"""One half of a measured screen scored as a prediction of the other: what the data agree with themselves."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from .._profiles import Profiles
from ..io import log_normalised, Refusal, Screen
from ..io._halves import label_order, split_halves
from ..metrics import Metric
from ._evaluate import prepare
from ._presets import Preset
from ._report import Report
from ._run import Progress, run_plan
from ._select import Exclude, get_preset, select, Selection
from ._sides import read_side, Reading, Source


@dataclasses.dataclass(frozen=True)
class Replicates:
    """A measured screen that is ready to be split, and how its halves are compared.

    **Fields:** `screen`, in the form that is evaluated; `order`, in which its labels draw; `selection`, all metrics
    that were asked for; `reading` and `options` of `prepare`.
    """

    screen: Screen
    order: tuple[str, ...] | None
    selection: Selection
    reading: Reading
    options: Mapping[str, Any]

    def evaluate(
        self, seed: int, metrics: Sequence[str], *, keep_de: bool = False, progress: Progress | None = None
    ) -> Report:
        """The second half as a prediction of the first, each with its own control cells."""
        first, second, notes = split_halves(self.screen, seed, order=self.order, min_cells=self.reading.min_cells)
        plain = Reading(control=self.reading.control, target_map=self.reading.target_map)
        plan = prepare(
            *(second, first, plain),
            preset=dataclasses.replace(self.selection.preset, control_source="pred"),
            metrics=metrics,
            exclude_targets=self.selection.exclude_targets,
            keep_de=keep_de,
            **self.options,
        )
        preset = self.selection.preset
        rows = {
            name: own_control(row) if preset.control_source == "real" or name not in preset.metrics else row
            for name, row in plan.selection.metrics.items()
        }
        plan = dataclasses.replace(
            plan,
            selection=dataclasses.replace(plan.selection, metrics=rows, profile=self.selection.profile),
            notes=(*notes, *plan.notes),
        )
        report = run_plan(plan, progress)
        stamp = {**report.stamp, "inputs": {"real": self.screen.name}, "seeds": {"halves": seed}}
        return dataclasses.replace(report, stamp=stamp)


def open_replicates(
    real: Source,
    reading: Reading | None = None,
    *,
    preset: str | Preset = "v2",
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    exclude_targets: Exclude | None = None,
    max_memory: int | None = None,
    **options: Any,
) -> Replicates:
    """Reads and checks a measured screen and selects metrics; computes nothing.

    **Raises:** `Refusal`, as `evaluate`.
    """
    reading, preset = reading or Reading(), get_preset(preset)
    selection = select(preset, profile, metrics, skip, exclude_targets)
    read = functools.partial(read_side, reading=reading, input_type=reading.input_type_real, require_control=True)
    screen = read(real, max_memory=max_memory)
    if not isinstance(screen, Screen):
        raise Refusal(
            what="A summary cannot be split into halves.",
            where="real",
            why="Only cells can be divided into two replicates.",
            fix="Give the measured screen itself: real= / --adata-real.",
        )
    order = None if isinstance(real, Screen) else label_order(real, reading.pert_col, reading.layer)
    if preset.space == "lognorm" and preset.target_sum is None:
        screen = log_normalised(screen)
    return Replicates(screen, order, selection, reading, {**options, "max_memory": max_memory})


_OF_EFFECTS = ("delta_", "pds_", "mrr", "recall_at_", "amplitude_", "weighted_r2", "weighted_pearson")


@functools.cache  # one object a row, or each split would compile its own
def own_control(row: Metric) -> Metric:
    """The row with the predicted effect measured from the prediction's own control, and not from the measured one."""
    if not row.name.startswith(_OF_EFFECTS):
        return row

    def function(pred: Profiles, real: Profiles, **options: Any) -> Any:
        return row.function(_moved(pred, real), real, **options)

    def status(pred: Profiles, real: Profiles, **options: Any) -> Any:
        return row.status(_moved(pred, real), real, **options) if row.status is not None else None

    return dataclasses.replace(row, function=function, status=None if row.status is None else status)


def _moved(pred: Profiles, real: Profiles) -> Profiles:
    """The profiles moved by the difference of the controls, which leaves each effect what it is."""
    return dataclasses.replace(pred, mean=pred.mean + (real.control - pred.control)[None, :], control=real.control)
