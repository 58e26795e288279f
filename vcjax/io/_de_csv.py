"""Tables of differential expression in the files of cell-eval and pdex: one row a perturbation and gene."""

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._files import replacing
from ._de_settings import DESettings
from ._de_table import HostTable
from ._de_test import rounded_logs
from ._errors import listing, Refusal, suggestion
from ._summary import Summary


_NUMBERS = ("log2_fold_change", "p_value", "fdr")
_ALIASES = {"fdr": ("fdr", "p_adj")}
_FLAGS = "`de_pred=`, `de_real=` (`-dp`, `-dr`)"


def read_de_table(
    path: str | os.PathLike,
    perts: Sequence[str],
    genes: Sequence[str],
    settings: DESettings,
    *,
    control: str | None = None,
    optional: Sequence[str] = (),
    ignore_perts: bool = False,
    ignore_genes: bool = False,
) -> HostTable:
    """A table with the columns `target`, `feature`, `log2_fold_change`, `p_value` and `fdr` (or `p_adj`).

    Genes that a perturbation has no row for count as not tested. The adjusted p-values are taken as they are; those of
    genes without a fold change, and the rounding, follow `settings`.

    **Arguments:**

    - `perts`, `genes`: rows and columns to fill, by name. `optional`: perturbations that may be absent.
    - `control`: the label of the control, which must not be a target.
    - `ignore_perts`, `ignore_genes`: leave out rows of others instead of refusing them.

    **Raises:** `Refusal` for an unreadable file, a missing column, an empty name, a number that is none or a p-value
    outside 0 to 1, a row given twice, and perturbations or genes that are absent or unknown.
    """
    columns = _columns(path)
    target, feature = (np.asarray(columns[name], object) for name in ("target", "feature"))
    _check_names(path, target, feature, control)
    row, known = _places(target, perts)
    column, measured = _places(feature, genes)
    if not ignore_perts and not known.all():
        raise _strangers(path, "perturbations that are not scored", target[~known], perts, "extra")
    if not ignore_genes and not measured.all():
        raise _strangers(path, "genes that are not measured", feature[~measured], genes, "genes")
    absent = sorted(set(perts) - set(target[known]) - set(optional))
    if absent:
        raise Refusal(
            what=f"The table has no row of {len(absent)} of {len(perts)} perturbations.",
            where=f"{path}: {listing(absent)}",
            why="A perturbation that is left out would be scored on nothing.",
            fix=f"test them as well, or let the tables be computed: leave out {_FLAGS}.",
        )
    kept = known & measured
    numbers = {name: _number(path, columns[name], name)[kept] for name in _NUMBERS}
    return _filled(path, row[kept], column[kept], numbers, (perts, genes), settings)


def _columns(path: str | os.PathLike) -> dict[str, np.ndarray]:
    import pandas as pd

    found = pathlib.Path(path)
    if not found.is_file():
        siblings = sorted(os.listdir(found.parent)) if found.parent.is_dir() else []
        raise Refusal(
            what=f"There is no file {str(found)!r}.{suggestion(found.name, siblings)}",
            where=f"folder {found.parent}: {listing(siblings, 8) or 'absent or empty'}",
            why="There is no table to take differential expression from.",
            fix=f"correct the path: {_FLAGS}.",
        )
    try:
        frame: Any = pd.read_csv(found, sep="\t" if found.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise Refusal(
            what="The table cannot be read.",
            where=f"{path}: {str(error).splitlines()[0]}",
            why="Rows would be lost.",
            fix=f"save it again as UTF-8, comma-separated: {_FLAGS}.",
        ) from error
    columns, header = {}, [str(name) for name in frame.columns]
    for name in ("target", "feature", *_NUMBERS):
        spelt = next((alias for alias in _ALIASES.get(name, (name,)) if alias in header), None)
        if spelt is None:
            raise Refusal(
                what=f"The table has no column {name!r}.{suggestion(name, header)}",
                where=f"{path}, columns {listing(header, 12)}",
                why="Significance, ranks and directions are read from it.",
                fix=f"give a table as pdex writes it: {_FLAGS}.",
            )
        columns[name] = frame[spelt].to_numpy(object)
    return columns


def _check_names(path, target: np.ndarray, feature: np.ndarray, control: str | None) -> None:
    for name, names in (("target", target), ("feature", feature)):
        empty = np.flatnonzero(names == "")
        if len(empty):
            raise Refusal(
                what=f"{len(empty)} rows have no {name}.",
                where=f"{path}, first: row {int(empty[0]) + 2}",
                why="It cannot be told what they are about.",
                fix=f"fill the column {name!r} of the table: {_FLAGS}.",
            )
    if control is not None and np.any(target == control):
        raise Refusal(
            what="The control is a target of its own.",
            where=f"{path}, {int(np.sum(target == control))} rows of {control!r}",
            why="The control compared with itself would be scored as a perturbation.",
            fix=f"remove those rows from the table: {_FLAGS}.",
        )


def _places(names: np.ndarray, known: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The index of each name among `known`, and which names are."""
    index = {name: i for i, name in enumerate(known)}
    places = np.fromiter((index.get(name, -1) for name in names), np.int64, len(names))
    return places, places >= 0


def _number(path, texts: np.ndarray, name: str) -> np.ndarray:
    import pandas as pd

    blank = np.isin(texts, ("", "NaN", "nan", "null", "None", "NA"))
    texts_or_nan: Any = pd.Series(np.where(blank, "nan", texts))
    values = np.asarray(pd.to_numeric(texts_or_nan, errors="coerce"), np.float64)
    wrong = np.isnan(values) & ~blank
    if name != "log2_fold_change":
        wrong |= (values < 0) | (values > 1)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise Refusal(
            what=f"{int(wrong.sum())} values of {name!r} are no {'p-values' if name != _NUMBERS[0] else 'numbers'}.",
            where=f"{path}, first: row {first + 2}, {texts[first]!r}",
            why="They decide which genes are called, and in which order.",
            fix=f"correct the table: {_FLAGS}.",
        )
    return values


def _filled(path, row, column, numbers, names, settings: DESettings) -> HostTable:
    perts, genes = names
    shape = len(perts), len(genes)
    place = row * shape[1] + column
    twice = np.flatnonzero(np.bincount(place, minlength=1)[place] > 1) if len(place) else place
    if len(twice):
        some = sorted({f"{perts[row[i]]} {genes[column[i]]}" for i in twice[:6]})
        raise Refusal(
            what=f"{len(twice)} rows of the table are given twice or more.",
            where=f"{path}: {listing(some)}",
            why="A gene that counts twice makes a recall above 1.",
            fix=f"keep one row a target and feature: {_FLAGS}.",
        )
    change, log_pvalue, log_padj = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    tested = np.zeros(shape, bool)
    tested[row, column] = True
    change[row, column] = numbers["log2_fold_change"]
    with np.errstate(divide="ignore"):  # a p-value of 0 has a logarithm of minus infinity
        log_pvalue[row, column] = np.log(numbers["p_value"])
        log_padj[row, column] = np.log(numbers["fdr"])
    if settings.mask_nan:
        log_padj[np.isnan(change)] = 0.0
    if settings.rounded:
        change, log_padj = change.astype(np.float32).astype(np.float64), rounded_logs(log_padj)
    return HostTable(change, log_pvalue, log_padj, tested)


def _strangers(path, what: str, names: np.ndarray, known: Sequence[str], option: str) -> Refusal:
    some = list(dict.fromkeys(names))
    allow = {
        "extra": "pass extra='ignore' (`--extra ignore`)",
        "genes": "pass genes='intersect' (`--genes intersect`)",
    }
    return Refusal(
        what=f"The table has {len(some)} {what}.{suggestion(some[0], list(known))}",
        where=f"{path}: {listing(some)}",
        why="It often means that the labels of the table and of the cells are spelt differently.",
        fix=f"remove these rows, or {allow[option]}.",
    )


def write_de_table(summary: Summary, path: str | os.PathLike, *, pseudocount: float = 0.0) -> None:
    """The table of a summary as pdex writes it: the tested genes of each perturbation, in the order of the genes.

    Means and the statistic are left out where the table does not hold them. A file that is there is replaced when the
    new one is whole.

    **Raises:** `ValueError` if the summary has no table.
    """
    table = summary.de
    if table is None:
        raise ValueError("The summary has no table of differential expression: summarise with `de=`.")
    details = table.mean is not None and table.control_mean is not None and table.statistic is not None
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        means, extra = ("target_mean", "ref_mean", "target_membership", "ref_membership"), ("percent_change",)
        writer.writerow(
            ["target", "feature", *(means if details else ()), "log2_fold_change", *(extra if details else ())]
            + ["p_value", *(("statistic",) if details else ()), "fdr"]
        )
        for p, pert in enumerate(summary.perts):
            kept = np.flatnonzero(table.tested[p])
            writer.writerows(zip(*_pert_columns(summary, table, p, pert, kept, pseudocount), strict=True))


def _pert_columns(summary: Summary, table: HostTable, p: int, pert: str, kept: np.ndarray, pseudocount: float):
    """The columns of one perturbation, as lists."""
    names = [summary.genes[i] for i in kept]
    head = [[pert] * len(kept), names]
    change = table.log2_fold_change[p, kept].tolist()
    pvalue, padj = (np.exp(logs[p, kept]).tolist() for logs in (table.log_pvalue, table.log_padj))
    if table.mean is None or table.control_mean is None or table.statistic is None:
        return [*head, change, pvalue, padj]
    mean, control = table.mean[p, kept], table.control_mean[kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = (mean - control) / (control + pseudocount)
    percent[np.isnan(percent)] = 0.0
    cells = [[int(n)] * len(kept) for n in (summary.cells[p], summary.control_cells)]
    statistic = table.statistic[p, kept].tolist()
    return [*head, mean.tolist(), control.tolist(), *cells, change, percent.tolist(), pvalue, statistic, padj]
