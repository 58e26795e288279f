"""Packages whose names are imported when they are first asked for."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, later: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: `later` says which module each name is in, "" for the module itself.

    Reading files, `--help` and refusing bad input then do not wait for JAX.
    """

    def getattribute(name: str) -> Any:
        if name not in later:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(later[name] or f".{name}", package)
        value = getattr(module, name) if later[name] else module
        setattr(sys.modules[package], name, value)
        return value

    return getattribute, lambda: sorted({*vars(sys.modules[package]), *later})
