"""`vcjax run --ceiling` and `--anchor`: what the measured screen says of itself."""

import argparse
import functools
import math
from collections.abc import Callable
from typing import Any


def replicate_tasks(args: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """What is left to compute, by name, with the measured screen read and checked: `task(progress=...)`.

    **Raises:** `vcjax.io.Refusal` for a screen that cannot be split.
    """
    if not (args.ceiling or args.anchor):
        return {}
    from ..evaluation._anchor import anchor_of
    from ..evaluation._ceiling import ceiling_of
    from ..evaluation._replicates import open_replicates
    from ._run import reading

    replicates = open_replicates(
        *(args.adata_real, reading(args)),
        preset=args.preset,
        profile=args.profile,
        metrics=args.metrics,
        skip=args.skip_metrics,
        exclude_targets=args.exclude_targets,
        max_memory=args.max_memory,
        threads=args.num_threads,
        device=args.device,
        dtype=args.dtype,
    )
    tasks = {}
    if args.ceiling:
        tasks["ceiling"] = functools.partial(ceiling_of, replicates, args.ceiling_seed)
    if args.anchor:
        tasks["anchor"] = functools.partial(anchor_of, replicates, args.anchor_base_seed, args.anchor_splits)
    return tasks


def write_replicates(found: dict[str, Any], args: argparse.Namespace) -> tuple[str, ...]:
    """Writes what was computed beside the results; gives the names of the files."""
    files: tuple[str, ...] = ()
    for name, result in found.items():
        layout = (args.layout,) if name == "ceiling" else ()
        files = (*files, *result.write(args.outdir, *layout, force=args.force))
    return files


def plain(found: dict[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """The numbers of each, by context and metric, for `--json`."""
    numbers = lambda values: {name: x if math.isfinite(x) else None for name, x in values.items()}
    told = {}
    if "ceiling" in found:
        told["ceiling"] = {context: numbers(values) for context, values in found["ceiling"].values.items()}
    if "anchor" in found:
        told["anchor"] = {context: numbers(found["anchor"].values(context)) for context in found["anchor"].contexts}
    return told


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people: one line a metric that has a value."""
    from ..evaluation import number

    rows = []
    for what, contexts in plain(found).items():
        for context, values in contexts.items():
            rows.append(f"{what}{f' of {context}' if context else ''}:")
            rows += [f"  {name:<44} {number(x)}" for name, x in values.items() if x is not None]
    return rows
