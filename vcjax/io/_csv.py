"""Small tables from CSV or TSV files, with the row and column of whatever is wrong in them."""

import csv
import os
import pathlib
from collections.abc import Sequence

from ._errors import listing, no_file, Refusal, suggestion


def read_csv(path: str | os.PathLike, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The named columns of a CSV (or `.tsv`) file with a header, a tuple a row; spaces around values are dropped.

    A byte-order mark is accepted, blank lines are skipped.

    **Raises:** `Refusal` for a file that is absent or not text, a missing column, and a row that is too short or has a
    field too long to be meant.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise no_file(path, why="What it declares would silently not apply.", fix="correct the path.")
    rows: list[tuple[str, ...]] = []
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = [name.strip() for name in next(reader, [])]
            places = [_place(path, header, column) for column in columns]
            for row in reader:
                line = reader.line_num
                if not any(field.strip() for field in row):
                    continue
                if len(row) <= max(places):
                    raise _unreadable(path, line, f"{len(row)} fields where the header has {len(header)}")
                rows.append(tuple(row[place].strip() for place in places))
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, line + 1, str(error).splitlines()[0]) from error
    return rows


def _place(path: pathlib.Path, header: list[str], column: str) -> int:
    if header.count(column) == 1:
        return header.index(column)
    raise Refusal(
        what=f"There are {header.count(column)} columns named {column!r}, one is needed.{suggestion(column, header)}",
        where=f"{path}, row 1: {listing(header, 8) or 'empty'}",
        why="The first line must name the columns, or a row of data is lost.",
        fix=f"begin the file with a line that has {column!r} in it.",
    )


def _unreadable(path: pathlib.Path, line: int, cause: str) -> Refusal:
    return Refusal(
        what="The table cannot be read.",
        where=f"{path}, row {line}: {cause}",
        why="Rows after it would be lost.",
        fix="save it again as UTF-8, comma-separated, with quotes closed.",
    )
