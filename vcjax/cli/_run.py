"""`vcjax run`: a prediction against the measured screen."""

import argparse
import json
import sys
from typing import Any

from ._machine import keep_compiled_programs, limit_threads
from ._progress import progress_bars
from ._values import size_text


def run_command(args: argparse.Namespace) -> int:
    """Validates, computes, writes, prints; 1 if a metric failed."""
    limit_threads(args.num_threads)
    keep_compiled_programs()
    from ..evaluation import check_folder, run_plan

    check_folder(args.outdir, force=args.force, inputs=(args.adata_pred, args.adata_real))
    plan = make_plan(args)
    if args.dry_run:
        _print_plan(plan.describe(), args)
        return 0
    with progress_bars(args) as progress:
        report = run_plan(plan, progress)
    files = report.write(args.outdir, args.layout, force=args.force)
    if args.json:
        print(json.dumps({**report.to_dict(), "outdir": args.outdir, "files": files}))
    elif not args.quiet:
        print(report.summary(), end="")
        print(f"Wrote {args.outdir}: {', '.join(files)}")
    for name in report.failed:
        print(f"vcjax run: {name} failed: {report.stamp['errors'][name]}", file=sys.stderr)
    return 1 if report.failed else 0


def make_plan(args: argparse.Namespace) -> Any:
    """The plan that the flags of `run` describe."""
    from ..evaluation import prepare

    return prepare(
        *(args.adata_pred, args.adata_real, reading(args)),
        preset=args.preset,
        profile=args.profile,
        metrics=args.metrics,
        skip=args.skip_metrics,
        exclude_targets=args.exclude_targets,
        cache_real=args.cache_real,
        max_memory=args.max_memory,
        device=args.device,
        dtype=args.dtype,
    )


def reading(args: argparse.Namespace) -> Any:
    """How the flags ask files to be read."""
    from ..evaluation import Reading

    both = args.input_type or "auto"
    return Reading(
        pert_col=args.pert_col,
        control=args.control,
        context_col=args.context_col,
        input_type_pred=args.input_type_pred or both,
        input_type_real=args.input_type_real or both,
        target_map={"*": None} if args.no_target_genes else args.target_map,
        genes=args.genes,
        dedup=args.dedup,
        drop_unlabelled=args.drop_unlabelled,
        nan=args.nan,
        layer=args.layer,
        gene_col=args.gene_col,
        missing=args.missing,
        extra=args.extra,
        min_cells=args.min_cells,
        match_cells=args.match_cells,
        seed=args.seed,
        max_total=args.max_total,
    )


def _print_plan(description: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(description))
    elif not args.quiet:
        print("Dry run: nothing was computed or written.")
        for name, value in description.items():
            if name == "memory_bytes":
                name, value = "memory", f"about {size_text(value)}"
            if name == "notes":
                continue
            if isinstance(value, dict):
                value = ", ".join(f"{key} {item}" for key, item in value.items())
            if isinstance(value, list):
                value = ", ".join(str(item) for item in value) or "none"
            print(f"  {name.replace('_', ' '):<17} {value}")
        for note in description["notes"]:
            print(f"note: {note}")
