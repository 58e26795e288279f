"""`vcjax baseline`: a prediction that knows only what perturbations have in common, and what it scores."""

import argparse
import json
import os
import sys

from ._machine import keep_compiled_programs, limit_threads
from ._progress import progress_bars


def baseline_command(args: argparse.Namespace) -> int:
    """Makes the baseline of a measured screen; writes it, or evaluates it against that screen, or both."""
    limit_threads(args.num_threads)
    keep_compiled_programs()
    from ..evaluation import baseline_of, check_folder, get_preset, run_plan
    from ..io import write_screen
    from ._run import plan_of, reading

    path = args.outdir if args.outdir.endswith(".h5ad") else None
    if path is None:
        check_folder(args.outdir, force=args.force, inputs=(args.adata_real,))
    targets = [target for target in (args.save_pred, path) if target is not None]
    for target in targets:
        _check_target(target, args.adata_real, force=args.force)
    pred, real = baseline_of(args.adata_real, reading(args), get_preset(args.preset), args.emit, args.emit_seed)
    for target in targets:
        columns = {"pert_col": args.pert_col or "target_gene", "context_col": args.context_col or "celltype"}
        write_screen(pred, target, **columns)
        if not (args.quiet or args.json):
            print(f"Wrote {target}")
    if path is not None:
        return 0
    with progress_bars(args) as progress:
        report = run_plan(plan_of(args, pred, real), progress)
    files = report.write(args.outdir, args.layout, force=args.force)
    if args.json:
        print(json.dumps({**report.to_dict(), "outdir": args.outdir, "files": files}))
    elif not args.quiet:
        print(report.summary(), end="")
        print(f"Wrote {args.outdir}: {', '.join(files)}")
    for name in report.failed:
        print(f"vcjax baseline: {name} failed: {report.stamp['errors'][name]}", file=sys.stderr)
    return 1 if report.failed else 0


def _check_target(target: str, source: str, *, force: bool) -> None:
    """Refuses to write cells over the input, and over another file unless `force` allows it."""
    from ..io import Refusal

    same = os.path.exists(source) and os.path.realpath(target) == os.path.realpath(source)
    if same or (os.path.exists(target) and not force):
        raise Refusal(
            what="The cells would be written over the input." if same else "The file exists.",
            where=target,
            why="The data would be lost.",
            fix="Name another file: --save-pred, --outdir." if same else "Name another file, or allow it: --force.",
        )
