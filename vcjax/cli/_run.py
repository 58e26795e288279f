"""`vcjax run`: a prediction against the measured screen."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ._machine import keep_compiled_programs, limit_threads, share_heap
from ._meanwhile import Meanwhile
from ._progress import progress_bars
from ._replicates import lines, plain, replicate_tasks, write_replicates
from ._values import size_text


def run_command(args: argparse.Namespace) -> int:
    """Validates, computes, writes, prints; 1 if a metric failed."""
    limit_threads(args.num_threads)
    share_heap()
    wrong = _wrong(args)
    if wrong:
        print(f"vcjax run: {wrong}", file=sys.stderr)
        return 2
    sides = None if args.adata_pred is None else _reading_meanwhile(args)
    from ..evaluation import check_folder, run_plan
    from ._page import check_page, write_page

    keep_compiled_programs()
    inputs = [path for path in (args.adata_pred, args.adata_real) if path is not None]
    check_folder(args.outdir, force=args.force, inputs=inputs)
    check_page(args)
    if sides is not None and not sides.done and _keeps_cells(args):
        _load_engine(args)
    plan = None if sides is None else plan_of(args, args.adata_pred, args.adata_real, read=sides.result)
    tasks, calibration = replicate_tasks(args), None
    if args.dry_run:
        _print_plan({"notes": []} if plan is None else plan.describe(), args, tasks)
        return 0
    with progress_bars(args) as progress:
        report = None if plan is None else run_plan(plan, progress, details=args.html is not None)
        if report is not None and args.ci is not None:
            from ..evaluation import with_intervals

            report = with_intervals(report, args.ci, level=args.ci_level, seed=args.seed)
        if plan is not None and args.controls is not None:
            from ..evaluation._calibrate_screen import calibrate_plan

            calibration = calibrate_plan(plan, seeds=range(args.controls), level=args.ci_level, progress=progress)
        found = {name: task(progress=progress) for name, task in tasks.items()}
    files = () if report is None else report.write(args.outdir, args.layout, force=args.force)
    files = (*files, *write_replicates(found, args))
    if calibration is not None:
        files = (*files, *calibration.write(args.outdir, force=args.force))
    if args.json:
        whole = {} if report is None else report.to_dict()
        whole |= {} if calibration is None else {"calibration": calibration.to_dict()}
        print(json.dumps({**whole, **plain(found), "outdir": args.outdir, "files": files}))
    elif not args.quiet:
        print("" if report is None else report.summary(), end="")
        print("" if calibration is None else calibration.summary(notes=False), end="")
        print("".join(f"{line}\n" for line in lines(found)), end="")
        print(f"Wrote {args.outdir}: {', '.join(files)}")
    write_page(args, report=report, calibration=calibration)
    failed = {} if report is None else {name: report.stamp["errors"][name] for name in report.failed}
    if "ceiling" in found:
        halves = found["ceiling"].report
        failed |= {f"ceiling of {name}": halves.stamp["errors"][name] for name in halves.failed}
    for name, why in failed.items():
        print(f"vcjax run: {name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0


def _wrong(args: argparse.Namespace) -> str:
    """What makes no sense together, or out of range."""
    if args.adata_pred is None and not (args.ceiling or args.anchor):
        return "-ap/--adata-pred is required, except with --ceiling or --anchor"
    if args.adata_pred is None and (args.controls is not None or args.html is not None):
        return "--controls and --html need -ap/--adata-pred; `vcjax controls` does without"
    if args.controls is not None and args.controls < 1:
        return f"--controls needs at least one split, got {args.controls}"
    if args.ci is not None and args.ci < 1:
        return f"--ci needs at least one resample, got {args.ci}"
    return "" if 0 < args.ci_level < 1 else f"--ci-level lies between 0 and 1, got {args.ci_level}"


def _reading_meanwhile(args: argparse.Namespace) -> Meanwhile:
    """Both files, read while JAX is being imported."""
    from ..evaluation._sides import read_sides

    options, how = reading(args), {"max_memory": args.max_memory, "keep": _keeps_cells(args)}
    return Meanwhile(lambda: read_sides(args.adata_pred, args.adata_real, options, **how))


def _keeps_cells(args: argparse.Namespace) -> bool:
    from ..evaluation._profiles import keeps_cells

    return keeps_cells(args.preset, args.profile, args.metrics, args.de_pred, args.de_real)


def _load_engine(args: argparse.Namespace) -> None:
    """Loads what will test the cells, while they are still being read."""
    from ..evaluation import get_preset
    from ..io._de_test import load_engine

    load_engine(get_preset(args.preset).de)


def plan_of(args: argparse.Namespace, pred: Any, real: Any, read: Callable[[], Any] | None = None) -> Any:
    """The plan that the flags of `run` or `baseline` describe, for these sources, or for what `read` gives."""
    from ..evaluation import prepare

    return prepare(
        *(pred, real, reading(args)),
        preset=args.preset,
        profile=args.profile,
        metrics=args.metrics,
        skip=args.skip_metrics,
        exclude_targets=args.exclude_targets,
        weights=args.weights,
        weights_from=args.weights_from,
        train=args.train,
        allow_leak=args.allow_leak,
        de_pred=args.de_pred,
        de_real=args.de_real,
        keep_de=args.write_de,
        cache_real=args.cache_real,
        max_memory=args.max_memory,
        threads=args.num_threads,
        device=args.device,
        dtype=args.dtype,
        read=read,
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


def _print_plan(description: dict[str, Any], args: argparse.Namespace, tasks: Iterable[str] = ()) -> None:
    description |= {"measured_screen": list(tasks)} if tasks else {}
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
