"""A report as the files of cell-eval (wide) or cell-eval2 (long), whole or not at all."""

import csv
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, get_args, TYPE_CHECKING

from ..io import Refusal, write_de_table
from ..io._errors import listing
from ._aggregate import Aggregate
from ._presets import Layout


if TYPE_CHECKING:
    from ._report import Report

META = "run_meta.json"
_DE_FILES = ("real_de.csv", "pred_de.csv")
_WIDE = {"count": "count", "null_count": "null_count", "mean": "mean", "std": "std", "min": "min", "25%": "q25"}
_WIDE |= {"50%": "median", "75%": "q75", "max": "max"}
_LONG = {name: name for name in ("count", "null_count", "mean", "std", "min", "max", "median")}


def write_report(
    report: "Report", folder: str | os.PathLike, layout: Layout, *, force: bool = False
) -> tuple[str, ...]:
    """Writes `results.csv`, `agg_results.csv`, `metric_aggregation.csv` and `run_meta.json`; gives their names.

    Tables of differential expression that the report keeps become `real_de.csv` and `pred_de.csv`, intervals
    `interval_results.csv`.

    With contexts all but the last are one a context, `<context>_results.csv` and so on, `/` in a name replaced by `-`
    (the mapping is in `run_meta.json`). `wide` has a column a metric; `long` has a row a perturbation and metric, with
    status and numbers of cells. A missing value is an empty field in `wide`; an undefined one is `NaN`.

    Files are written under temporary names and renamed, `run_meta.json` last: a folder that lacks it is not a finished
    run.

    **Raises:** `Refusal` if the folder holds another run (unless `force`, which removes that run's files), or if an
    output would fall on an input; `ValueError` for an unknown layout.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"A layout is one of {get_args(Layout)}, got {layout!r}.")
    folder = pathlib.Path(folder)
    check_folder(folder, force=force, inputs=report.stamp["inputs"].values())
    folder.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".vcjax-", dir=folder))
    try:
        names = _stage(report, staging, layout)
        _remove_old_run(folder, {pathlib.Path(path).resolve() for path in report.stamp["inputs"].values()})
        for name in names:
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return names


def check_folder(folder: str | os.PathLike, *, force: bool = False, inputs: Iterable[str] = ()) -> None:
    """Refuses an output folder that is a file, lies inside an input, or holds another run; touches nothing."""
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise Refusal(
            what="The output folder is a file.",
            where=str(folder),
            why="Writing there would destroy it.",
            fix="Name another folder: report.write(folder) / --outdir.",
        )
    for source in inputs:
        path = pathlib.Path(source)
        if path.exists() and path.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise Refusal(
                what="The output folder lies inside an input.",
                where=f"output {folder}, input {source}",
                why="Results inside a zarr store would change the data that they describe.",
                fix="Name another folder: report.write(folder) / --outdir.",
            )
    found = old_run(folder)
    if found and not force:
        raise Refusal(
            what="The output folder holds another run.",
            where=f"{folder}: {listing(found)}",
            why="Files of two runs side by side read as one.",
            fix="Name another folder, or replace that run: report.write(folder, force=True) / --force.",
        )


def old_run(folder: pathlib.Path) -> list[str]:
    """Names of result files in a folder."""
    if not folder.is_dir():
        return []
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [name for name in files if name == META or name.endswith(("results.csv", "metric_aggregation.csv"))]


def _remove_old_run(folder: pathlib.Path, inputs: set[pathlib.Path]) -> None:
    """Removes the files that the stamp of an earlier run lists, but what this run has read, and no others."""
    try:
        listed = json.loads((folder / META).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    # The stamp goes first: from here until the new one is in place the folder is visibly unfinished.
    removable = [*old_run(folder), *(name for name in listed if name.endswith(_DE_FILES))]
    for name in [META, *(name for name in listed if name != META)]:
        path = folder / name
        if name in removable and path.parent == folder and path.is_file() and path.resolve() not in inputs:
            path.unlink()


def _stage(report: "Report", staging: pathlib.Path, layout: Layout) -> tuple[str, ...]:
    prefixes = _prefixes(report.contexts)
    for context, prefix in prefixes.items():
        aggregates = [row for row in report.aggregates if row.context == context]
        tables = {
            "results.csv": _wide_rows(report, context) if layout == "wide" else _long_rows(report, context),
            "agg_results.csv": _statistic_rows(report, aggregates, layout),
            "metric_aggregation.csv": _cohort_rows(aggregates),
        }
        if report.intervals:
            tables["interval_results.csv"] = _interval_rows(report, context)
        for name, rows in tables.items():
            with open(staging / f"{prefix}{name}", "w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([[_text(x) for x in row] for row in rows])
    for (context, side), summary in report.tables.items():
        path = staging / f"{prefixes[context]}{side}_de.csv"
        write_de_table(summary, path, pseudocount=report.preset.de.pseudocount)
    names = (*sorted(path.name for path in staging.iterdir()), META)
    contexts = {context: f"{prefix}results.csv" for context, prefix in prefixes.items()}
    meta = {**report.stamp, "layout": layout, "contexts": contexts, "files": names}
    (staging / META).write_text(json.dumps(meta, indent=2, default=str) + "\n")
    return names


def _prefixes(contexts: Sequence[str]) -> dict[str, str]:
    """The start of the file names of each context; contexts that would collide get a number."""
    if tuple(contexts) == ("",):
        return {"": ""}
    prefixes: dict[str, str] = {}
    for context in contexts:
        base = prefix = context.replace("/", "-").replace(os.sep, "-")
        repeat = 1
        while f"{prefix}_" in prefixes.values():
            repeat += 1
            prefix = f"{base}-{repeat}"
        prefixes[context] = f"{prefix}_"
    return prefixes


def _wide_rows(report: "Report", context: str) -> list[list[Any]]:
    perts = report.perturbations(context)
    table: list[list[Any]] = [["perturbation", *report.metrics], *([label] for label in perts)]
    for name, metric in report.metrics.items():
        rows = (report.metric == name) & (report.context == context)
        values, status = report.value[rows], report.status[rows]
        if metric.level == "panel":
            # cell-eval repeats a number that is about the whole panel in every row.
            values, status = values.repeat(len(perts)), status.repeat(len(perts))
        for row, value, why in zip(table[1:], values, status, strict=True):
            row.append(None if why in report.preset.absent and math.isnan(value) else float(value))
    return table


def _long_rows(report: "Report", context: str) -> list[list[Any]]:
    columns = ("perturbation", "metric", "value", "status", "n_pred", "n_real", "version")
    rows: list[list[Any]] = [list(columns)]
    panel = {name for name, metric in report.metrics.items() if metric.level == "panel"}
    perts = report.perturbations(context)
    for row in zip(report.context, *(getattr(report, name) for name in columns), strict=True):
        if row[0] != context or row[2] in report.preset.ratios:
            continue
        # cell-eval2 repeats a number about the whole panel for every perturbation, but for a ratio of sums.
        rows += [[label, *row[2:]] for label in (perts if row[2] in panel else row[1:2])]
    return rows


def _statistic_rows(report: "Report", aggregates: list[Aggregate], layout: Layout) -> list[list[Any]]:
    statistics = _WIDE if layout == "wide" else _LONG
    if layout == "long":
        aggregates = sorted(aggregates, key=lambda row: row.metric)
    table: list[list[Any]] = [["statistic", *(row.metric for row in aggregates)]]
    for label, field in statistics.items():
        values = [float(getattr(row, field)) for row in aggregates]
        if layout == "long" and field in ("count", "null_count"):
            # A ratio of sums has no rows to count.
            ratios = [row.metric in report.preset.ratios for row in aggregates]
            values = [math.nan if ratio else x for ratio, x in zip(ratios, values, strict=True)]
        table.append([label, *values])
    return table


def _cohort_rows(aggregates: list[Aggregate]) -> list[list[Any]]:
    columns = ("metric", "agg", "value", "n_used", "n_total")
    ordered = sorted(aggregates, key=lambda row: row.metric)
    return [list(columns), *([getattr(row, name) for name in columns] for row in ordered)]


def _interval_rows(report: "Report", context: str) -> list[list[Any]]:
    columns = ("metric", "value", "low", "high", "used", "total", "carrier", "without_carrier")
    rows = [row for row in report.intervals if row.context == context]
    return [list(columns), *([getattr(row, name) for name in columns] for row in rows)]


def _text(x: Any) -> str:
    if x is None:
        return ""
    if isinstance(x, float):
        return "NaN" if math.isnan(x) else repr(float(x))
    return str(x)
