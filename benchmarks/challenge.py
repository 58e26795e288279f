"""A pair of the size of a challenge's: 100 perturbations of 1,000 cells, 38,000 controls, 18,080 genes, scored once.

    python benchmarks/challenge.py [--folder FOLDER] [--size PERTS CELLS CONTROLS GENES] [--out FOLDER]

Both screens come from the package's simulator, 70 % zeros; the prediction has new cells and half of every effect. They
take 12 GB in `--folder` (a temporary one by default), and making one takes 20 GB of memory and some minutes.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from _depth import depth_for_zeros
from _measure import (
    load,
    machine,
    MIB,
    preamble,
    RESULTS,
    run_process,
    table,
    target,
    target_rows,
    versions,
    write_results,
)
from end_to_end import read_values


SIZE = (100, 1_000, 38_000, 18_080)
ZEROS = 0.7
LIMIT_GIB = 24.0
_ABOUT = """
`vcjax run --preset vcc2026` on both files: a fresh process from start to exit, with an empty compilation cache. `peak`
is its largest resident memory.
"""


def make_screen(path: pathlib.Path, size: Sequence[int], share: float, seed: int) -> float:
    """Writes a screen with this share of every effect; the share of zeros."""
    import numpy as np

    from vcjax.io import simulate_screen
    from vcjax.io._simulate import CONTROL, label_cells, shares

    perts, cells, controls, genes = size
    options: dict[str, Any] = {"perts": perts, "genes": genes, "doubles": 0, "cells_per_pert": 1, "control_cells": 1}
    # The truth does not depend on how many cells are drawn from it.
    shallow = simulate_screen(**options)
    base, dispersion = shallow.baseline, shallow.dispersion
    zeros = lambda depth: float(np.mean((1 + depth * base * dispersion) ** (-1 / dispersion)))
    truth = simulate_screen(**options, depth=depth_for_zeros(zeros, ZEROS, 1e6))
    profiles = shares(np.log(truth.baseline) + share * truth.log_fold_change)
    rng = np.random.default_rng(seed)
    blocks = [truth.draw(truth.control_profile, controls, rng)]
    blocks += [truth.draw(profile, cells, rng) for profile in profiles]
    adata = label_cells(blocks, [CONTROL, *truth.perts], truth.genes, rng=rng)
    adata.write_h5ad(path)
    return 1 - sum(block.nnz for block in blocks) / (adata.n_obs * adata.n_vars)


def score(folder: pathlib.Path, size: Sequence[int]) -> dict[str, Any]:
    """Makes the pair, scores it, and says what that took."""
    zeros = {}
    for seed, (side, share) in enumerate({"real": 1.0, "pred": 0.5}.items()):
        # In a process of its own, for the peak memory of a child starts at that of this one.
        values = [str(folder / f"{side}.h5ad"), str(share), str(seed), *(str(number) for number in size)]
        command = [sys.executable, __file__, "--make", *values]
        zeros[side] = float(subprocess.run(command, check=True, capture_output=True).stdout)
    pair = ["-ap", str(folder / "pred.h5ad"), "-ar", str(folder / "real.h5ad"), "-o", str(folder / "scores")]
    command = [sys.executable, "-m", "vcjax", "run", "--preset", "vcc2026", "--pert-col", "target_gene", *pair]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
    sample = run_process([*command, "--no-progress"], log=folder / "run.log", env=environment)
    return {
        "size": dict(zip(("perts", "cells", "control_cells", "genes"), size, strict=True)),
        "zeros": zeros,
        "file_bytes": {side: (folder / f"{side}.h5ad").stat().st_size for side in zeros},
        "wall_s": sample.wall,
        "cpu_s": sample.cpu,
        "peak_mib": (sample.peak_bytes or 0) / MIB,
        "scores": {name: x for (name, which), x in read_values(folder / "scores").items() if which == "mean"},
    }


def report(results: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The report, and its target."""
    case = results["case"]
    size, files = case["size"], case["file_bytes"].values()
    targets = [target("peak memory in GiB", case["peak_mib"] / 1024, LIMIT_GIB)]
    cells = f"{size['perts']} perturbations × {size['cells']} cells and {size['control_cells']} controls"
    share, total = case["zeros"]["real"], sum(files) / 1e9
    what = f"{cells} × {size['genes']} genes a side, {share:.1%} zeros, {total:.1f} GB in two uncompressed h5ad files."
    lines = [*preamble("A pair of a challenge's size", results), "", "## Target", *target_rows(targets), what, _ABOUT]
    lines += table(["wall s", "CPU s", "peak MiB"], [[case["wall_s"], case["cpu_s"], case["peak_mib"]]])
    lines += ["Means over perturbations of what was scored:", ""]
    return "\n".join([*lines, *table(["metric", "value"], [list(item) for item in case["scores"].items()])]), targets


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark and writes `challenge.json` and `challenge.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, help="where the pair is made, on a disk with 12 GB to spare")
    parser.add_argument("--size", type=int, nargs=4, default=SIZE, metavar=("PERTS", "CELLS", "CONTROLS", "GENES"))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--make", nargs=7, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.make:
        path, share, seed, *size = args.make
        print(make_screen(pathlib.Path(path), [int(number) for number in size], float(share), int(seed)))
        return
    start = load()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        case = score(pathlib.Path(folder), args.size)
    results = {
        "machine": machine(),
        "load": {"start": start, "end": load()},
        "versions": versions(["vcjax", "jax", "jaxlib", "numpy", "numba", "anndata", "scipy"]),
        "case": case,
    }
    text, targets = report(results)
    write_results("challenge", {**results, "targets": targets}, text, args.out)


if __name__ == "__main__":
    main()
