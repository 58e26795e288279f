"""Every example runs on small data, and every notebook from its first cell to its last."""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT


SLOW = {
    *("train_on_the_six.py", "train_on_weighted_mse.py", "define_a_metric.py", "ablate_a_metric.py"),
    *("train_on_metrics.ipynb", "tune_kernel_ridge.py", "control_bias.py"),
}


def examples(pattern: str) -> list:
    return [
        pytest.param(path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
        for path in sorted((ROOT / "examples").glob(pattern))
    ]


def run(command: list[str], folder) -> str:
    # A process of its own, under the settings of a user and not those of the tests.
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    result = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not re.search(r"\bnan\b", result.stdout)
    return result.stdout


@pytest.mark.parametrize("name", examples("*.py"))
def test_example_runs_and_draws(name, tmp_path):
    figure = tmp_path / "figure.png"
    run([str(ROOT / "examples" / name), "--small", "--out", str(figure)], tmp_path)
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize("name", examples("*.ipynb"))
def test_notebook_runs_from_its_first_cell_to_its_last(name, tmp_path):
    cells = json.loads((ROOT / "examples" / name).read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    # Cell by cell in one namespace, as a kernel runs them; no kernel is needed for that.
    script = tmp_path / "cells.py"
    script.write_text(f"scope = {{}}\nfor source in {sources!r}:\n    exec(source, scope)\n")
    assert run([str(script)], tmp_path)


def test_notebooks_follow_the_format():
    for path in (ROOT / "examples").glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        cells = notebook["cells"]
        assert len({cell["id"] for cell in cells}) == len(cells)
        assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
