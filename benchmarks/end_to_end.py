"""Whole runs from h5ad files to result files, against cell-eval and cell-eval2: wall, CPU and peak memory.

    python benchmarks/end_to_end.py --peers PYTHON [--perts 50] [--cells 300] [--controls 5000] [--genes 5000]

`PYTHON` is an interpreter with the peers installed; see README.md. Every run is a fresh process, start-up included, and
the contenders take turns, A, B, C, A, B, C. The numbers in the result files are compared.
"""

import argparse
import csv
import dataclasses
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from _measure import interleave, load, machine, RESULTS, run_process, Sample, versions, versions_of, write_results
from _report import end_to_end_report


CONTROL, PERT_COLUMN = "non-targeting", "target_gene"
SKIPPED = "pearson_edistance,clustering_agreement"  # vcjax does not compute them
# Each peer's command runs through its own entry point, as its console script does.
CELL_EVAL = "from cell_eval.__main__ import main; main()"
CELL_EVAL2 = "from cell_eval2.cli import main; main()"
Values = dict[tuple[str, str], float]  # by metric and perturbation


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder of the inputs and outputs, and the peers' interpreter."""

    folder: pathlib.Path
    peers: str
    threads: int

    def run(self, name: str, command: Sequence[str], env: dict[str, str] | None = None) -> Sample:
        """One fresh process that scores the pair into the folder `name`, which is new."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        pair = ["-ap", f"{self.folder}/pred.h5ad", "-ar", f"{self.folder}/real.h5ad", "-o", str(out)]
        return run_process([*command, *pair], log=self.folder / f"{name}.log", env=env)

    def ours(self, preset: str, cache: str) -> Sample:
        """vcjax, with a compilation cache that is empty (`cold`) or kept between runs (`warm`)."""
        folder = self.folder / f"xla-{preset}-{cache}"
        if cache == "cold":
            shutil.rmtree(folder, ignore_errors=True)
        options = ["--preset", preset, "--profile", "anndata", "--pert-col", PERT_COLUMN]
        command = [sys.executable, "-m", "vcjax", "run", *options, "--no-progress"]
        return self.run(f"vcjax-{preset}-{cache}", command, env={"JAX_COMPILATION_CACHE_DIR": str(folder)})

    def cell_eval(self, *, tables: bool) -> Sample:
        """cell-eval, which computes differential expression unless it is given the tables of an earlier run."""
        done = self.folder / "cell-eval"
        given = ["-dp", f"{done}/pred_de.csv", "-dr", f"{done}/real_de.csv"] if tables else []
        options = ["--profile", "anndata", "--skip-metrics", SKIPPED, "--pert-col", PERT_COLUMN]
        command = [self.peers, "-c", CELL_EVAL, "run", *options, "--num-threads", str(self.threads), *given]
        return self.run("cell-eval-tables" if tables else "cell-eval", command)

    def cell_eval2(self) -> Sample:
        """cell-eval2, whose profile computes no differential expression."""
        options = ["--preset", "v2", "--profile", "anndata", "--pert-col", PERT_COLUMN, "--input-type", "counts"]
        command = [self.peers, "-c", CELL_EVAL2, "run", *options, "--set", f"num_threads={self.threads}"]
        return self.run("cell-eval2", command)


def make_pair(folder: pathlib.Path, perts: int, cells: int, controls: int, genes: int, seed: int = 0) -> float:
    """Writes `real.h5ad` and `pred.h5ad`, counts with controls on both sides; the share of zeros in `real`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 1.6, genes)
    base /= base.sum()
    effect = rng.normal(0, 0.6, (perts, genes)) * (rng.random((perts, genes)) < 0.1)
    effect += rng.normal(0, 0.3, genes) * (rng.random(genes) < 0.1)
    effect[np.arange(perts), np.arange(perts)] = -2.5
    guess = 0.5 * effect + rng.normal(0, 0.2, effect.shape)
    depth = _depth_for_zeros(base, 0.7)
    sizes = [*[cells] * perts, controls]
    zeros = 0.0
    for name, side in (("real", effect), ("pred", guess)):
        zeros = _write_screen(folder / f"{name}.h5ad", base, np.vstack([side, 0 * base]), sizes, depth, rng)
    return zeros


def _depth_for_zeros(base: Any, share: float) -> float:
    """Counts a cell, so that this share of its entries is zero."""
    import numpy as np

    low, high = 1.0, 1e7
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if np.mean(_zero_probability(middle * base)) > share else (low, middle)
    return low


def _zero_probability(mean: Any) -> Any:
    return (1 + mean / 3) ** -3.0  # of a negative binomial whose rate varies by a gamma of shape 3


def _write_screen(path: pathlib.Path, base: Any, effect: Any, sizes: list[int], depth: float, rng: Any) -> float:
    import anndata as ad
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    genes = np.array([f"GENE{i:05d}" for i in range(len(base))])
    blocks = []
    for row, size in zip(effect, sizes, strict=True):
        profile = base * np.exp(row)
        library = rng.lognormal(np.log(depth), 0.3, (size, 1))
        rate = library * profile / profile.sum() * rng.gamma(3, 1 / 3, (size, len(base)))
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    labels = np.repeat([*genes[: len(sizes) - 1], CONTROL], sizes)
    order = rng.permutation(len(labels))
    matrix = sp.csr_matrix(sp.vstack(blocks, format="csr"))[order]
    obs = pd.DataFrame(
        {PERT_COLUMN: pd.Categorical(labels[order])}, index=np.array([f"cell{i}" for i in range(len(labels))])
    )
    ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)
    return 1 - matrix.nnz / (matrix.shape[0] * matrix.shape[1])


def read_values(folder: pathlib.Path) -> Values:
    """`results.csv`, with a column a metric or with a row a value; and the means, where a panel's number stands too."""
    rows, totals = (_rows(folder / name) for name in ("results.csv", "agg_results.csv"))
    means = next(row for row in totals if row["statistic"] == "mean")
    values = {
        (name, "mean"): _number(text) for name, text in means.items() if name not in ("statistic", "perturbation")
    }
    if "metric" in rows[0]:
        return {**values, **{(row["metric"], row["perturbation"]): _number(row["value"]) for row in rows}}
    named = {(name, row["perturbation"]): row[name] for row in rows for name in row if name != "perturbation"}
    return {**values, **{key: _number(text) for key, text in named.items()}}


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float:
    return float(text) if text else math.nan


def agreement(ours: Values, theirs: Values) -> dict[str, dict[str, Any]]:
    """By metric of both: how many values, and the largest relative difference.

    **Raises:** `ValueError` if there is no value to compare.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in ours:
        if key not in theirs:
            continue
        entry = found.setdefault(key[0], {"compared": 0, "largest_relative": 0.0, "undefined_on_one_side": 0})
        a, b = ours[key], theirs[key]
        if math.isnan(a) or math.isnan(b):
            entry["undefined_on_one_side"] += math.isnan(a) != math.isnan(b)
            continue
        apart = abs(a - b) / abs(b) if b else abs(a)
        entry["compared"] += 1
        entry["largest_relative"] = max(entry["largest_relative"], apart)
    if not found:
        raise ValueError("The two runs share no metric and perturbation.")
    return found


def run_cases(space: Workspace, rounds: int) -> dict[str, Any]:
    """All contenders of both presets in turn."""
    space.ours("cell_eval", "warm")  # fills the caches, and what the peers' interpreter compiles once for all
    space.ours("v2", "warm")
    space.cell_eval(tables=False)
    space.cell_eval2()
    contenders: dict[str, Callable[[], Sample]] = {
        f"{preset}: vcjax, {cache}": lambda preset=preset, cache=cache: space.ours(preset, cache)
        for preset in ("cell_eval", "v2")
        for cache in ("warm", "cold")
    }
    contenders["cell_eval: cell-eval"] = lambda: space.cell_eval(tables=False)
    contenders["cell_eval: cell-eval, DE tables given"] = lambda: space.cell_eval(tables=True)
    contenders["v2: cell-eval2"] = space.cell_eval2
    measured = interleave(contenders, rounds)
    cases = {}
    for preset, peer in (("cell_eval", "cell-eval"), ("v2", "cell-eval2")):
        results = {key.split(": ")[1]: runs.summary() for key, runs in measured.items() if key.startswith(f"{preset}:")}
        values = [read_values(space.folder / name) for name in (f"vcjax-{preset}-warm", peer)]
        cases[preset] = {"peer": peer, "rounds": rounds, "results": results, "agreement": agreement(*values)}
    return cases


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `end_to_end.json` and `end_to_end.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="interpreter that has the peers installed")
    parser.add_argument("--perts", type=int, default=50)
    parser.add_argument("--cells", type=int, default=300, help="of each perturbation")
    parser.add_argument("--controls", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--make", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    size = [str(x) for x in (args.perts, args.cells, args.controls, args.genes)]
    if args.make:
        print(make_pair(args.make, *(int(x) for x in size)))
        return
    start = load()
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, for the peak memory of a child starts at that of this one.
        flags = [f"--{name}={x}" for name, x in zip(("perts", "cells", "controls", "genes"), size, strict=True)]
        making = [sys.executable, __file__, "--make", folder, *flags, "--peers", args.peers]
        zeros = float(subprocess.run(making, check=True, capture_output=True).stdout)
        machine_now = machine()
        cases = run_cases(Workspace(pathlib.Path(folder), args.peers, machine_now["cores"]), args.rounds)
    results = {
        "machine": machine_now,
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "anndata", "scipy"]),
        "peers_versions": versions_of(args.peers, ["cell-eval", "cell-eval2", "anndata", "scanpy", "polars", "pdex"]),
        "settings": {"perts": args.perts, "cells": args.cells, "control_cells": args.controls, "genes": args.genes}
        | {"zeros": zeros, "rounds": args.rounds},
        "cases": cases,
    }
    text, targets = end_to_end_report(results)
    write_results("end_to_end", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
