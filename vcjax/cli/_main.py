"""From arguments to an exit code: 0 done, 1 something failed while computing, 2 refused before computing."""

import importlib
import os
import re
import sys
from collections.abc import Sequence

from ._baseline_flags import joined
from ._machine import leave_at_once
from ._parser import build_parser


# The module that holds each command, imported only when it runs: `--help` needs none of them.
_COMMANDS = {
    "run": "._run",
    "baseline": "._baseline",
    "baseline fit": "._baseline_fit",
    "baseline table": "._baseline_fit",
    "baseline list": "._baseline_fit",
    "score": "._score",
    "controls": "._controls",
    "calibrate": "._controls",
    "compare": "._compare",
    "validate": "._validate",
    "prep": "._prep",
    "demo": "._demo",
    "list": "._catalogue",
    "explain": "._catalogue",
    "doctor": "._doctor",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    try:
        args = build_parser().parse_args(joined(sys.argv[1:] if argv is None else argv))
    except SystemExit as stop:  # argparse has printed help, the version, or what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    leave_at_once()
    module = importlib.import_module(_COMMANDS[args.command], __package__)
    from ..io import Refusal

    try:
        return getattr(module, re.sub(r"\W", "_", args.command) + "_command")(args)
    except Refusal as refusal:
        print(f"vcjax {args.command}: refused\n{refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vcjax {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`vcjax list | head`); keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
