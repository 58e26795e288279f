"""`vcjax compare`: whether one of two runs is better, by how much, and how sure that is."""

import argparse
import json
import os
import pathlib

from .._files import replacing
from ._machine import keep_compiled_programs


def compare_command(args: argparse.Namespace) -> int:
    """Compares, writes if asked to, and prints."""
    from ..evaluation import compare

    keep_compiled_programs()
    found = compare(
        *(args.run_a, args.run_b),
        samples=args.samples,
        seed=args.seed,
        level=args.level,
        method=args.method,
        permutations=args.permutations,
        correction=args.correction,
        undefined=args.undefined,
        names=tuple(args.names) if args.names else _names(args.run_a, args.run_b),
    )
    if args.output:
        with replacing(args.output) as partial:
            partial.write_text(found.to_pandas().to_csv(index=False))
    if args.json:
        print(json.dumps(found.to_dict()))
    elif not args.quiet:
        print(found.summary(), end="")
        if args.output:
            print(f"Wrote {args.output}")
    return 0


def _names(a: str, b: str) -> tuple[str, str]:
    """The names of both folders, or A and B where these are equal."""
    names = tuple(pathlib.Path(os.path.abspath(path)).name for path in (a, b))
    return ("A", "B") if names[0] == names[1] else (names[0], names[1])
