"""`--html`: what was computed as one page."""

import argparse
from typing import Any


def check_page(args: argparse.Namespace) -> None:
    """Refuses, before anything is computed, a page that could not be drawn or would replace a file."""
    if args.html is None:
        return
    from ..report import check_page as check

    inputs = {"pred": args.adata_pred, "real": args.adata_real}
    check(args.html, {side: path for side, path in inputs.items() if path is not None}, force=args.force)


def write_page(args: argparse.Namespace, *, report: Any = None, calibration: Any = None) -> None:
    """Writes the page if one was asked for."""
    if args.html is None:
        return
    from ..report import write_html

    write_html(args.html, report=report, calibrations=calibration, force=args.force)
    if not (args.quiet or args.json):
        print(f"Wrote {args.html}")
