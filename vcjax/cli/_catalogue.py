"""`vcjax list` and `vcjax explain`: what can be computed, and what it means."""

import argparse
import json
import textwrap
from typing import Any


def list_command(args: argparse.Namespace) -> int:
    """Prints the metrics of the catalogue, the presets, or the profiles of every preset."""
    columns, rows = {"metrics": _metrics, "presets": _presets, "profiles": _profiles}[args.what]()
    if args.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(x) for x in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a table in a file or a pipe must not be cut
    console.print(table, markup=False)
    return 0


def explain_command(args: argparse.Namespace) -> int:
    """Prints everything the catalogue knows of one metric."""
    from ..evaluation import find_metric, get_preset, PRESETS

    name, metric = find_metric(args.name, get_preset(args.preset) if args.preset else None)
    better = {True: "higher is better", False: "lower is better", None: "a diagnostic, without a good direction"}
    lines = {
        "formula": metric.formula,
        "direction": better[metric.higher_is_better],
        "perfect": metric.perfect,
        "no skill": metric.no_skill,
        "worst": metric.worst,
        "level": "one number for the panel" if metric.level == "panel" else "one number a perturbation",
        "gradient": metric.differentiable,
        "needs": _needs(metric),
        "source": metric.source,
        "cell-eval": metric.v1,
        "cell-eval2": metric.v2,
        "presets": ", ".join(preset.name for preset in PRESETS.values() if _has(preset.metrics, metric)) or None,
        "notes": metric.notes or None,
    }
    print(f"{name}: {metric.summary}")
    for label, value in lines.items():
        print(textwrap.fill(f"  {label:<11} {_cell(value)}", width=110, subsequent_indent=" " * 14))
    return 0


def _needs(metric: Any) -> str:
    needs = ["profiles with sampling noise" if metric.needs_noise else "profiles"]
    if metric.needs_de:
        needs = ["tables of differential expression of both sides"]
    if metric.needs_real_de:
        needs += ["a table of differential expression of the measured side"]
    if metric.needs_weights:
        needs += ["gene weights"]
    return ", ".join(needs)


def _has(rows: Any, metric: Any) -> bool:
    names = {metric.name, metric.v1, metric.v2} - {None}
    return any(names & {row.name, row.v1, row.v2} for row in rows.values())


def _metrics() -> tuple[list[str], list[list[Any]]]:
    from ..metrics import CATALOGUE

    columns = ["name", "better", "perfect", "no skill", "gradient", "cell-eval", "cell-eval2", "what it measures"]
    arrows = {True: "↑", False: "↓", None: "–"}
    rows = [
        [name, arrows[m.higher_is_better], m.perfect, m.no_skill, m.differentiable, m.v1, m.v2, m.summary]
        for name, m in CATALOGUE.items()
    ]
    return columns, rows


def _presets() -> tuple[list[str], list[list[Any]]]:
    from ..evaluation import PRESETS

    columns = ["name", "reproduces", "layout", "metrics", "conventions"]
    return columns, [[p.name, p.source, p.layout, len(p.metrics), p.summary] for p in PRESETS.values()]


def _profiles() -> tuple[list[str], list[list[Any]]]:
    from ..evaluation import PRESETS

    columns = ["preset", "profile", "members", "computed here", "not provided"]
    rows = []
    for preset in PRESETS.values():
        for profile, members in preset.profiles.items():
            absent = [name for name in members if name not in preset.metrics]
            state = ("yes" if not absent else "but for these") if preset.provided(profile) else "no"
            names = ", ".join(absent[:3]) + (", …" if absent[3:] else "")
            rows.append([preset.name, profile, len(members), state, names])
    return columns, rows


def _cell(x: Any) -> str:
    return "–" if x is None or x == "" else str(x)
