"""`--html`: what was computed as one page."""

import argparse
import os
from typing import Any


def check_page(args: argparse.Namespace) -> None:
    """Refuses, before anything is computed, a page that could not be drawn or would replace a file."""
    if args.html is None:
        return
    from ..io import Refusal
    from ..report import require_matplotlib

    require_matplotlib()
    if os.path.exists(args.html) and not args.force:
        raise Refusal(
            what="The page exists.",
            where=args.html,
            why="It would be replaced.",
            fix="Name another file, or allow it: --force.",
        )


def write_page(args: argparse.Namespace, *, report: Any = None, calibration: Any = None) -> None:
    """Writes the page if one was asked for."""
    if args.html is None:
        return
    from ..report import write_html

    write_html(args.html, report=report, calibrations=calibration, force=args.force)
    if not (args.quiet or args.json):
        print(f"Wrote {args.html}")
