"""What is known of genes beforehand, from files: gene sets and embeddings as vectors by name."""

import csv
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import jax.numpy as jnp
import numpy as np

from ._features import Features


GeneSets = Mapping[str, tuple[str, ...]]
_NAME_COLUMNS = ("", "gene", "genes", "gene_name", "symbol", "name", "names", "index", "perturbation", "target_gene")
_GMT_FIX = "separate name, description and genes by tabs, one set a line."
_TABLE_FIX = "give one name and its numbers a line, as .csv (commas), .tsv (tabs) or .npz (`names`, `values`)."


def read_gmt(path: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """The gene sets of a GMT file by name: a line each, of name, description and genes, separated by tabs.

    A gene named twice in a set counts once; blank lines are skipped.

    **Raises:** `Refusal` for a file that is absent, not text or without sets, a line without genes or without a name,
    and a set that is named twice.
    """
    path = pathlib.Path(path)
    found: dict[str, tuple[str, ...]] = {}
    for number, line in _lines(path, _GMT_FIX):
        name, _, *genes = [*(field.strip() for field in line.split("\t")), ""]
        genes = tuple(dict.fromkeys(gene for gene in genes if gene))
        if not name or not genes:
            _refuse(
                "A gene set has no name." if not name else f"Gene set {name!r} has no genes.", path, number, _GMT_FIX
            )
        if name in found:
            _refuse(f"Gene set {name!r} is listed twice.", path, number, "keep one line a set.")
        found[name] = genes
    if not found:
        _refuse("There are no gene sets.", path, 1, _GMT_FIX)
    return found


def gene_set_features(
    sets: GeneSets, names: Sequence[str], *, smallest: int = 2, largest: int = 500, source: str = "gene sets"
) -> Features:
    r"""Membership of genes in sets as vectors of unit length, a column a set: $m_{gs}/\sqrt{|s|}$, then normalised.

    A small set says more of what its genes have in common than a large one. Inner products of the vectors are a kernel
    (`feature_kernel`); a gene in none of the sets is left out, and so not covered.

    **Arguments:**

    - `names`: genes to keep, such as all that are perturbed; sets without two of them say nothing and are dropped.
    - `smallest`, `largest`: sizes of the sets that count, over all their genes.

    **Raises:** `ValueError` if no gene is in any set that is left.
    """
    wanted = {name: row for row, name in enumerate(dict.fromkeys(names))}
    columns = []
    for genes in sets.values():
        rows = [wanted[gene] for gene in genes if gene in wanted]
        if smallest <= len(genes) <= largest and len(rows) > 1:
            column = np.zeros(len(wanted))
            column[rows] = 1 / np.sqrt(len(genes))
            columns.append(column)
    table = np.stack(columns, axis=1) if columns else np.zeros((len(wanted), 0))
    size = np.sqrt((table * table).sum(axis=1))
    kept = np.flatnonzero(size > 0)
    if not len(kept):
        raise ValueError(
            f"None of {len(wanted)} names is in a set of {smallest} to {largest} genes with another of them: "
            "are these names of the same kind?"
        )
    order = list(wanted)
    values = jnp.asarray(table[kept] / size[kept][:, None], jnp.result_type(float))
    return Features(values, tuple(order[row] for row in kept.tolist()), source=source)


def read_embeddings(path: str | os.PathLike, *, by_column: bool = False) -> Features:
    """Vectors by name from a file: `.npz` with the arrays `names` and `values`, or a table of a name and its numbers.

    A table is `.csv` (commas) or anything else (tabs); its first line is skipped if it holds names of columns.

    **Arguments:** `by_column`: the table has names in its first line and a vector under each.

    **Raises:** `Refusal` for a file that is absent or cannot be read, lines of unequal length, what is no finite
    number, a name that is empty or occurs twice, and an empty table.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        names, values = _read_npz(path)
    else:
        names, values = _read_columns(path) if by_column else _read_rows(path)
    if not len(names) or not values.size:
        _refuse("There are no vectors.", path, 1, _TABLE_FIX)
    # Before the names, which a shape that differs would misplace.
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    for i, name in enumerate(names):
        if not name or first[name] != i:
            what = f"Name {name!r} occurs twice." if name else "A name is empty."
            _refuse(what, path, None, "keep one vector a name.", place=f"vector {i + 1}")
    return Features(jnp.asarray(values, jnp.result_type(float)), names, source=path.name)


def _read_npz(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    _must_exist(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, values = np.asarray(arrays["names"]), np.asarray(arrays["values"])
            if names.dtype.kind not in "US" or names.ndim != 1 or values.dtype.kind not in "fiu" or values.ndim != 2:
                raise ValueError(
                    f"`names` is {names.dtype} of shape {names.shape}, `values` {values.dtype} of {values.shape}"
                )
    except (OSError, ValueError, KeyError) as error:
        _refuse("The file cannot be read.", path, None, _TABLE_FIX, place=str(error).splitlines()[0])
    if len(names) != len(values) or not np.isfinite(values).all():
        bad = "values that are not finite" if len(names) == len(values) else f"{len(names)} names, {len(values)} rows"
        _refuse("Names and vectors do not fit.", path, None, _TABLE_FIX, place=bad)
    texts = names.astype(str) if names.dtype.kind == "U" else np.char.decode(names, "utf-8")
    return tuple(texts.tolist()), values.astype(np.float64)


def _read_rows(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    names, rows = [], []
    for place, (number, fields) in enumerate(_fields(path)):
        if place == 0 and _is_header(fields):
            continue
        names.append(fields[0])
        rows.append(_numbers(path, number, fields[1:], len(rows[0]) if rows else len(fields) - 1))
    return tuple(names), np.array(rows, np.float64)


def _read_columns(path: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray]:
    lines = _fields(path)
    _, names = next(lines, (1, []))
    rows = [_numbers(path, number, fields, len(names)) for number, fields in lines]
    return tuple(names), np.array(rows, np.float64).reshape(-1, len(names)).T


def _numbers(path: pathlib.Path, number: int, fields: list[str], width: int) -> list[float]:
    if len(fields) != width:
        _refuse(f"A line has {len(fields)} numbers, {width} are expected.", path, number, _TABLE_FIX)
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        _refuse("What should be a number is none.", path, number, _TABLE_FIX, place=str(error))
    if not np.isfinite(values).all():
        _refuse("A number is not finite.", path, number, "leave out the name, which is then not covered.")
    return values


def _is_header(fields: list[str]) -> bool:
    """Whether none of the numbers is one; or they count the columns, and the name is that of a column of names."""
    counted = fields[0].lower() in _NAME_COLUMNS and fields[1:] == [str(i) for i in range(len(fields) - 1)]
    return counted or not any(_is_number(field) for field in fields[1:])


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _fields(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    delimiter = "," if path.suffix == ".csv" else "\t"
    for number, line in _lines(path, _TABLE_FIX):
        try:
            yield number, [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
        except csv.Error as error:
            _refuse("The line cannot be read.", path, number, _TABLE_FIX, place=str(error))


def _lines(path: pathlib.Path, fix: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    _must_exist(path)
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        _refuse("The file is not text.", path, number + 1, fix, place=str(error))


def _must_exist(path: pathlib.Path) -> None:
    from ..io._errors import no_file

    if not path.is_file():
        raise no_file(path, why="What it says of genes would silently not count.", fix="correct the path.")


def _refuse(what: str, path: pathlib.Path, number: int | None, fix: str, *, place: str = "") -> NoReturn:
    from ..io import Refusal

    where = ", ".join([str(path), *([f"line {number}"] if number else []), *([place] if place else [])])
    why = "A perturbation would get the vector of another, or none."
    raise Refusal(what=what, where=where, why=why, fix=fix)
