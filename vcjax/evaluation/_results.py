"""What a comparison needs of a run: from a report in memory, or from the folder that it was written to."""

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..io import Refusal
from ..metrics import Metric
from ._presets import Preset
from ._report import PANEL, Report
from ._select import find_metric, get_preset
from ._write import META


Run: TypeAlias = Report | str | os.PathLike


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """Values of one run.

    **Fields:** `source`, what to call it; `perturbations` of each context; `values`, one a perturbation, by context and
    metric; `panel`, the number of a metric that is about all perturbations; `cells`, measured cells of each
    perturbation, NaN where the file does not tell.
    """

    source: str
    preset: Preset
    metrics: Mapping[str, Metric]
    perturbations: Mapping[str, tuple[str, ...]]
    values: Mapping[tuple[str, str], np.ndarray]
    panel: Mapping[tuple[str, str], float]
    cells: Mapping[str, np.ndarray]
    stamp: Mapping[str, Any]


def results_of(run: Run) -> Results:
    """The values of a report, or of a folder that `vcjax run` wrote, in either layout.

    **Raises:** `Refusal` for a folder without a finished run.
    """
    return _of_report(run) if isinstance(run, Report) else _of_folder(pathlib.Path(run))


def _of_report(report: Report) -> Results:
    perts = {context: report.perturbations(context) for context in report.contexts}
    values, panel, cells = {}, {}, {context: np.full(len(labels), np.nan) for context, labels in perts.items()}
    for name, metric in report.metrics.items():
        for context, labels in perts.items():
            rows = (report.metric == name) & (report.context == context)
            if metric.level == "panel":
                panel[context, name] = float(report.value[rows][0])
                continue
            values[context, name] = _in_order(labels, report.perturbation[rows], report.value[rows])
            cells[context] = _in_order(labels, report.perturbation[rows], report.n_real[rows])
    name = str(report.stamp.get("inputs", {}).get("pred", ""))
    return Results(name, report.preset, report.metrics, perts, values, panel, cells, report.stamp)


def _of_folder(folder: pathlib.Path) -> Results:
    stamp = _stamp(folder)
    preset = get_preset(stamp["preset"])
    perts, values, panel, cells, metrics = {}, {}, {}, {}, {}
    for context, name in stamp["contexts"].items():
        cohort = folder / f"{name.removesuffix('results.csv')}metric_aggregation.csv"
        numbers = {row["metric"]: _number(row["value"], cohort) for row in _read(cohort, ("metric", "value"))}
        metrics |= {label: find_metric(label, preset)[1] for label in numbers}
        columns, counts = (_long if stamp["layout"] == "long" else _wide)(folder / name)
        perts[context] = tuple(dict.fromkeys(label for column in columns.values() for label in column))
        cells[context] = np.array([counts.get(label, math.nan) for label in perts[context]])
        panel |= {(context, x): number for x, number in numbers.items() if metrics[x].level == "panel"}
        single = [x for x in numbers if metrics[x].level != "panel"]
        lacking = [x for x in single if x not in columns]
        if lacking:
            raise _unfinished(folder, f"{name} lacks the metric {lacking[0]!r}")
        for label, found in columns.items():
            if label in single:
                values[context, label] = np.array([found.get(pert, math.nan) for pert in perts[context]])
    # The cohort table is sorted by name; a run has an order of its own.
    order = dict.fromkeys((*(stamp.get("settings") or {}).get("metrics", ()), *(name for _, name in values), *metrics))
    metrics = {name: metrics[name] for name in order if name in metrics}
    return Results(os.fspath(folder), preset, metrics, perts, values, panel, cells, stamp)


def _stamp(folder: pathlib.Path) -> dict[str, Any]:
    try:
        stamp = json.loads((folder / META).read_text())
    except (OSError, ValueError) as error:
        raise _unfinished(folder, f"{META}: {str(error).splitlines()[0]}") from error
    lacking = [key for key in ("preset", "layout", "contexts") if key not in stamp]
    if lacking:
        raise _unfinished(folder, f"{META} has no entry {lacking[0]!r}")
    return stamp


def _long(path: pathlib.Path) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    columns: dict[str, dict[str, float]] = {}
    cells: dict[str, float] = {}
    for row in _read(path, ("perturbation", "metric", "value", "n_real")):
        columns.setdefault(row["metric"], {})[row["perturbation"]] = _number(row["value"], path)
        cells[row["perturbation"]] = _number(row["n_real"], path)
    return columns, cells


def _wide(path: pathlib.Path) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    rows = _read(path, ("perturbation",))
    names = [name for name in (rows[0] if rows else {}) if name != "perturbation"]
    return {name: {row["perturbation"]: _number(row[name], path) for row in rows} for name in names}, {}


def _read(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in columns if name not in (reader.fieldnames or ())]
            if lacking:
                raise _unfinished(path.parent, f"{path.name} has no column {lacking[0]!r}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unfinished(path.parent, f"{path.name}: {str(error).splitlines()[0]}") from error
    if any(None in row or None in row.values() for row in rows):
        raise _unfinished(path.parent, f"{path.name} has a row with another number of fields than its header")
    return rows


def _number(text: str, path: pathlib.Path) -> float:
    """An empty field is a missing value."""
    try:
        return float(text) if text else math.nan
    except ValueError as error:
        raise _unfinished(path.parent, f"{path.name} has {text!r} where a number belongs") from error


def _in_order(labels: Sequence[str], found: np.ndarray, values: np.ndarray) -> np.ndarray:
    by_label = {label: value for label, value in zip(found, values, strict=True) if label != PANEL}
    return np.array([by_label.get(label, math.nan) for label in labels], np.float64)


def _unfinished(folder: pathlib.Path, cause: str) -> Refusal:
    return Refusal(
        what="The folder holds no finished run.",
        where=f"{folder}: {cause}",
        why="Half of a result would be compared as if it were whole.",
        fix="Give the folder that `vcjax run --outdir` wrote, or a report of vcjax.evaluate.",
    )
