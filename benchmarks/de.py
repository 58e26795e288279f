"""Differential expression alone, one side, against pdex, illico and scanpy: wall and CPU.

    python benchmarks/de.py --peers PYTHON --illico PYTHON [--sizes S M X V K] [--rounds 3] [--out FOLDER]

Both are interpreters with the peers installed; see README.md. Every size runs its contenders in turn, A, B, C, A, B, C,
each after a first call that compiles. All test every perturbation against the control cells and adjust the p-values.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import scipy.sparse as sp
import scipy.stats
from _depth import depth_for_zeros
from _measure import (
    interleave,
    load,
    machine,
    preamble,
    RESULTS,
    Sample,
    table,
    target,
    target_rows,
    time_call,
    versions,
    versions_of,
    write_results,
)
from _peer import Peer

from vcjax.de import rank_sums, RankSums
from vcjax.de._ranksum import rank_sums_of
from vcjax.de._ranksum_cells import sides_of


# Perturbations, cells of each, control cells, genes.
SIZES = {
    "S": (20, 200, 1_000, 2_000),
    "M": (50, 300, 5_000, 5_000),
    "X": (20, 300, 3_000, 18_080),
    "V": (100, 1_000, 38_000, 512),
    "K": (600, 100, 10_000, 600),
}
ENGINES = ("numba", "numpy", "jax")
SCANPY_SIZES = ("S",)  # minutes at the others
ZEROS = 0.7
FIRST_GENES = 32  # of the call that compiles
_ABOUT = """
Seconds of one side: `wall` is the least of all rounds, `CPU` the median of the time of all threads together. Ratios are
to the first row: above 1 is slower. Compilation is not included. Cells are in memory, sparse, normalised, in float32,
and in random order. vcjax: U, variance, p-values, group means and Benjamini-Hochberg (scipy's). The peers make a table
of the same; scanpy does not use a continuity correction, and sorts. `apart` is the largest relative difference of
p-values above 1e-290 from the first row.
"""


def start_peer(python: str, name: str, folder: pathlib.Path, threads: int) -> Peer:
    """A peer that has made its first call, in which packages compile."""
    peer = Peer(python, "_de_worker.py", name, folder, threads)
    peer.run(genes=FIRST_GENES)
    return peer


def pvalues_of(peer: Peer) -> np.ndarray | None:
    """Those of the last run, if it left them."""
    path = peer.folder / f"{peer.name}.npy"
    return np.load(path) if path.exists() else None


def make_cells(perts: int, cells: int, controls: int, genes: int, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Logarithms of normalised counts, negative binomial with sparse effects, and the perturbation of each cell."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 2, genes)
    base /= base.sum()
    effect = rng.normal(0, 0.6, (perts + 1, genes)) * (rng.random((perts + 1, genes)) < 0.05)
    effect[-1] = 0
    codes = rng.permutation(np.concatenate([np.full(controls, -1), np.repeat(np.arange(perts), cells)]))
    library = rng.lognormal(0, 0.35, (100, 1))
    zeros = lambda depth: float(np.mean((1 + depth * library * base / 2) ** -2.0))
    depth, blocks = depth_for_zeros(zeros, ZEROS, 1e8), []
    for start in range(0, len(codes), 2_000):
        group = codes[start : start + 2_000]
        rate = depth * rng.lognormal(0, 0.35, (len(group), 1)) * base * np.exp(effect[group])
        blocks.append(sp.csr_matrix(rng.poisson(rate * rng.standard_gamma(2, rate.shape) / 2).astype(np.float32)))
    values = sp.csr_matrix(sp.vstack(blocks, format="csr"))
    totals = np.asarray(values.sum(axis=1)).ravel()
    divisors = (totals / np.median(totals[totals > 0])).astype(np.float32)
    values.data = np.log1p(values.data / np.repeat(divisors, np.diff(values.indptr)))
    return values, codes


def ours(values: sp.csr_matrix, codes: np.ndarray, perts: int, engine: Any) -> tuple[RankSums, np.ndarray, np.ndarray]:
    """All that the peers make: the test, adjusted p-values, and means of the groups."""
    sides, sizes = sides_of(values, codes, perts, None)
    found = rank_sums_of([side._replace(sums="log") for side in sides], sizes, engine=engine)
    adjusted = scipy.stats.false_discovery_control(np.exp(found.log_pvalue()), axis=1)
    assert found.sums is not None
    return found, adjusted, found.sums / sizes[:, None]


def run_size(name: str, rounds: int, pythons: Mapping[str, str], threads: int) -> dict[str, Any]:
    """All contenders of one size in turn."""
    perts, cells, controls, genes = SIZES[name]
    values, codes = make_cells(perts, cells, controls, genes)
    contenders: dict[str, Callable[[], Sample]] = {}
    for engine in ENGINES:
        ours(values, codes, perts, engine)
        contenders[f"vcjax {engine}"] = lambda engine=engine: time_call(lambda: ours(values, codes, perts, engine))
    expected = np.exp(rank_sums(values, codes, perts, engine="numba").log_pvalue())
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        sp.save_npz(folder / "values.npz", values, compressed=False)
        np.save(folder / "codes.npy", codes)
        chosen = [peer for peer in pythons if peer != "scanpy" or name in SCANPY_SIZES]
        peers = {peer: start_peer(pythons[peer], peer, folder, threads) for peer in chosen}
        contenders |= {peer: lambda process=process: process.run(genes=genes) for peer, process in peers.items()}
        measured = interleave(contenders, rounds)
        apart = {peer: _apart(expected, pvalues_of(process)) for peer, process in peers.items()}
        for process in peers.values():
            process.close()
    for engine in ENGINES[1:]:
        apart[f"vcjax {engine}"] = _apart(expected, np.exp(rank_sums(values, codes, perts, engine=engine).log_pvalue()))
    results = {contender: runs.summary() for contender, runs in measured.items()}
    size = {"perts": perts, "cells": cells, "control_cells": controls, "genes": genes, "stored": int(values.nnz)}
    return {"size": name, **size, "rounds": rounds, "results": results, "apart": apart}


def _apart(ours: np.ndarray, theirs: np.ndarray | None) -> float | None:
    if theirs is None:
        return None
    some = (ours > 1e-290) & (theirs > 1e-290)
    return float(np.max(np.abs(ours[some] / theirs[some] - 1)))


def report(results: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The Markdown report, and whether the targets are met."""
    targets, lines = [], []
    for case in results["cases"]:
        runs, many = case["results"], case["perts"] >= 50
        limits = [("pdex", "vcjax numba", 20), ("pdex", "vcjax jax", 4)] + [("illico", "vcjax numba", 4)] * many
        for peer, engine, limit in limits:
            value = runs[peer]["cpu_s"] / runs[engine]["cpu_s"]
            targets.append(target(f"{case['size']}, CPU: {peer} / {engine}", value, limit, at_least=True))
        unit = runs["vcjax numba"]
        rows = [
            [name, run["wall_s"], run["cpu_s"], run["wall_s"] / unit["wall_s"], run["cpu_s"] / unit["cpu_s"]]
            + [f"{case['apart'][name]:.1e}" if case["apart"].get(name) is not None else None]
            for name, run in runs.items()
        ]
        lines += [
            f"### {case['size']}: {case['perts']} × {case['cells']} cells, {case['control_cells']:,} controls, "
            f"{case['genes']:,} genes, {case['stored'] / 1e6:.1f} M stored ({case['rounds']} rounds)",
            *table(["", "wall s", "CPU s", "wall ratio", "CPU ratio", "apart"], rows),
        ]
    head = preamble("Differential expression", results)
    return "\n".join([*head, "", "## Targets", *target_rows(targets), "## Times", _ABOUT, *lines]), targets


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `de.json` and `de.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="interpreter that has pdex and scanpy")
    parser.add_argument("--illico", required=True, metavar="PYTHON", help="interpreter that has illico")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    start, threads = load(), machine()["cores"]
    pythons = {"pdex": args.peers, "illico": args.illico, "scanpy": args.peers}
    cases = [run_size(name, args.rounds, pythons, threads) for name in args.sizes]
    peers = {**versions_of(args.peers, ["pdex", "scanpy", "numba"]), "illico": ""}
    results = {
        "machine": machine(),
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "scipy", "numba"]),
        "peers_versions": {**peers, "illico": versions_of(args.illico, ["illico"])["illico"]},
        "settings": {"sizes": args.sizes, "rounds": args.rounds, "threads": threads, "zeros": ZEROS},
        "cases": cases,
    }
    text, targets = report(results)
    write_results("de", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
