"""An evaluation that is checked and ready to run: what it would compute, and what it would need."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from ..io import read_target_map, Refusal, report_targets, resolve_targets, Screen, Summary
from ..io._errors import listing
from ..io._matrix import BLOCK_ENTRIES
from ..metrics import Metric
from ._select import Selection
from ._sides import Reading, Sides
from ._tables import Files, plan_tables, TablePlan
from ._training import check_train
from ._weighting import Weighting


Space = Literal["lognorm", "bulk_lognorm"]
DTypeName = Literal["float32", "float64"]

_BYTES_PER_ENTRY = 48  # of a block in flight: value, index, its transform in float64 and its group


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything decided and validated, nothing computed."""

    selection: Selection
    sides: Sides
    reading: Reading
    space: Space
    target_sum: float | None
    noise: bool
    tables: TablePlan | None
    weighting: Weighting | None
    train: Screen | None
    targets: np.ndarray
    contexts: tuple[str, ...]
    device: Any  # a jax.Device, which is no type to a type checker
    dtype: DTypeName
    cache_real: str | None
    max_entries: int
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Perturbations and genes of the measured side."""
        return len(self.sides.real.perts), len(self.sides.real.genes)

    def memory(self) -> int:
        """An estimate of the bytes needed at the peak, on host and device together."""
        cells = max(_cells(self.sides.pred), _cells(self.sides.real))
        return fixed_memory(*self.shape) + min(self.max_entries, cells * self.shape[1]) * _BYTES_PER_ENTRY

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, for the stamp and its digest."""
        reading = dataclasses.asdict(self.reading)
        if isinstance(self.reading.target_map, Mapping):
            reading["target_map"] = dict(self.reading.target_map)
        return {
            **reading,
            "preset": self.selection.preset.name,
            "profile": self.selection.profile,
            "metrics": list(self.selection.metrics),
            "exclude_targets": self.selection.exclude_targets,
            "space": self.space,
            "target_sum": self.target_sum,
            "control_source": self.selection.preset.control_source,
            "weights": None if self.weighting is None else self.weighting.settings(),
            "train": None if self.train is None else self.train.fingerprint or self.train.name,
            "de": dataclasses.asdict(self.tables.settings) if self.tables is not None else None,
            "de_given": [] if self.tables is None else sorted(self.tables.given),
            "dtype": self.dtype,
        }

    def describe(self) -> dict[str, Any]:
        """The plan as plain values, for `--dry-run`."""
        return {
            "inputs": dict(self.sides.inputs),
            "preset": self.selection.preset.name,
            "profile": self.selection.profile,
            "metrics": list(self.selection.metrics),
            "not_provided": list(self.selection.not_provided),
            "space": self.space,
            "differential_expression": self._testing(),
            "gene_weights": "not needed" if self.weighting is None else self.weighting.describe(),
            "perturbations": self.shape[0],
            "genes": self.shape[1],
            "targets_measured": int(np.sum(self.targets >= 0)),
            "contexts": list(self.contexts),
            "device": self.device.platform,
            "dtype": self.dtype,
            "memory_bytes": self.memory(),
            "notes": list(self.notes),
        }

    def _testing(self) -> str:
        if self.tables is None or not self.tables.tested:
            return "not needed"
        given = sorted(self.tables.given)
        rest = [side for side in self.tables.tested if side not in given]
        return "; ".join([f"{side} as given" for side in given] + [f"{side} computed" for side in rest])


def _cells(side: Screen | Summary) -> int:
    return side.matrix.shape[0] if isinstance(side, Screen) else 0


def fixed_memory(perts: int, genes: int) -> int:
    """Bytes that do not depend on the block size: profiles of both sides with working copies, and pair distances."""
    return 8 * (8 * perts * genes + 4 * perts * perts)


def make_plan(
    selection: Selection,
    sides: Sides,
    reading: Reading,
    *,
    device: Any,
    dtype: DTypeName,
    cache_real: str | None,
    max_memory: int | None,
    de_files: Files | None = None,
    write_de: bool = False,
    threads: int | None = None,
    weighting: Weighting | None = None,
    train: Screen | None = None,
    allow_leak: bool = False,
) -> Plan:
    """Decides space, targets and block size, and checks that every metric can be computed.

    **Raises:** `Refusal` where one cannot.
    """
    space = _space(selection, sides)
    needs_noise = any(metric.needs_noise for metric in selection.metrics.values())
    _check_controls(selection, sides)
    weighting = _weighting(selection.metrics, sides, weighting, train)
    _check_noise(needs_noise, selection.metrics, sides)
    tables = plan_tables(
        *(selection, sides, reading, de_files or {}),
        write=write_de,
        cached=cache_real is not None,
        threads=threads,
        max_memory=max_memory,
    )
    targets, target_notes = _targets(selection, sides, reading)
    notes = (*sides.notes, *target_notes)
    if train is not None:
        leak = check_train(train, sides.real, weighting, allow_leak)
        notes = (*notes, *((leak,) if leak else ()))
    if weighting is not None:
        notes = (*notes, f"gene weights: {weighting.describe()}")
    if selection.not_provided:
        reasons = selection.preset.left_out
        told = [f"{name} ({reasons[name]})" if name in reasons else name for name in selection.not_provided]
        notes = (*notes, f"not provided by this release: {', '.join(told)}")
    real = sides.real
    return Plan(
        selection=selection,
        sides=sides,
        reading=reading,
        space=space,
        target_sum=selection.preset.bulk_target_sum if space == "bulk_lognorm" else selection.preset.target_sum,
        noise=needs_noise or cache_real is not None,
        tables=tables,
        weighting=weighting,
        train=train,
        targets=targets,
        contexts=(real.contexts or ("",)) if isinstance(real, Screen) else ("",),
        device=device,
        dtype=dtype,
        cache_real=cache_real,
        max_entries=_block(max_memory, len(real.perts), len(real.genes)),
        notes=notes,
    )


def find_device(name: str | None) -> Any:
    """The first device of a platform; `None` or `auto` is JAX's own choice.

    **Raises:** `Refusal` if there is none.
    """
    if name in (None, "auto"):
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        raise Refusal(
            what=f"There is no device {name!r}.",
            where="device= / --device",
            why="Falling back in silence would hide a run that is slower, or rounds differently, than asked for.",
            fix=f"Use --device {jax.default_backend()} or auto; `vcjax doctor` lists what JAX sees.",
        ) from error


def _space(selection: Selection, sides: Sides) -> Space:
    given = {side.space for side in (sides.pred, sides.real) if isinstance(side, Summary)}
    if selection.preset.space == "lognorm":
        wanted: Space = "lognorm"
    else:
        wanted = "bulk_lognorm" if {sides.pred.scale, sides.real.scale} == {"counts"} else "lognorm"
    if given - {wanted}:
        raise Refusal(
            what=f"The summary is in {given.pop()!r}; preset {selection.preset.name!r} compares in {wanted!r} here.",
            where=f"{sides.inputs['pred']}, {sides.inputs['real']}",
            why="The space is part of the definition of every metric of a preset.",
            fix=f"Summarise with space={wanted!r}, or choose another preset= / --preset.",
        )
    return wanted


def _check_controls(selection: Selection, sides: Sides) -> None:
    def lacks(side: Screen | Summary) -> bool:
        return not side.has_control if isinstance(side, Screen) else side.control is None

    if lacks(sides.real):
        raise Refusal(
            what="The measured side has no control cells.",
            where=sides.inputs["real"],
            why="Every effect is measured from the control.",
            fix="Name their label: control= / --control.",
        )
    if selection.preset.control_source == "pred" and lacks(sides.pred):
        raise Refusal(
            what="The prediction has no control cells.",
            where=sides.inputs["pred"],
            why=f"Preset {selection.preset.name!r} measures predicted effects from the predicted control.",
            fix="Add control cells to the prediction, or use preset='v2' / --preset v2, which takes the real control.",
        )


def _weighting(
    metrics: Mapping[str, Metric], sides: Sides, weighting: Weighting | None, train: Screen | None
) -> Weighting | None:
    """How gene weights are made, `None` where no metric needs them."""
    weighted = [name for name, metric in metrics.items() if metric.needs_weights]
    if not weighted or weighting is None:
        return None
    if not isinstance(sides.real, Screen) or sides.real.scale == "delta":
        raise Refusal(
            what=f"{listing(weighted)} need gene weights, and there are no measured cells to make them of.",
            where=sides.inputs["real"],
            why="With equal weights they would be the unweighted metric under another name.",
            fix=f"Give the measured cells, or leave them out: skip= / --skip-metrics {','.join(weighted)}.",
        )
    weighting.check(train is not None)
    return weighting


def _check_noise(needed: bool, metrics: Mapping[str, Metric], sides: Sides) -> None:
    without = [name for name in ("pred", "real") if _no_noise(getattr(sides, name))]
    if needed and without:
        who = [name for name, metric in metrics.items() if metric.needs_noise]
        raise Refusal(
            what=f"The summary carries no sampling noise, which {listing(who)} need.",
            where=", ".join(without),
            why="An error that is corrected for noise cannot be computed without it.",
            fix=f"Summarise with noise=True, or leave them out: skip= / --skip-metrics {','.join(who)}.",
        )


def _no_noise(side: Screen | Summary) -> bool:
    return isinstance(side, Summary) and side.noise is None


def _targets(selection: Selection, sides: Sides, reading: Reading) -> tuple[np.ndarray, tuple[str, ...]]:
    perts, genes = sides.real.perts, sides.real.genes
    if selection.preset.source.startswith("cell-eval "):
        # cell-eval compares the label with the gene names, and has no other rule.
        column = {gene: i for i, gene in enumerate(genes)}
        return np.array([column.get(label, -1) for label in perts], np.int32), ()
    target_map = read_target_map(reading.target_map)
    report = report_targets(perts, genes, target_map)
    excluding = [name for name, metric in selection.metrics.items() if metric.needs_targets]
    if excluding and report.unresolved and not report.resolved and not report.declared_none:
        raise Refusal(
            what="No perturbation label is the name of a measured gene.",
            where=f"labels {listing(perts)}; genes {listing(genes)}",
            why=f"{listing(excluding)} leave out the target gene, which is given away; here none would be.",
            fix="Map labels to genes: target_map= / --target-map FILE.csv; or say that there are none: "
            "target_map={'*': None} / --no-target-genes.",
        )
    return resolve_targets(perts, genes, target_map), (report.note,) if report.note else ()


def _block(max_memory: int | None, perts: int, genes: int) -> int:
    if max_memory is None:
        return BLOCK_ENTRIES
    spare = max_memory - fixed_memory(perts, genes)
    if spare < 100_000 * _BYTES_PER_ENTRY:
        raise Refusal(
            what=f"The profiles need {fixed_memory(perts, genes) / 1e9:.2f} GB; {max_memory / 1e9:.2f} GB are allowed.",
            where=f"{perts} perturbations × {genes} genes",
            why="A run that is killed halfway gives no score.",
            fix="Allow more: max_memory= / --max-memory, or keep fewer genes.",
        )
    return min(BLOCK_ENTRIES, spare // _BYTES_PER_ENTRY)
