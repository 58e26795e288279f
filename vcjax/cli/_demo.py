"""`vcjax demo`: predictors of known quality, and what each metric says of them."""

import argparse
import json
import math
import os
import pathlib
import shutil
import tempfile
import time
from typing import Any

from ._machine import keep_compiled_programs, limit_threads
from ._progress import progress_bars


COLUMNS = (
    *("expr_mse", "delta_pearson", "weighted_r2_mean", "delta_pearson_mean"),
    *("pds_l1", "pds_cosine", "amplitude_ratio"),
)
_MARK = "demo.json"
_SMALL: dict[str, Any] = {"perts": 12, "doubles": 3, "genes": 400, "cells_per_pert": 60, "control_cells": 150}


def demo_command(args: argparse.Namespace) -> int:
    """Simulates, writes the files, scores every predictor against the measured one and prints one table."""
    limit_threads(args.num_threads)
    keep_compiled_programs()
    folder = pathlib.Path(args.outdir)
    check_demo_folder(folder, force=args.force)
    start = time.monotonic()
    with progress_bars(args) as progress:
        names = write_screens(folder, args.seed, args.small, progress or (lambda *_: None))
        scores = score_predictors(folder, names, progress or (lambda *_: None))
    seconds = time.monotonic() - start
    command = f"vcjax run -ap {folder / 'pred_half_noise.h5ad'} -ar {folder / 'real.h5ad'} -o {folder / 'results'}"
    record = {"made_by": "vcjax demo", "seed": args.seed, "scores": scores, "legend": legend(scores), "next": command}
    (folder / _MARK).write_text(json.dumps(record, indent=2) + "\n")
    if args.json:
        print(json.dumps({**record, "folder": str(folder), "seconds": round(seconds, 1)}))
    elif not args.quiet:
        _print(scores, command, folder, seconds)
    return 0


def check_demo_folder(folder: pathlib.Path, *, force: bool) -> None:
    """Refuses a folder with content that an earlier demo did not write."""
    from ..io import Refusal

    if folder.exists() and not folder.is_dir():
        why = "Writing there would destroy it."
        raise Refusal(what="The output folder is a file.", where=str(folder), why=why, fix="Use another --outdir.")
    if not folder.is_dir() or not any(folder.iterdir()) or force:
        return
    try:
        ours = json.loads((folder / _MARK).read_text())["made_by"] == "vcjax demo"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise Refusal(
            what="The folder is not empty, and the demo did not make it.",
            where=str(folder),
            why="The demo writes real.h5ad and more there, over files of that name.",
            fix="Use another --outdir, or allow it: --force.",
        )


def write_screens(folder: pathlib.Path, seed: int, small: bool, progress: Any) -> list[str]:
    """Writes `real.h5ad` and one `pred_<name>.h5ad` a predictor; gives the names, best first."""
    from ..io import DEMO_PREDICTORS, simulate_screen

    screen = simulate_screen(seed=seed, **(_SMALL if small else {}))
    folder.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".vcjax-", dir=folder))
    try:
        files = ["real.h5ad", *(f"pred_{predictor.name}.h5ad" for predictor in DEMO_PREDICTORS)]
        screen.adata.write_h5ad(staging / files[0], compression="gzip", compression_opts=1)
        for i, predictor in enumerate(DEMO_PREDICTORS):
            progress("simulating", i, len(DEMO_PREDICTORS))
            predictor(screen, seed=seed).write_h5ad(staging / files[i + 1], compression="gzip", compression_opts=1)
        for name in files:
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [predictor.name for predictor in DEMO_PREDICTORS]


def score_predictors(folder: pathlib.Path, names: list[str], progress: Any) -> dict[str, dict[str, float]]:
    """The mean of every column for every predictor; the measured side is read and checked once."""
    from ..evaluation import evaluate
    from ..io import read_screen

    measured = read_screen(folder / "real.h5ad", pert_col="target_gene", input_type="counts")
    scores = {}
    for i, name in enumerate(names):
        progress("scoring", i, len(names))
        path = folder / f"pred_{name}.h5ad"
        report = evaluate(path, measured, metrics=COLUMNS, pert_col="target_gene", input_type_pred="counts")
        scores[name] = {metric: report.score(metric) for metric in COLUMNS}
    return scores


def legend(scores: dict[str, dict[str, float]]) -> list[str]:
    """What the table shows, in sentences made of its numbers."""
    inflated, mean, replicate, shuffled = (scores[name] for name in ("inflated", "mean", "replicate", "shuffled"))
    times = inflated["expr_mse"] / replicate["expr_mse"]
    return [
        f"inflated: the right genes at an absurd size. Ranks hardly see it (pds_cosine {inflated['pds_cosine']:.2f}); "
        f"its error is {times:.0f} times a replicate's, its size {inflated['amplitude_ratio']:.1f}, not 1.",
        f"mean: one answer for every perturbation. Its error ({mean['expr_mse']:.3f}, a replicate's "
        f"{replicate['expr_mse']:.3f}) looks like work; pds_l1 {mean['pds_l1']:.2f} says that it tells none apart.",
        f"shuffled: right sizes, wrong perturbations. Its amplitude ratio ({shuffled['amplitude_ratio']:.2f}) is a "
        f"replicate's ({replicate['amplitude_ratio']:.2f}); pds_l1 {shuffled['pds_l1']:.2f} is that of a guess.",
        f"weighted_r2_mean, the share that is explained of what the others do not share, gives these three "
        f"{inflated['weighted_r2_mean']:.2f}, {mean['weighted_r2_mean']:.2f} and {shuffled['weighted_r2_mean']:.2f}. "
        "Each half of the cells is scored with weights of the other, so that even the measured cells stay below 1.",
        "Read a rank (pds), an error in units of what there is to explain (r2) and the amplitude ratio together.",
    ]


def _print(scores: dict[str, dict[str, float]], command: str, folder: pathlib.Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..evaluation import find_metric, get_preset, number
    from ..io import DEMO_PREDICTORS

    rows = [find_metric(name, get_preset("calibrated"))[1] for name in COLUMNS]
    table = Table(title="Predictors of known quality, best first", title_justify="left")
    table.add_column("predictor")
    for name, metric in zip(COLUMNS, rows, strict=True):
        arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
        table.add_column(f"{name}{arrow}", justify="right")
    for predictor in DEMO_PREDICTORS:
        table.add_row(predictor.name, *(number(x) for x in scores[predictor.name].values()))
    table.add_section()
    for label, field in (("perfect value", "perfect"), ("without skill", "no_skill")):
        anchors = [getattr(metric, field) for metric in rows]
        table.add_row(f"[dim]{label}", *(f"[dim]{number(math.nan if x is None else x)}" for x in anchors))
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)  # a table in a file or a pipe must not be cut
    console.print(table)
    for predictor in DEMO_PREDICTORS:
        console.print(f"  {predictor.name:<11} {predictor.summary}", highlight=False)
    console.print()
    for line in legend(scores):
        console.print(f"• {line}", highlight=False)
    console.print(f"\n{len(os.listdir(folder))} files in {folder}, {seconds:.0f} s. Next:", highlight=False)
    print(f"  {command}")
