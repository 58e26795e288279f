"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary name beside `path`: what is written there takes the place of `path` when the block ends.

    If the block fails, or is interrupted, `path` is as it was and what was written is removed. The temporary name
    belongs to this process and ends as `path` does, since some writers add an ending, or tell the format by it.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
