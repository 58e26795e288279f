"""Tables that stand beside those of a run, or alone: ceilings and replicate anchors of the measured screen."""

import csv
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ..io import Refusal
from ..io._errors import listing
from ._write import _remove_old_run, _text, check_folder, META


Table = Sequence[Sequence[Any]]


def write_beside(
    folder: str | os.PathLike, tables: Mapping[str, Table], what: str, stamp: Mapping[str, Any], *, force: bool = False
) -> tuple[str, ...]:
    """Writes the tables by file name, all or none, and enters them into the folder's `run_meta.json`.

    A folder that holds a run of the same measured screen keeps its files, and `stamp` becomes the entry `what` of its
    stamp. In any other folder it is the stamp.

    **Raises:** `Refusal` if the folder holds one of the files, or a run of another screen, unless `force` replaces it.
    """
    folder = pathlib.Path(folder)
    meta = _meta(folder)
    same = meta is not None and _source(meta) == _source(stamp)
    clash = [name for name in tables if (folder / name).exists()]
    if not same:
        check_folder(folder, force=force, inputs=stamp["inputs"].values())
    elif clash and not force:
        raise Refusal(
            what="The output folder holds these results already.",
            where=f"{folder}: {listing(clash)}",
            why="Files of two runs side by side read as one.",
            fix="Name another folder, or replace them: write(folder, force=True) / --force.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".vcjax-", dir=folder))
    try:
        for name, rows in tables.items():
            with open(staging / name, "w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([[_text(x) for x in row] for row in rows])
        if same and meta is not None:
            files = (*(name for name in meta["files"] if name not in (*tables, META)), *tables, META)
            entry = {**meta, what: dict(stamp), "files": files}
        else:
            _remove_old_run(folder, {pathlib.Path(path).resolve() for path in stamp["inputs"].values()})
            entry = {**stamp, "files": (*tables, META)}
        (staging / META).write_text(json.dumps(entry, indent=2, default=str) + "\n")
        for name in (*tables, META):
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(tables)


def _meta(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        meta = json.loads((folder / META).read_text())
        return meta if isinstance(meta["files"], list) and isinstance(meta["inputs"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _source(stamp: Mapping[str, Any]) -> str:
    """The measured screen that a stamp is of."""
    return os.path.abspath(str(stamp["inputs"].get("real")))
