"""Tables of differential expression for both sides of a plan: computed from the cells, given as files, or cached."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Literal, TYPE_CHECKING

import jax
import numpy as np

from ..io import DESettings, differential_expression, HostTable, read_de_table, Refusal, Screen, Summary
from ..io._de import Tested
from ..io._de_cells import gather, GatheredCells
from ..io._errors import listing
from ..io._pseudobulk import Done, worth_compiling
from ._sides import at_once, Reading, Sides


if TYPE_CHECKING:
    from ._plan import Plan
    from ._select import Selection

Side = Literal["pred", "real"]
Files = Mapping[Side, str | os.PathLike]

_FLAGS = "de_pred=, de_real= / -dp, -dr"


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """What a plan compares cells with control cells for.

    **Fields:** `settings`, the conventions; `tested`, the sides whose tables of differential expression are wanted, and
    `energy`, whether energy distances are; `given`, the tables that came as files; `details`, whether computed tables
    keep what only a file shows; `write`, whether the report keeps them; `threads` and `max_memory`, of the rank test;
    `files`, the paths of what was given.
    """

    settings: DESettings
    tested: tuple[Side, ...]
    energy: bool
    given: Mapping[Side, HostTable]
    details: bool = False
    write: bool = False
    threads: int | None = None
    max_memory: int | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def lacks(self, side: Side, summary: Summary | None) -> dict[str, bool]:
        """What must still be found for a side, as options of `differential_expression`."""
        bare = summary is None or summary.de is None or (self.details and summary.de.mean is None)
        energy = self.energy and (summary is None or summary.energy is None)
        return {"table": side in self.tested and side not in self.given and bare, "energy": energy}


def plan_tables(
    selection: "Selection",
    sides: Sides,
    reading: Reading,
    files: Files,
    *,
    write: bool = False,
    cached: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
) -> TablePlan | None:
    """`None` where no metric needs the cells themselves and no table is to be written.

    **Raises:** `Refusal` for a file that cannot be used, and where a side has neither cells nor what is needed of them.
    """
    testing: dict[Side, list[str]] = {
        "pred": [name for name, metric in selection.metrics.items() if metric.needs_de],
        "real": [name for name, metric in selection.metrics.items() if metric.needs_de or metric.needs_real_de],
    }
    energies = [name for name, metric in selection.metrics.items() if metric.needs_energy]
    tested: tuple[Side, ...] = tuple(side for side, names in testing.items() if names or write)
    useless: Files = {side: path for side, path in files.items() if side not in tested}
    if useless:
        raise _useless(selection, useless)
    given: dict[Side, HostTable] = {}
    for side, path in files.items():
        given[side] = _read(path, getattr(sides, side), selection, reading)
    if not (tested or energies):
        return None
    paths = {f"de_{side}": os.fspath(path) for side, path in files.items()}
    tables = TablePlan(
        *(selection.preset.de, tested, bool(energies), given), write or cached, write, threads, max_memory, paths
    )
    _check_sources(testing, energies, selection, sides, tables)
    return tables


def run_tests(
    plan: "Plan",
    context: str,
    progress: Callable[[str, int, int], None] | None,
    cached: Summary | None = None,
) -> dict[Side, Tested]:
    """What is to be found of the sides that come as cells; of the measured side, what `cached` does not have."""
    tables, sides = plan.tables, plan.sides
    found: dict[Side, Tested] = {}
    if tables is None:
        return found
    shared = sides.real if plan.selection.preset.control_source == "real" and isinstance(sides.real, Screen) else None
    run = functools.partial(_compute, plan, tables, context, progress)
    wanted: dict[Side, dict[str, bool]] = {"real": tables.lacks("real", cached), "pred": tables.lacks("pred", None)}
    pred = sides.pred if isinstance(sides.pred, Screen) and any(wanted["pred"].values()) else None
    real = sides.real if isinstance(sides.real, Screen) and any(wanted["real"].values()) else None
    cells: dict[Side, GatheredCells] = {}
    if pred is not None and real is not None:
        cells = _gather_both(plan, tables, context, progress, pred, real, pred_control=shared is None)
    if real is not None:
        keep = pred is not None and shared is not None
        found["real"] = run(real, "measured", keep_control=keep, cells=cells.pop("real", None), **wanted["real"])
        if context == plan.contexts[-1]:
            real.matrix.let_go()  # the test of the other side takes memory, too
    if pred is not None:
        control = found["real"].control if "real" in found else None
        options = {"control_of": shared, "control": control, "cells": cells.pop("pred", None), **wanted["pred"]}
        found["pred"] = run(pred, "predicted", **options)
    return found


def _gather_both(
    plan: "Plan", tables: TablePlan, context: str, progress, pred: Screen, real: Screen, *, pred_control: bool
) -> dict[Side, GatheredCells]:
    """The cells of both sides, read side by side, if that is quicker and the memory is not needed otherwise."""
    bounded = tables.max_memory is not None or tables.energy
    if bounded or not (worth_compiling(pred.matrix.shape) and worth_compiling(real.matrix.shape)):
        return {}

    def read(screen: Screen, name: str, control: bool) -> GatheredCells:
        done = _done(progress, name, context, screen)
        options = {"control": control, "max_entries": plan.max_entries, "done": done}
        return gather(screen, tables.settings, context=context or None, **options)

    measured = functools.partial(read, real, "measured", True)
    predicted = functools.partial(read, pred, "predicted", pred_control)
    return dict(zip(("real", "pred"), at_once(measured, predicted), strict=True))


def with_tests(plan: "Plan", side: Side, summary: Summary, tests: Mapping[Side, Tested]) -> Summary:
    """The summary of a side with what was given or found for it, in the place of what it brings."""
    if side in tests:
        de, energy = tests[side].table, tests[side].energy
        de, energy = summary.de if de is None else de, summary.energy if energy is None else energy
        summary = dataclasses.replace(summary, de=de, energy=energy)
    if plan.tables is not None and side in plan.tables.given:
        summary = dataclasses.replace(summary, de=plan.tables.given[side])
    return summary


def _compute(plan: "Plan", tables: TablePlan, context: str, progress, screen: Screen, name: str, **options) -> Tested:
    with jax.default_device(plan.device):
        return differential_expression(
            screen,
            tables.settings,
            context=context or None,
            threads=tables.threads,
            details=tables.details,
            max_entries=plan.max_entries,
            max_memory=tables.max_memory,
            done=_done(progress, name, context, screen),
            **options,
        )


def _done(progress, name: str, context: str, screen: Screen) -> Done | None:
    if progress is None:
        return None
    return lambda cells: progress(f"testing {name}{f' {context}' if context else ''}", cells, screen.matrix.shape[0])


def _read(path: str | os.PathLike, side: Screen | Summary, selection: "Selection", reading: Reading) -> HostTable:
    if isinstance(side, Screen) and len(side.contexts) > 1:
        raise Refusal(
            what="A table is given, and there are several contexts.",
            where=f"{os.fspath(path)}; contexts {listing(side.contexts)}",
            why="A table has no column that says which context a row is of.",
            fix=f"Score one context at a time, or leave {_FLAGS} out.",
        )
    counts = side.cell_counts() if isinstance(side, Screen) else side.cells
    return read_de_table(
        path,
        side.perts,
        side.genes,
        selection.preset.de,
        control=reading.control,
        optional=[label for label, n in zip(side.perts, np.asarray(counts), strict=True) if n == 0],
        ignore_perts=reading.extra == "ignore" or reading.min_cells > 1 or reading.missing == "skip",
        ignore_genes=reading.genes == "intersect",
    )


def _useless(selection: "Selection", files: Files) -> Refusal:
    return Refusal(
        what="A table of differential expression is given, and no metric reads it.",
        where=f"{listing(os.fspath(path) for path in files.values())}; profile {selection.profile!r}",
        why="A file that changes nothing looks as if it had been used.",
        fix=f"Leave {_FLAGS} out, or use a profile that reads it: profile='de' / --profile de.",
    )


def _check_sources(
    testing: Mapping[Side, list[str]], energies: list[str], selection: "Selection", sides: Sides, tables: TablePlan
) -> None:
    for side in ("real", "pred"):
        data = getattr(sides, side)
        wanted = tables.lacks(side, data if isinstance(data, Summary) else None)
        names = (testing[side] if wanted["table"] else []) + (energies if wanted["energy"] else [])
        if not isinstance(data, Summary) and data.scale == "delta" and any(wanted.values()):
            raise _lacking("Effects that were given as such cannot be compared cell by cell", side, names)
        # The means that only a file shows are not worth a refusal.
        if isinstance(data, Summary) and ((wanted["table"] and data.de is None) or wanted["energy"]):
            raise _lacking("The summary does not hold the comparison with control cells", side, names)
    cells = isinstance(sides.pred, Screen) and any(tables.lacks("pred", None).values())
    if selection.preset.control_source == "real" and isinstance(sides.real, Summary) and cells:
        raise Refusal(
            what="The predicted cells have no control cells to be tested against: the measured side is a summary.",
            where=f"{sides.inputs['real']}; preset {selection.preset.name!r}",
            why="This preset tests both sides against the measured control cells.",
            fix="Give the measured screen with cache_real= / --cache-real, or a table: de_pred= / -dp.",
        )


def _lacking(what: str, side: str, names: list[str]) -> Refusal:
    return Refusal(
        what=f"{what}, which {listing(names) or 'a file of it'} need{'s' if len(names) == 1 else ''}.",
        where=side,
        why="Which genes respond, and how far cells move, cannot be told from a profile.",
        fix=f"Summarise with de=, give a table ({_FLAGS}), or leave them out: profile='pds' / --profile pds, skip= / "
        f"--skip-metrics {','.join(names)}.",
    )
