"""Weighted metrics, controls, dynamic range fractions and the bootstrap, against scPertEval and plain NumPy.

    python benchmarks/calibration.py --peer PYTHON [--perts 300] [--genes 18000] [--rounds 3] [--out FOLDER]

`PYTHON` is an interpreter with scPertEval 0.2.0 (`pip install scperteval==0.2.0`); without it vcjax is compared with
NumPy only. Every contender has a process of its own (`_calibration_worker.py`), and they take turns, A, B, C, A, B, C,
after a first call each, which compiles and fills caches.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from _calibration_worker import moments
from _measure import (
    interleave,
    load,
    machine,
    preamble,
    RESULTS,
    table,
    target,
    target_rows,
    versions,
    versions_of,
    write_results,
)
from _peer import Peer


CASES = {
    "weighted": "weights, WMSE and R²w of two predictions, from |t|",
    "moments": "tests, weights, both controls, WMSE, R²w and DRF, from means and variances of the cells",
    "cells": "the same from sparse cells in memory",
    "bootstrap": "intervals of the means of 50 metrics, 1,000 resamples of the perturbations",
}
TITLES = {"vcjax64": "vcjax float64", "vcjax32": "vcjax float32", "numpy": "NumPy", "scperteval": "scPertEval"}
# What scPertEval does in the case `moments`: from a handle that holds them. With `cached`, the tests too.
PEER_CASES = {"weighted": ("weighted",), "moments": ("moments", "cached"), "cells": ("cells",), "bootstrap": ()}
METRICS = 50
AGREES = 1e-8
BUDGET = 240  # seconds for a case; two rounds are made whatever they take
_ABOUT = """
Seconds of the call alone: `wall` is the least of all rounds, `CPU` the median of the time of all threads. Ratios are to
vcjax float64: above 1 is slower. `peak` is by how much resident memory rose during a call, the most of all rounds (0
where it fitted into what the process had allocated before). vcjax is timed after compilation. `apart` is the largest
difference of any value from scPertEval's (without it, from NumPy's) on the same halves of the same cells, relative to
the largest of its kind.

In the case `cells` vcjax runs `make_controls` and `calibrate` as a user would: it divides the cells by itself, and
tests as its recipe says (variances of the rest overestimated, the mean of the halves that are not the truth), so that
its values are of the same kind but not the same numbers; the medians of both are given.

scPertEval makes predictions from its cells at each call. `tests not cached`: its handle holds the moments of all cells,
as the others are given them, and the tests are made anew; `tests cached`: a second metric on the same handle. It has no
bootstrap.
"""


def values_of(worker: Peer, case: str) -> dict[str, np.ndarray]:
    """What the last run of a case found."""
    with np.load(worker.folder / f"{worker.name}-{case}.npz") as found:
        return dict(found)


def make_cells(perts: int, cells: int, controls: int, genes: int, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Logarithms of normalised counts with sparse effects, in float64, and the perturbation of each cell."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 1.8, genes)
    base /= base.sum()
    effect = rng.normal(0, 0.7, (perts + 1, genes)) * (rng.random((perts + 1, genes)) < 0.02)
    effect[-1] = 0
    codes = rng.permutation(np.concatenate([np.full(controls, -1), np.repeat(np.arange(perts), cells)]))
    blocks = []
    for start in range(0, len(codes), 1_000):
        group = codes[start : start + 1_000]
        rate = 8_000 * rng.lognormal(0, 0.3, (len(group), 1)) * base * np.exp(effect[group])
        rate *= rng.standard_gamma(2, rate.shape, dtype=np.float32) / 2
        counts = sp.csr_matrix(rng.poisson(rate).astype(np.float64))
        totals = np.asarray(counts.sum(axis=1)).ravel()
        counts.data = np.log1p(counts.data * np.repeat(8_000 / totals, np.diff(counts.indptr)))
        blocks.append(counts)
    return sp.csr_matrix(sp.vstack(blocks, format="csr")), codes


def write_halves(folder: pathlib.Path, codes: np.ndarray, seed: int = 0) -> None:
    """Random halves of the cells of every perturbation, where no peer decides them."""
    rng, halves = np.random.default_rng(seed), ([], [])
    for code in range(codes.max() + 1):
        mine = rng.permutation(np.flatnonzero(codes == code))
        for half, part in zip(halves, np.array_split(mine, 2), strict=True):
            half.append(part)
    for name, half in zip(("first_half", "second_half"), halves, strict=True):
        np.save(folder / f"{name}.npy", np.concatenate(half))


def write_moments(folder: pathlib.Path, cells: sp.csr_matrix, codes: np.ndarray) -> None:
    """What the cases from moments read: those of both halves and of all cells; the null, the control, |t|, values."""
    perts = int(codes.max()) + 1
    rows = {"first": np.load(folder / "first_half.npy"), "second": np.load(folder / "second_half.npy")}
    rows["whole"] = np.flatnonzero(codes >= 0)
    found = {side: moments(cells, codes, chosen, perts) for side, chosen in rows.items()}
    for side, parts in found.items():
        for part, values in zip(("mean", "variance", "cells"), parts, strict=True):
            np.save(folder / f"{side}_{part}.npy", values)
    mean, (first, variance, size) = found["whole"][0], found["first"]
    null = (mean.sum(axis=0) - mean) / (perts - 1)
    scores = (first - null) / np.sqrt(variance / size[:, None] + 1e-4)
    np.save(folder / "null.npy", null)
    np.save(folder / "scores.npy", scores)
    np.save(folder / "control.npy", np.asarray(cells[codes < 0].mean(axis=0)).ravel())
    np.save(folder / "values.npy", np.random.default_rng(0).gamma(2, 0.5, (METRICS, perts)))


def run_case(case: str, workers: Mapping[str, Peer], rounds: int) -> dict[str, Any]:
    """All contenders of one case in turn, after a first call of each."""
    contenders, titles = {}, {}
    for name, worker in workers.items():
        for its_case in PEER_CASES[case] if name == "scperteval" else (case,):
            title = TITLES[name]
            if its_case in ("moments", "cached") and name == "scperteval":
                title += {"moments": ", tests not cached", "cached": ", tests cached"}[its_case]
            contenders[title] = lambda worker=worker, its_case=its_case: worker.run(case=its_case)
            titles[title] = worker, its_case
            worker.run(case=its_case)
    measured = interleave(contenders, rounds, budget=BUDGET)
    values = {title: values_of(worker, its_case) for title, (worker, its_case) in titles.items()}
    results = {title: runs.summary() for title, runs in measured.items()}
    unit = results[TITLES["vcjax64"]]
    reference = next((title for title in values if title.startswith("scPertEval")), "NumPy")
    for title, result in results.items():
        result["wall_ratio"] = result["wall_s"] / unit["wall_s"]
        result["cpu_ratio"] = result["cpu_s"] / max(unit["cpu_s"], 1e-9)
        own_halves = case == "cells" and title.startswith("vcjax")
        result["apart"] = None if own_halves or case == "bootstrap" else apart(values[title], values[reference])
    print(f"{case}:", *(f"{title} {result['wall_s']:.3g} s;" for title, result in results.items()), flush=True)
    medians = {
        title: {name: float(np.nanmedian(found[name])) for name in ("drf_wmse", "drf_r2") if name in found}
        for title, found in values.items()
    }
    found = {"case": case, "reference": reference, "rounds": len(next(iter(measured.values())).samples)}
    found |= {"load": load(), "results": results, "medians": medians}
    if case == "bootstrap":
        width = {title: float(np.mean(rows["high"] - rows["low"])) for title, rows in values.items()}
        found["width"] = width
    return found


def apart(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """The largest difference of values, relative to the largest of each kind."""
    names = [name for name in ours if name in theirs]
    return max(float(np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name]))) for name in names)


def report(results: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The Markdown report, and whether the values agree."""
    targets, lines = [], []
    for case in results["cases"]:
        runs = case["results"]
        for title, run in runs.items():
            if run["apart"] is not None and title != case["reference"] and title != TITLES["vcjax32"]:
                targets.append(target(f"{case['case']}: {title} apart from {case['reference']}", run["apart"], AGREES))
        rows = [
            [title, run["wall_s"], run["cpu_s"], run["wall_ratio"], run["cpu_ratio"], run["peak_mib"]]
            + [None if run["apart"] is None else f"{run['apart']:.1e}"]
            for title, run in runs.items()
        ]
        lines += [f"### {case['case']}: {CASES[case['case']]} ({case['rounds']} rounds)"]
        lines += table(["", "wall s", "CPU s", "wall ratio", "CPU ratio", "peak MiB", "apart"], rows)
        told = [
            f"{title} {found['drf_wmse']:.3f}, {found['drf_r2']:.3f}"
            for title, found in case["medians"].items()
            if "drf_wmse" in found
        ]
        lines += [f"Median DRF of WMSE and of R²w: {'; '.join(told)}.", ""] if told else []
        if "width" in case:
            told = ", ".join(f"{title} {value:.4f}" for title, value in case["width"].items())
            lines += [f"Mean width of the intervals: {told}.", ""]
    size, head = results["settings"], preamble("Weighted metrics and their calibration", results)
    head += ["", f"{size['perts']} perturbations of {size['cells']} cells, {size['controls']} control cells, "
             f"{size['genes']:,} genes, {size['stored'] / 1e6:.1f} M stored values."]  # fmt: skip
    head += [] if size["peer"] else ["", f"scPertEval was not run: {size['why']}"]
    return "\n".join([*head, "", "## Agreement", *target_rows(targets), "## Times", _ABOUT, *lines]), targets


def run(args: argparse.Namespace, threads: int) -> tuple[list[dict[str, Any]], int]:
    """All cases, and the number of stored values of the cells."""
    cells, codes = make_cells(args.perts, args.cells, args.controls, args.genes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        sp.save_npz(folder / "cells.npz", cells, compressed=False)
        np.save(folder / "codes.npy", codes)
        start = lambda python, name: Peer(python, "_calibration_worker.py", name, folder, threads)
        workers = {}
        if args.peer:
            workers["scperteval"] = start(args.peer, "scperteval")
        else:
            write_halves(folder, codes)
        write_moments(folder, cells, codes)
        stored = int(cells.nnz)
        del cells
        ours = {name: start(sys.executable, name) for name in ("vcjax64", "vcjax32", "numpy")}
        workers = {**ours, **workers}
        cases = [run_case(case, workers, args.rounds) for case in args.cases]
        for worker in workers.values():
            worker.close()
    return cases, stored


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `calibration.json` and `calibration.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=None, metavar="PYTHON", help="interpreter that has scPertEval")
    parser.add_argument("--why", default="no interpreter was given (--peer).", help="for the report, without --peer")
    parser.add_argument("--perts", type=int, default=300)
    # As many as all fit into the 8,192 cells that scPertEval compares with.
    parser.add_argument("--cells", type=int, default=26, help="of each perturbation")
    parser.add_argument("--controls", type=int, default=1000, help="control cells")
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="at most; fewer where a case is slow")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    start, threads = load(), machine()["cores"]
    cases, stored = run(args, threads)
    sizes = {name: getattr(args, name) for name in ("perts", "cells", "controls", "genes", "rounds")}
    results = {
        "machine": machine(),
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "scipy"]),
        "peers_versions": versions_of(args.peer, ["scperteval", "numpy", "scipy"]) if args.peer else {},
        "settings": {**sizes, "stored": stored, "threads": threads, "peer": bool(args.peer), "why": args.why},
        "cases": cases,
    }
    text, targets = report(results)
    write_results("calibration", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
