"""Compiled loops kept on disk."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest


needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
_COUNT = """
import sys
import numpy as np
from vcjax.de._ranksum_numba import count_stored
counts = np.zeros(3, np.int64)
count_stored(np.array([0, 2]), np.array([0, 2], sys.argv[1]), np.array([0]), counts)
print(*counts)
"""


def count(folder: pathlib.Path, dtype: str) -> str:
    """The entries of each column of a small matrix, counted by a process that keeps compiled loops in this folder."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": os.fspath(folder)}
    found = subprocess.run([sys.executable, "-c", _COUNT, dtype], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@needs_numba
def test_processes_that_compile_at_once(tmp_path):
    """Whatever order the files of two processes are written in, what is loaded is what the index names."""
    for dtype in ("int32", "uint16"):
        assert count(tmp_path / dtype, dtype) == "1 0 1"
    for first, last in (("int32", "uint16"), ("uint16", "int32")):
        both = tmp_path / f"{first} then {last}"
        shutil.copytree(tmp_path / first, both)
        later = list((tmp_path / last).rglob("*.nbc"))
        assert later
        for path in later:  # all but the index
            shutil.copy(path, both / path.relative_to(tmp_path / last))
        for dtype in ("int32", "uint16", "int32"):
            assert count(both, dtype) == "1 0 1"
