"""`vcjax prep` and the challenge's half of `vcjax validate`: would this prediction be accepted, and packed how."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

from ._machine import limit_threads
from ._progress import progress_bars


def prep_command(args: argparse.Namespace) -> int:
    """Checks the prediction against the rules, packs it, and prints what was written."""
    limit_threads(args.num_threads)
    from ..io import prepare_submission, read_gene_list, read_pert_counts

    path = args.output or str(pathlib.Path(args.input).with_suffix(".prep.vcc"))
    genes = read_gene_list(args.genes)
    with progress_bars(args) as progress:
        prepared = prepare_submission(
            *(args.input, path, genes),
            rules=_rules(args, len(genes)),
            perts=None if args.perts is None else read_pert_counts(args.perts),
            **_columns(args),
            output_pert_col=args.output_pert_col,
            output_context_col=args.output_context_col,
            encoding=args.encoding,
            keep_counts=args.allow_discrete,
            force=args.force,
            threads=args.num_threads or -1,
            progress=progress,
        )
    found = dataclasses.asdict(prepared)
    _print(found, args)
    if not (args.json or args.quiet):
        print(f"Wrote {prepared.path}")
    return 0


def validate_submission(args: argparse.Namespace, genes: str | None) -> int:
    """One screen against the rules of the challenge that `--preset` names; prints what it is, writes nothing."""
    from ..io import check_submission, read_gene_list, read_pert_counts

    rules = _rules(args, None)
    found = check_submission(
        args.path,
        rules,
        genes=None if genes is None else read_gene_list(genes),
        perts=None if args.perts is None else read_pert_counts(args.perts),
        **_columns(args),
    )
    facts = {
        "screen": str(args.path),
        "cells": found.matrix.shape[0],
        "genes": len(found.genes),
        "perturbations": len(found.labels.perts),
        "contexts": list(found.labels.contexts),
        "stored_values": found.entries,
        "scale": found.values.scale,
        "checked": [name for name, given in (("genes", genes), ("perts", args.perts)) if given is not None],
        "notes": [*_unchecked(genes, args.perts), *found.notes, rules.disclaimer],
    }
    _print(facts, args)
    if not (args.json or args.quiet):
        print("No fault was found.")
    return 0


def _unchecked(genes: str | None, perts: str | None) -> list[str]:
    notes = []
    if genes is None:
        notes.append("Warning: the names of the genes were not checked: --genes gene_names.csv")
    if perts is None:
        notes.append("Warning: the names of the perturbations were not checked: --perts pert_counts.csv")
    return notes


def _columns(args: argparse.Namespace) -> dict[str, Any]:
    names = ("pert_col", "context_col", "control", "gene_col", "layer", "max_memory")
    return {name: getattr(args, name, None) for name in names}


def _rules(args: argparse.Namespace, genes: int | None) -> Any:
    from ..evaluation import get_preset
    from ..io import CHALLENGES, Refusal

    name = get_preset(args.preset).name
    if name not in CHALLENGES:
        raise Refusal(
            what=f"Preset {name!r} has no rules for submissions.",
            where="--preset",
            why="What is checked depends on who receives the file.",
            fix=f"Use one of: {', '.join(CHALLENGES)}.",
        )
    rules = CHALLENGES[name]
    dim, cells = getattr(args, "expected_gene_dim", None), getattr(args, "max_cell_dim", None)
    if dim is None and name != "vcc2026":
        dim = genes  # cell-eval takes the list at its word
    rules = rules if dim is None else dataclasses.replace(rules, genes=None if dim == -1 else dim)
    return rules if cells is None else dataclasses.replace(rules, max_cells=None if cells == -1 else cells)


def _print(found: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(found))
    elif not args.quiet:
        for name, value in found.items():
            if name != "notes":
                text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
                print(f"  {name.replace('_', ' '):<14} {text}")
        for note in found["notes"]:
            print(f"note: {note}")
