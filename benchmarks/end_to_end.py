"""Whole runs from h5ad files to result files, against cell-eval and cell-eval2: wall, CPU and peak memory.

    python benchmarks/end_to_end.py --peers PYTHON [--group profiles|de] [--sizes M] [--rounds 2]

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

from _depth import depth_for_zeros
from _measure import interleave, load, machine, RESULTS, run_process, Sample, versions, versions_of, write_results
from _report import end_to_end_report


CONTROL, PERT_COLUMN = "non-targeting", "target_gene"
# Each peer's command runs through its own entry point, as its console script does.
CELL_EVAL = "from cell_eval.__main__ import main; main()"
CELL_EVAL2 = "from cell_eval2.cli import main; main()"
Values = dict[tuple[str, str], float]  # by metric and perturbation

# Perturbations, cells of each, control cells, genes: as in de.py.
SIZES = {
    "S": (20, 200, 1_000, 2_000),
    "M": (50, 300, 5_000, 5_000),
    "X": (20, 300, 3_000, 18_080),
    "V": (100, 1_000, 38_000, 512),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A preset's profile, and the peer that has it.

    `skip` are members that are left out on both sides. `faster`: how many times less wall time and CPU is aimed at, by
    size. `tables`: whether the peer runs once more with the tables of its first run given.
    """

    preset: str
    profile: str
    peer: str
    skip: str = ""
    faster: tuple[tuple[str, float], ...] = ()
    tables: bool = False

    @property
    def name(self) -> str:
        """Of the case in reports and folders."""
        return f"{self.preset} {self.profile}"


_NO_CELLS = "pearson_edistance,clustering_agreement"
GROUPS = {
    "profiles": {
        Case("cell_eval", "anndata", "cell-eval", _NO_CELLS, (("M", 1.0),), tables=True): "SM",
        Case("v2", "anndata", "cell-eval2", faster=(("M", 1.0),)): "SM",
    },
    "de": {
        Case("cell_eval", "vcc", "cell-eval", faster=(("M", 10.0), ("X", 10.0), ("V", 30.0))): "SMXV",
        Case("cell_eval", "full", "cell-eval", "clustering_agreement", (("M", 8.0),)): "SM",
        Case("vcc2026", "vcc2026", "cell-eval2", faster=(("M", 8.0), ("X", 8.0), ("V", 8.0))): "SMXV",
        Case("v2", "full", "cell-eval2"): "SM",
    },
}


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The folder of the inputs and outputs, and the peers' interpreter."""

    folder: pathlib.Path
    peers: str
    threads: int

    def make(self, size: tuple[int, int, int, int]) -> float:
        """The pair of this size; the share of zeros."""
        # In a process of its own, for the peak memory of a child starts at that of this one.
        command = [sys.executable, __file__, "--peers", self.peers, "--make", str(self.folder), *(str(x) for x in size)]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    def run(self, name: str, command: Sequence[str], env: dict[str, str] | None = None) -> Sample:
        """One fresh process that scores the pair into the folder `name`, which is new."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        pair = ["-ap", f"{self.folder}/pred.h5ad", "-ar", f"{self.folder}/real.h5ad", "-o", str(out)]
        return run_process([*command, *pair], log=self.folder / f"{name}.log", env=env)

    def ours(self, case: Case, cache: str) -> Sample:
        """vcjax, with a compilation cache that is empty (`cold`) or kept between runs (`warm`)."""
        folder = self.folder / f"xla {case.name} {cache}"
        if cache == "cold":
            shutil.rmtree(folder, ignore_errors=True)
        options = ["--preset", case.preset, "--profile", case.profile, "--pert-col", PERT_COLUMN]
        options += ["--skip-metrics", case.skip] if case.skip else []
        command = [sys.executable, "-m", "vcjax", "run", *options, "--no-progress"]
        return self.run(f"vcjax {case.name} {cache}", command, env={"JAX_COMPILATION_CACHE_DIR": str(folder)})

    def theirs(self, case: Case, *, tables: bool = False) -> Sample:
        """The peer; `tables`: with those of its earlier run given, instead of being computed."""
        options = ["--profile", case.profile, "--pert-col", PERT_COLUMN]
        if case.peer == "cell-eval2":
            options += ["--preset", "v2", "--input-type", "counts", "--set", f"num_threads={self.threads}"]
            return self.run(f"peer {case.name}", [self.peers, "-c", CELL_EVAL2, "run", *options])
        options += ["--num-threads", str(self.threads)] + (["--skip-metrics", case.skip] if case.skip else [])
        done = self.folder / f"peer {case.name}"
        options += ["-dp", f"{done}/pred_de.csv", "-dr", f"{done}/real_de.csv"] if tables else []
        name = f"peer {case.name}{' tables' if tables else ''}"
        return self.run(name, [self.peers, "-c", CELL_EVAL, "run", *options])


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
    depth = depth_for_zeros(lambda depth: np.mean(_zero_probability(depth * base)), 0.7, 1e7)
    sizes = [*[cells] * perts, controls]
    zeros = 0.0
    for name, side in (("real", effect), ("pred", guess)):
        zeros = _write_screen(folder / f"{name}.h5ad", base, np.vstack([side, 0 * base]), sizes, depth, rng)
    return zeros


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


def run_size(size: str, cases: Sequence[Case], rounds: int, space: Workspace) -> dict[str, Any]:
    """All contenders of these cases in turn, on a new pair of this size."""
    zeros = space.make(SIZES[size])
    contenders: dict[str, Callable[[], Sample]] = {}
    for case in cases:
        space.ours(case, "warm")  # fills the cache
        for cache in ("warm", "cold"):
            contenders[f"{case.name}: vcjax, {cache}"] = lambda case=case, cache=cache: space.ours(case, cache)
        contenders[f"{case.name}: {case.peer}"] = lambda case=case: space.theirs(case)
        if case.tables:
            text = f"{case.name}: {case.peer}, DE tables given"
            contenders[text] = lambda case=case: space.theirs(case, tables=True)
    measured = interleave(contenders, rounds)
    found = {}
    for case in cases:
        results = {
            key.split(": ")[1]: runs.summary() for key, runs in measured.items() if key.startswith(f"{case.name}:")
        }
        values = [read_values(space.folder / name) for name in (f"vcjax {case.name} warm", f"peer {case.name}")]
        found[f"{case.name}, {size}"] = {
            "peer": case.peer,
            "size": dict(zip(("perts", "cells", "control_cells", "genes"), SIZES[size], strict=True)),
            "zeros": zeros,
            "rounds": rounds,
            "faster": dict(case.faster).get(size),
            "results": results,
            "agreement": agreement(*values),
        }
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `end_to_end_GROUP.json` and `end_to_end_GROUP.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="interpreter that has the peers installed")
    parser.add_argument("--group", choices=tuple(GROUPS), default="profiles")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["M", "X", "V"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--make", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.make:
        print(make_pair(pathlib.Path(args.make[0]), *(int(x) for x in args.make[1:])))
        return
    start, machine_now, cases = load(), machine(), {}
    members = GROUPS[args.group]
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace(pathlib.Path(folder), args.peers, machine_now["cores"])
        space.make((5, 40, 100, 200))
        for case in members:
            space.theirs(case)  # what the peers' interpreter compiles once for all
    for size in args.sizes:
        chosen = [case for case, sizes in members.items() if size in sizes]
        with tempfile.TemporaryDirectory() as folder:
            space = Workspace(pathlib.Path(folder), args.peers, machine_now["cores"])
            cases |= run_size(size, chosen, args.rounds, space) if chosen else {}
        # A peer may take an hour for the next size: what was measured is on disk before.
        results = {
            "machine": machine_now,
            "load": {"start": start, "end": load()},
            "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "numba", "anndata", "scipy"]),
            "peers_versions": versions_of(
                args.peers, ["cell-eval", "cell-eval2", "anndata", "scanpy", "polars", "pdex"]
            ),
            "cases": cases,
        }
        text, targets = end_to_end_report(results)
        write_results(f"end_to_end_{args.group}", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
