"""The Markdown reports of both benchmarks, and whether they meet their targets."""

from collections.abc import Mapping, Sequence
from typing import Any

from _measure import MIB, preamble, table, target, target_rows


_ABOUT_DISTANCES = """
Seconds: `wall` is the least of all rounds; `CPU` the median over rounds of the time of all cores together. Ratios are
to the row marked 1: above 1 is slower. `(from n rows)` is an extrapolation, linear in the number of predictions; all
candidates take part. All inputs are float64 but where float32 is named. vcjax, scipy and scikit-learn are timed in one
process, the peers each in their own, around the call alone; compilation is not included. vcjax's score is timed with
the conventions of cell-eval2 (targets of the whole panel left out, ties one half). The L1 of scikit-learn is scipy's
`cdist`, and so is that inside both peers' scores (cell-eval2 0.20.0 hands it matrices in column order, which makes it
several times slower).
"""
_ABOUT_MEMORY = """
From `compiled.memory_analysis()`: temporaries, without inputs and results. `beyond` is what exceeds the number of P × P
matrices given: for distances, as they are summed and as they are returned; for a score, also the gaps and the sorted
gaps of its temperature; for a gradient also two derivatives of those. A score of profiles makes effects a block of
genes at a time, in its derivative too.
"""
_ABOUT_RUNS = """
Every run is a fresh process, start-up included, and reads both h5ad files. `wall` is the least of all rounds, `CPU` the
median of the time of all cores together, `peak` the largest resident memory of any round. Ratios are to vcjax with a
warm compilation cache: above 1 is more. `cold` starts with an empty cache each time. cell-eval computes differential
expression, and writes it down, whatever its profile; `DE tables given` hands it the tables of an earlier run instead,
which leaves that out.
The files were written just before, and are read from the page cache.
"""


def distances_report(results: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The report of `distances.py`, and its targets."""
    targets = _distance_targets(results)
    lines = preamble("Distances and discrimination scores", results)
    lines += ["", "## Targets", *target_rows(targets), "## Times", _ABOUT_DISTANCES]
    for case in results["cases"]:
        title = f"{case['kind']}, {case['distance']}"
        lines += [f"### {title}: P = {case['perts']}, G = {case['genes']} ({case['rounds']} rounds)"]
        rows = [
            [name, run["wall_s"], run["cpu_s"], run["wall_ratio"], run["cpu_ratio"]]
            for name, run in case["results"].items()
        ]
        lines += table(["", "wall s", "CPU s", "wall ratio", "CPU ratio"], rows)
        agreement = [f"{name} {apart:.1e}" for name, apart in case.get("agreement", {}).items()]
        lines += [f"Largest difference of values: {', '.join(agreement)}.", ""] if agreement else []
    rows = [
        [row["program"], row["distance"], row["dtype"], row["perts"], row["temp_bytes"] / MIB]
        + [row["squares_allowed"], row["beyond_bytes"] / MIB, row["beyond_bytes"] / row["matrix_bytes"]]
        for row in results["memory"]
    ]
    lines += ["## Memory", _ABOUT_MEMORY]
    header = ["program", "distance", "dtype", "P", "temporary MiB", "P × P allowed", "beyond MiB", "beyond / (P × G)"]
    return "\n".join([*lines, *table(header, rows)]), targets


def _distance_targets(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []

    def add(what: str, kind: str, distance: str, above: str, below: str, limit: float, **options: bool) -> None:
        """The ratio of two wall times at P = 1000, or at the largest smaller P that has both."""
        alike = [case for case in results["cases"] if (case["kind"], case["distance"]) == (kind, distance)]
        alike = [case for case in alike if {above, below} <= case["results"].keys() and case["perts"] <= 1000]
        case = max(alike, key=lambda case: case["perts"], default=None)
        value = case and case["results"][above]["wall_s"] / case["results"][below]["wall_s"]
        found.append(target(what + (f", P = {case['perts']}" if case else ""), value, limit, **options))

    add("L1, float64: scipy / vcjax", "distance", "l1", "scipy cdist", "vcjax float64", 3, at_least=True)
    for distance in ("l2", "cosine"):
        for dtype, suffix in (("float64", ""), ("float32", " float32")):
            names = f"vcjax {dtype}", f"scikit-learn{suffix}"
            add(f"{distance}, {dtype}: vcjax / scikit-learn", "distance", distance, *names, 1)
    for distance in ("l1", "l2", "cosine"):
        for dtype in ("float64", "float32"):
            names = "value and gradient", "forward"
            add(f"soft PDS {distance}, {dtype}: gradient / forward", f"soft {dtype}", distance, *names, 4)
    for program in dict.fromkeys(row["program"] for row in results["memory"]):
        beyond = max(row["beyond_bytes"] for row in results["memory"] if row["program"] == program)
        found.append(target(f"{program}: temporary MiB beyond inputs and P × P, worst case", beyond / MIB, 64))
    return found


def end_to_end_report(results: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The report of `end_to_end.py`, and its targets."""
    targets = []
    lines: list[str] = []
    for name, case in results["cases"].items():
        runs, size = case["results"], case["size"]
        unit, peer = runs["vcjax, warm"], runs[case["peer"]]
        for what in ("wall_s", "cpu_s") if case["faster"] else ():
            text = f"{name}: {what.split('_')[0]}, {case['peer']} / vcjax, warm"
            targets.append(target(text, peer[what] / unit[what], case["faster"], at_least=True))
        for ours in ("vcjax, warm", "vcjax, cold"):
            text = f"{name}: peak, {ours} / {case['peer']}"
            targets.append(target(text, runs[ours]["peak_mib"] / peer["peak_mib"], 0.5))
        rows = [
            [label, run["wall_s"], run["cpu_s"], run["peak_mib"]]
            + [run[key] / unit[key] for key in ("wall_s", "cpu_s", "peak_mib")]
            for label, run in runs.items()
        ]
        header = ["", "wall s", "CPU s", "peak MiB", "wall ratio", "CPU ratio", "peak ratio"]
        lines += [f"## {name} ({case['rounds']} rounds)", ""]
        lines += [f"{size['perts']} perturbations × {size['cells']} cells and {size['control_cells']} controls × "]
        lines[-1] += f"{size['genes']} genes of counts a side, {case['zeros']:.0%} zeros, uncompressed h5ad."
        lines += table(header, rows)
        lines += [f"Values of every perturbation, and their mean, against {case['peer']}:"]
        lines += _agreement_rows(case["agreement"])
    head = preamble("Whole runs from files", results)
    return "\n".join([*head, _ABOUT_RUNS, "## Targets", *target_rows(targets), *lines]), targets


def _agreement_rows(agreement: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    rows = [
        [name, found["compared"], f"{found['largest_relative']:.1e}", found["undefined_on_one_side"]]
        for name, found in agreement.items()
    ]
    return table(["metric", "compared", "largest relative difference", "undefined on one side only"], rows)
