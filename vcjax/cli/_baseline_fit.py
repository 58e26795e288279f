"""`vcjax baseline fit`, `table` and `list`: the simple models, fitted, compared and named."""

import argparse
import json
import os
from typing import Any

from .._files import replacing
from ._machine import keep_compiled_programs, limit_threads
from ._progress import progress_bars
from ._values import names


def baseline_fit_command(args: argparse.Namespace) -> int:
    """Fits, predicts, writes; says what was left out and what is not covered."""
    limit_threads(args.num_threads)
    from ..evaluation import fit_baseline
    from ..evaluation._baseline_file import check_output
    from ._run import reading

    keep_compiled_programs()
    inputs = tuple(path for path in (args.train, args.like, *args.external) if path is not None)
    check_output(args.output, force=args.force, inputs=inputs)
    found = fit_baseline(
        args.train,
        baseline=args.baseline,
        predict=_labels(args.perts),
        like=args.like,
        held_out=_labels(args.held_out),
        external=args.external,
        features=args.features,
        options=dict(_option(text) for text in args.option),
        reading=reading(args),
        context=args.context,
        space=args.space,
        emit=args.emit,
        cells=args.cells,
        seed=args.emit_seed,
        dtype=args.dtype,
        device=args.device,
    )
    found.write(args.output, pert_col=args.pert_col or "target_gene", force=args.force)
    if args.json:
        print(json.dumps({**found.provenance, "covered": dict(found.covered), "output": args.output}, default=str))
    elif not args.quiet:
        covered = sum(found.covered.values())
        print(
            f"{found.provenance['baseline']} ({found.provenance['fairness']}), fitted to "
            f"{found.provenance['trained_on']} perturbations: {covered} of {len(found.covered)} are covered."
        )
        for note in found.notes:
            print(f"note: {note}")
        print(f"Wrote {args.output}")
    return 0


def baseline_table_command(args: argparse.Namespace) -> int:
    """Compares, writes if asked to, and prints."""
    limit_threads(args.num_threads)
    from ..evaluation import baseline_table
    from ..evaluation._baseline_file import check_output
    from ._run import reading

    keep_compiled_programs()
    if args.output:
        check_output(args.output, force=args.force, inputs=(args.screen, *args.external))
    options: dict[str, Any] = {"metrics": args.metrics} if args.metrics else {}
    with progress_bars(args) as progress:
        table = baseline_table(
            args.screen,
            baselines=args.baselines,
            external=args.external,
            features=args.features,
            folds=args.folds,
            held_out=_labels(args.held_out) or None,
            reading=reading(args),
            context=args.context,
            space=args.space,
            duplicates=not args.no_duplicates,
            samples=args.samples,
            level=args.level,
            seed=args.fold_seed,
            dtype=args.dtype,
            device=args.device,
            progress=progress,
            **options,
        )
    if args.output:
        with replacing(args.output) as partial:
            partial.write_text(table.to_pandas().to_csv(index=False))
    if args.json:
        print(json.dumps(table.to_dict()))
    elif not args.quiet:
        print(table.summary(), end="")
        if args.output:
            print(f"Wrote {args.output}")
    return 0


def baseline_list_command(args: argparse.Namespace) -> int:
    """Prints every baseline, what it is, needs and may see."""
    from ..baselines import BASELINES, role

    columns = ("name", "role", "fairness", "needs", "what it predicts", "source")
    rows = [
        (name, role(kind), kind.fairness, ", ".join(kind.needs) or "–", kind.summary, kind.source)
        for name, kind in BASELINES.items()
    ]
    if args.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)  # a table in a file or a pipe must not be cut
    console.print(table, markup=False)
    return 0


def _labels(text: str | None) -> list[str]:
    """Labels as `A,B`, or as the lines of a file."""
    if text is None:
        return []
    if not os.path.isfile(text):
        return names(text)
    with open(text, encoding="utf-8-sig") as file:
        return [line.strip() for line in file if line.strip()]


def _option(text: str) -> tuple[str, Any]:
    """`key=value`, the value as JSON if it reads as such and as text otherwise.

    **Raises:** `Refusal` without an equals sign.
    """
    from ..io import Refusal

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Refusal(
            what=f"{text!r} is no option.",
            where="--option",
            why="It would silently not apply.",
            fix="write --option key=value, e.g. --option space=counts.",
        )
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
