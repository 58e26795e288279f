"""The root group of an h5ad or a zarr store, or the reason why it cannot be opened."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ._errors import no_file, Refusal


@contextlib.contextmanager
def open_group(path: pathlib.Path) -> Iterator[Any]:
    """The root group of an h5ad (h5py) or of a zarr store (zarr), for reading.

    **Raises:** `Refusal` in a line that says why it cannot be opened.
    """
    if not path.exists():
        why, fix = "There is nothing to score.", "correct the path (`-ap`/`-ar` on the command line)."
        raise no_file(path, why=why, fix=fix)
    try:
        if path.is_dir() or path.suffix == ".zip":
            import zarr
            import zarr.storage

            store = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else path
            group: Any = zarr.open_group(store, mode="r")
        else:
            import h5py

            group = h5py.File(path, "r")
    except Exception as error:  # whatever the two libraries raise, the user needs the cause and not the traceback
        raise _not_a_screen(path, error) from error
    try:
        yield group
    finally:
        close = group.close if hasattr(group, "close") else group.store.close
        close()


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, for a message of ours."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_SIGNATURES = {
    b"\x1f\x8b": ("is gzip-compressed", "unpack it first: `gunzip FILE`."),
    b"PK\x03\x04": (
        "is a zip archive",
        "unpack it (a zipped zarr store has `obs` at its top and ends in `.zip`).",
    ),
    b"version https://git-lfs": ("is a Git LFS pointer, not the data", "fetch the data: `git lfs pull`."),
    b"\x89HDF": ("is HDF5 but was cut short or damaged", "copy it again and compare its size with the original."),
    b"": ("is not an HDF5 file", "convert it with anndata or scanpy and write it with `adata.write_h5ad(path)`."),
}


def _not_a_screen(path: pathlib.Path, error: Exception) -> Refusal:
    if path.is_dir():
        cause, fix = "is a folder but not a zarr store", "give the folder that `adata.write_zarr(path)` wrote."
    elif os.access(path, os.R_OK) and path.stat().st_size == 0:
        cause, fix = "is empty", "write it again; a disk may have been full."
    elif not os.access(path, os.R_OK):
        cause, fix = "may not be read by this user", "change its permissions."
    elif "unable to lock" in str(error) or "already open" in str(error):
        cause, fix = "is open for writing elsewhere", "close it there (`adata.file.close()`)."
    else:
        with open(path, "rb") as file:
            start = file.read(64)
        cause, fix = next(value for signature, value in _SIGNATURES.items() if start.startswith(signature))
    return Refusal(
        what=f"{str(path)!r} {cause}.",
        where=f"{path} ({first_line(error)})",
        why="Its cells cannot be read.",
        fix=fix,
    )
