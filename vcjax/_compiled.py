"""Loops compiled on the host by numba, which is optional: each has a twin in numpy."""

import importlib.util
from collections.abc import Callable
from typing import Any


def numba_installed() -> bool:
    """Whether loops can be compiled; numba itself is not imported to find out."""
    return importlib.util.find_spec("numba") is not None


def compiled(function: Callable) -> Any:
    """The function compiled once, without the interpreter's lock, and kept on disk where a folder can be written."""
    import numba

    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)
