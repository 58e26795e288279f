"""`vcjax controls` and `vcjax calibrate`: what metrics are worth on a screen, and where a prediction lies."""

import argparse
import json
import sys

from ._machine import keep_compiled_programs, limit_threads
from ._page import check_page, write_page
from ._progress import progress_bars
from ._run import plan_of, reading


def controls_command(args: argparse.Namespace) -> int:
    """Scores the controls; prints, and writes if asked to."""
    return _calibrated(args)


def calibrate_command(args: argparse.Namespace) -> int:
    """The same with a prediction between them."""
    return _calibrated(args)


def _calibrated(args: argparse.Namespace) -> int:
    if args.splits < 1 or not 0 < args.level < 1:
        print(f"vcjax {args.command}: --splits is at least 1, --level between 0 and 1", file=sys.stderr)
        return 2
    limit_threads(args.num_threads)
    keep_compiled_programs()
    from ..evaluation import check_folder, read_path
    from ..evaluation._calibrate_screen import calibrate_plan

    if args.outdir is not None:
        inputs = [path for path in (args.adata_pred, args.adata_real) if path is not None]
        check_folder(args.outdir, force=True, inputs=inputs)  # what it holds is looked at before writing
    check_page(args)
    real = args.adata_real
    if args.adata_pred is None:
        options = reading(args)
        real = read_path(real, options, options.input_type_real, require_control=True, max_memory=args.max_memory)
    plan = plan_of(args, args.adata_pred or real, real)
    with progress_bars(args) as progress:
        found = calibrate_plan(
            plan,
            predicted=args.adata_pred is not None,
            seeds=range(args.seed, args.seed + args.splits),
            train_perts=args.train_perts,
            positive=args.positive,
            level=args.level,
            progress=progress,
        )
    files = () if args.outdir is None else found.write(args.outdir, force=args.force)
    if args.json:
        print(json.dumps({**found.to_dict(), "outdir": args.outdir, "files": files}))
    elif not args.quiet:
        print(found.summary(), end="")
        if files:
            print(f"Wrote {args.outdir}: {', '.join(files)}")
    write_page(args, calibration=found)
    return 0
