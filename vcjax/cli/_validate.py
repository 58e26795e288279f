"""`vcjax validate`: would these files be scored?"""

import argparse
import json
import sys
from typing import Any

from ._prep import validate_submission


def validate_command(args: argparse.Namespace) -> int:
    """Checks one screen, alone or against a challenge, or a pair as `run` would; prints what it found."""
    pred, real = args.adata_pred, args.adata_real
    if real is not None and pred is None:
        pred = args.path
    if (pred is None) != (real is None) or (pred is None and args.path is None):
        print("vcjax validate: name one screen, or a pair: -ap PRED -ar REAL", file=sys.stderr)
        return 2
    genes = None if args.genes in ("match", "intersect", "strict") else args.genes
    if genes is not None or args.perts is not None or args.preset == "vcc2026":
        if pred is None:
            return validate_submission(args, genes)
        if genes is not None or args.perts is not None:
            print("vcjax validate: --genes FILE and --perts are of one screen: vcjax validate PATH", file=sys.stderr)
            return 2
    found = _screen(args) if pred is None or real is None else _pair(args, pred, real)
    if args.json:
        print(json.dumps(found))
    elif not args.quiet:
        for name, value in found.items():
            if name != "notes":
                text = ", ".join(str(item) for item in value) if isinstance(value, list) else value
                print(f"  {name.replace('_', ' '):<17} {text}")
        for note in found["notes"]:
            print(f"note: {note}")
        print("No fault was found.")
    return 0


def _pair(args: argparse.Namespace, pred: str, real: str) -> dict[str, Any]:
    from ..evaluation import prepare
    from ._run import reading

    description = prepare(pred, real, reading(args), preset=args.preset, profile=args.profile).describe()
    return {**description, "inputs": [f"{side} {path}" for side, path in description["inputs"].items()]}


def _screen(args: argparse.Namespace) -> dict[str, Any]:
    from ..evaluation import read_path
    from ._run import reading

    kind = args.input_type or args.input_type_real or args.input_type_pred or "auto"
    screen = read_path(args.path, reading(args), kind, require_control=False)
    return {
        "screen": screen.name,
        "cells": int(screen.matrix.shape[0]),
        "genes": len(screen.genes),
        "perturbations": len(screen.perts),
        "control_cells": int((screen.codes == -1).sum()),
        "contexts": list(screen.contexts),
        "scale": screen.scale,
        "notes": [note for note in (screen.scale_verdict, *screen.notes) if note],
    }
