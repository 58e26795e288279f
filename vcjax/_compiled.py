"""Loops compiled on the host by numba, which is optional: each has a twin in numpy."""

import importlib.util
import uuid
from collections.abc import Callable
from typing import Any


_OURS = uuid.uuid4().hex[:12]


def numba_installed() -> bool:
    """Whether loops can be compiled; numba itself is not imported to find out."""
    return importlib.util.find_spec("numba") is not None


def compiled(function: Callable) -> Any:
    """The function compiled once, without the interpreter's lock, and kept on disk where a folder can be written."""
    import numba

    try:
        loop = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)
    _name_apart(loop)
    return loop


def _name_apart(loop):
    """Lets this process name the files of what it compiles apart from those of others.

    numba numbers them. Two processes that compile a function for two types at once, as the jobs of a cluster do, take
    the same number, and every later process loads one for the other and fails ("can't unbox array").
    """
    files = getattr(getattr(loop, "_cache", None), "_cache_file", None)
    if files is not None:
        files._data_name_pattern = files._data_name_pattern.replace("{number", f"{_OURS}.{{number")
