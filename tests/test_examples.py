"""Every example runs on small data."""

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT


SLOW = {"train_on_the_six.py"}
EXAMPLES = [
    pytest.param(path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
    for path in sorted((ROOT / "examples").glob("*.py"))
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs_and_draws(name, tmp_path):
    # A process of its own, under the settings of a user and not those of the tests.
    figure = tmp_path / "figure.png"
    command = [sys.executable, str(ROOT / "examples" / name), "--small", "--out", str(figure)]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert figure.stat().st_size > 10_000
    assert not re.search(r"\bnan\b", result.stdout)
