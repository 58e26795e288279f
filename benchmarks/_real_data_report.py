"""The Markdown report of real_data.py: tables, and sentences that its numbers decide."""

from collections.abc import Mapping, Sequence
from typing import Any

from _measure import table


TITLES = {
    "k562": "K562 (CRISPRa, Norman 2019; perturbench devel)",
    "papalexi": "THP-1 (ECCITE-seq, Papalexi 2021; sceptredata, low MOI)",
}
WEAK = ("expr_mse", "delta_pearson", "delta_cosine")
STRONG = ("weighted_mse", "weighted_r2", "pds_l1", "pds_l2", "pds_cosine", "nir")
HARDLY = 0.2  # a median dynamic range fraction below this is "hardly"


def over_null(row: Mapping[str, Any], positive: str, what: str) -> list[float] | None:
    """A value (`drf`, `bds`) of a positive control over the null one with its interval; `None` if there is none."""
    found = row["against"].get(f"{positive} over {row['null']}", {}).get(what)
    return None if found is None or found[0] is None else found


def triple(found: Sequence[float] | None) -> str:
    """A value with its interval."""
    if found is None:
        return "–"
    value, low, high = (round(x, 2) + 0.0 for x in found)  # no -0.00
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def name_of(row: Mapping[str, Any]) -> str:
    """The metric, its weights, and what effects are measured from."""
    name = row["metric"] + (f", weights: {row['weights']}" if row["weights"] else "")
    return name + (", from the mean" if row["reference"] == "mean" else "")


def row_of(row: Mapping[str, Any]) -> list[Any]:
    """A line of a table: the name, values of mean and duplicate, fractions, discrimination, verdict."""
    words = {True: "yes", False: "**no**", None: "not judged"}
    return [
        name_of(row),
        row["null"],
        row["means"].get(row["null"]),
        row["means"].get("duplicate"),
        triple(over_null(row, "duplicate", "drf")),
        triple(over_null(row, "interpolated", "drf")),
        triple(over_null(row, "duplicate", "bds")),
        words[row["separates"]],
    ]


HEADER = ["metric", "null", "null's value", "duplicate's value", "DRF, duplicate", "DRF, interpolated",
          "BDS, duplicate", "separates"]  # fmt: skip


def judged(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool, bool]:
    """Which half of the published finding holds, by the rule that the report states."""
    lines, results = [], []
    for names, expected in ((STRONG, True), (WEAK, False)):
        kept = [row for row in rows if row["metric"] in names and row["reference"] == "control"]
        fine = []
        for row in kept:
            drf = over_null(row, "duplicate", "drf")
            weak = row["separates"] is not True or (drf is not None and drf[0] < HARDLY)
            as_said = row["separates"] is True if expected else weak
            fine.append(as_said)
            said = "as published" if as_said else "**not as published**"
            lines.append(f"- `{row['metric']}` {said}: {row['verdict']}.")
        results.append(all(fine))
    return lines, results[0], results[1]


_WHOLE = {
    (True, True): "Reproduced.",
    (True, False): "Half of it: weighted and rank metrics separate, but MSE or the correlations do too.",
    (False, True): "Half of it: MSE and correlations hardly separate, but not all weighted and rank metrics do.",
    (False, False): "Not reproduced.",
}


def finding(screen: Mapping[str, Any]) -> list[str]:
    """The finding of one screen, in sentences made of its numbers."""
    lines, strong, weak = judged(screen["rows"])
    whole = _WHOLE[strong, weak]
    snr, quartiles = screen["snr"], screen["snr"]["quartiles"]
    values = {row["metric"]: row["means"] for row in screen["rows"] if row["reference"] == "control"}
    reasons = [
        f"Signal to noise of a half against the mean: median {quartiles[2]:.2g}, from {quartiles[0]:.2g} to "
        f"{quartiles[4]:.2g}; above 1 in {snr['above_1']:.0%} of {snr['perturbations']} perturbations. Above 1 a "
        f"replicate has the smaller expected MSE, which the observed MSE bears out in {snr['foretold']:.0%} of them.",
        f"The mean's Pearson correlation of effects from the control is {values['delta_pearson']['loo_mean']:.2f}, "
        f"the duplicate's {values['delta_pearson']['duplicate']:.2f}.",
    ]
    for case in screen["stress"]:
        _, strong, weak = judged(case["rows"])
        median = case["snr"]["quartiles"][2]
        reasons.append(f"The same with {case['case']} (median SNR {median:.2g}): {_WHOLE[strong, weak]}")
    return [f"{whole}", "", *lines, "", *(f"- {reason}" for reason in reasons), ""]


def stress_table(screen: Mapping[str, Any]) -> list[str]:
    """Fractions of a few metrics under stress."""
    rows = []
    for case in screen["stress"]:
        cells = [triple(over_null(row, "duplicate", "drf")) for row in case["rows"]]
        rows.append([case["case"], f"{case['snr']['quartiles'][2]:.2f}", f"{case['snr']['above_1']:.0%}", *cells])
    names = [name_of(row) for row in screen["stress"][0]["rows"]]
    return table(["", "median SNR", "SNR > 1", *names], rows)


def screen_report(screen: Mapping[str, Any]) -> list[str]:
    """The section of one screen."""
    low, middle, high = screen["cells_of_half"]
    systematic = screen["systematic_variation"]
    pairs = [
        [name, f"{systematic[name][0]:.2f} ± {systematic[name][1]:.2f}"]
        for name in ("published", "leave one out", "apart", "published, singles")
        if name in systematic
    ]
    neff = ", ".join(f"{kind}: {value:.3g}" for kind, value in screen["effective_genes"].items())
    return [
        f"## {TITLES[screen['name']]}",
        "",
        f"{screen['perturbations']} perturbations, {screen['genes']} genes, {screen['cells']} cells; {low:.0f} to "
        f"{high:.0f} cells in a half (median {middle:.0f}); {systematic['control_cells']} control cells.",
        *(note for note in screen["notes"]),
        *table(HEADER, [row_of(row) for row in screen["rows"]]),
        "### The published finding",
        "",
        *finding(screen),
        "### Where weights are from",
        "",
        f"Effective number of genes, median: {neff}.",
        *table(HEADER, [row_of(row) for row in screen["weighted"]]),
        f"### The mean of {screen['train_mean']['train']} training perturbations as the null",
        *table(HEADER, [row_of(row) for row in screen["train_mean"]["rows"]]),
        "### With fewer cells, and with genes that respond to nothing",
        "",
        "DRF of the duplicate over the mean.",
        *stress_table(screen),
        "### Systematic variation",
        *table(["", f"mean ± sd over {systematic['perturbations']} perturbations"], pairs),
    ]


ABOUT = """
For each seed the cells of every perturbation, and the control's, are split into halves: the first is the truth, of the
second are made the duplicate (itself), the interpolated duplicate (it where its own cells differ significantly from the
rest, the mean elsewhere) and the null, the mean of the other perturbations (`loo_mean`; where a metric needs a table of
differential expression, or measures effects from that mean, `sparse_mean`, random cells of other perturbations). Values
are averaged over seeds, perturbation by perturbation. DRF: dynamic range fraction, median over perturbations with its
distribution-free 95 % interval. BDS: share of perturbations in which the duplicate is better, with Wilson's interval.
`separates`: whether the interval of the median gain of the duplicate over the null leaves out 0.

Weights: `other half`, of the cells that are not the truth, which are the duplicate's own: genes in which it is off by
chance count more, so that its range is understated. `first half`, of the truth's own cells (Miller's recipe; and with
the target gene left out): the noise of the truth counts more, for the duplicate and the mean alike.

Added genes are copies of the measured ones from other cells of the screen, drawn at random: of the same noise, and
without any effect.

The rule, set before any number was seen: the finding is reproduced if all weighted and rank metrics separate, and MSE,
Pearson and cosine of effects from the control do not, or have a median DRF below 0.2.

The mean of the others has a discrimination below 1/2, since it is made of all candidates but its own; the mean of
training perturbations is exactly at 1/2.

Systematic variation is the cosine of each effect with the mean effect (`published`: of all perturbations, as Systema
has it, 0.50 ± 0.26 on the whole of Norman 2019), with the mean effect of the others (`leave one out`), and the latter
with the control cells divided between the two (`apart`).
"""


def report(results: Mapping[str, Any]) -> str:
    """The Markdown report."""
    where = results["machine"]
    lines = [
        "# Metrics between controls, on two real screens",
        "",
        f"{', '.join(f'{name} {version}' for name, version in results['versions'].items())}; {where['cpu']}; "
        f"{len(results['settings']['seeds'])} divisions into halves.",
        ABOUT,
    ]
    for screen in results["screens"]:
        lines += screen_report(screen)
    return "\n".join(lines)
