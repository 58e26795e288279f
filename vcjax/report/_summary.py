"""The page's first lines: what was compared, what the data can tell, where the model lies, and what went wrong."""

import collections
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..calibration import Calibration
from ..calibration._calibration import PREDICTION
from ..evaluation import Report
from ..evaluation._report import PANEL
from ._content import Content
from ._curve import size_sentence
from ._markup import bullets, element, joined_markup, Markup, section
from ._position import position
from ._words import count, joined, reason


_AMPLITUDE = "amplitude_ratio"


def in_short(content: Content) -> Markup:
    """The verdict in words."""
    items = [*_compared(content), *_able(content), *_places(content), *_sizes(content), *_models(content)]
    return section("short", "In short", bullets([*items, *_failures(content)]))


def _point(head: str, *text: Any) -> Markup:
    return joined_markup([element("strong", f"{head}."), " ", *text])


def _in(context: str) -> str:
    return f"In {context}, " if context else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _compared(content: Content) -> Iterator[Markup]:
    report, comparison = content.report, content.comparison
    if report is not None:
        inputs = report.stamp.get("inputs", {})
        sides = [element("code", inputs.get(side, "unnamed")) for side in ("pred", "real")]
        source = f"{report.preset.source} (preset {report.preset.name})"
        yield _point(
            "What was compared",
            *("The prediction ", sides[0], " with the measurement ", sides[1], ": ", _size_of(report)),
            f". {_capital(count(len(report.metrics), 'metric'))}, as {source} defines them.",
        )
    elif content.calibrations:
        first = next(iter(next(iter(content.calibrations.values())).values()))
        rows = [row for rows in content.calibrations.values() for row in rows.values()]
        perts = max(len(values) for row in rows for values in row.values.values())
        yield _point(
            "What was done",
            f"Predictions of known worth were scored on a measured screen of {count(perts, 'perturbation')}, each "
            f"against cells that it had not seen ({count(first.splits, 'division')} of the cells).",
        )
    elif content.difficulty:
        perts = max(len(values) for columns in content.difficulty.values() for values in columns.values())
        yield _point("What was measured", f"What makes each of {count(perts, 'perturbation')} easy or hard to predict.")
    if comparison is not None:
        a, b = comparison.names
        most = max((row.total for row in comparison.rows), default=0)
        yield _point("Two models", f"{a} and {b} were compared on the same {count(most, 'perturbation')}.")


def _size_of(report: Report) -> str:
    perts = {context: len(report.perturbations(context)) for context in report.contexts}
    told = [count(len(report.perturbations()), "perturbation")]
    cells = _cells(report)
    told += [count(cells[1], "measured cell")] if cells[1] else []
    told += [count(cells[0], "predicted cell")] if cells[0] else []
    genes = report.stamp.get("genes") or next((len(table.genes) for table in report.tables.values()), None)
    told += [count(int(genes), "gene")] if genes else []
    if len(perts) > 1:
        told += [f"in {len(perts)} contexts ({joined([f'{name}: {n}' for name, n in perts.items()], 8)})"]
    return ", ".join(told)


def _cells(report: Report) -> tuple[int, int]:
    """Predicted and measured cells of the perturbations, each counted once."""
    rows = {
        (context, label): (int(pred), int(real))
        for context, label, pred, real in zip(
            report.context, report.perturbation, report.n_pred, report.n_real, strict=True
        )
        if label != PANEL
    }
    return sum(pred for pred, _ in rows.values()), sum(real for _, real in rows.values())


def _able(content: Content) -> Iterator[Markup]:
    for context, rows in content.calibrations.items():
        by = {told: [n for n, c in rows.items() if c.separates is told] for told in (True, False, None)}
        if len(by[None]) == len(rows):
            why = next(iter(rows.values())).verdict
            yield _point("What this data can tell", _capital(f"{_in(context)}no metric could be judged ({why})."))
            continue
        text = f"{len(by[True])} of {count(len(rows), 'metric')} can tell a replicate of the experiment from the mean"
        text += f" of the perturbations on this data{': ' + joined(by[True], 8) if by[True] else ''}."
        if by[False]:
            which = "it" if len(by[False]) == 1 else "one of them"
            text += f" {joined(by[False], 8)} cannot: a good score by {which} does not show that a model knows anything"
            text += " about single perturbations."
        if by[None]:
            text += f" Not judged: {joined(by[None], 8)}."
        yield _point("What this data can tell", _capital(f"{_in(context)}{text}"))


def _places(content: Content) -> Iterator[Markup]:
    for context, rows in content.calibrations.items():
        able = {name: row for name, row in rows.items() if row.separates and PREDICTION in row.values}
        judged = any(row.separates is not None for row in rows.values())
        if not judged or not any(PREDICTION in row.values for row in rows.values()):
            continue
        told = [line for line in (_place(name, row) for name, row in able.items()) if line]
        if not told:
            text = "no metric that can tell has a value for it."
        else:
            text = f"between the control (0) and a replicate (1) the model lies at {joined(told, 5)}."
            text += _against_mean(able)
        yield _point("Where the model lies", _capital(f"{_in(context)}{text}"))


def _place(name: str, row: Calibration) -> str:
    place, (low, high) = position(row, PREDICTION), row.score_interval
    if math.isnan(place):
        return ""
    from_mean = "" if row.negative else ", counted from the mean"
    if row.negative is None or math.isnan(low):
        return f"{place:.2f} by {name}{from_mean}"
    return f"{place:.2f} by {name} ({row.level:.0%} interval {low:.2f} to {high:.2f})"


def _against_mean(rows: Mapping[str, Calibration]) -> str:
    """By how many metrics the model is better than the mean."""
    pairs = [(position(row, PREDICTION), position(row, row.null)) for row in rows.values() if row.null is not None]
    pairs = [(model, mean) for model, mean in pairs if not (math.isnan(model) or math.isnan(mean))]
    if not pairs:
        return ""
    ahead = sum(model > mean for model, mean in pairs)
    return f" It is ahead of the mean of perturbations by {ahead} of the {count(len(pairs), 'metric')} that can tell."


def _sizes(content: Content) -> Iterator[Markup]:
    report = content.report
    told = []
    if report is not None and _AMPLITUDE in report.metrics:
        for context in report.contexts:
            ratio = report.score(_AMPLITUDE, context)
            if not math.isnan(ratio):
                words = "too small" if ratio < 0.8 else "too large" if ratio > 1.25 else "of about the right size"
                told.append(
                    f"{_in(context)}predicted effects are {ratio:.2f} times as large as the measured ones, on average "
                    f"over perturbations: {words}, whether they are the right ones or not (measured ones contain "
                    "noise, so that a perfect model is below 1)."
                )
    told += [f"{label + ': ' if label else ''}{size_sentence(curve)}." for label, curve in content.curves.items()]
    if told:
        yield _point("Size of the effects", " ".join(map(_capital, told)))
    elif report is not None:
        yield _point(
            "Size of the effects",
            f"Not examined: the metric {_AMPLITUDE} and the calibration curve were not asked for.",
        )


def _models(content: Content) -> Iterator[Markup]:
    comparison = content.comparison
    if comparison is None:
        return
    for context in dict.fromkeys(row.context for row in comparison.rows):
        rows = [row for row in comparison.rows if row.context == context]
        won = {name: [row.metric for row in rows if row.verdict == name] for name in comparison.names}
        open_ = sum(row.verdict not in comparison.names and row.verdict != "" for row in rows)
        parts = [
            f"{name} is better by {count(len(metrics), 'metric')}{f' ({joined(metrics, 5)})' if metrics else ''}"
            for name, metrics in won.items()
        ]
        several = len({row.context for row in comparison.rows}) > 1
        text = f"{'; '.join(parts)}; no difference is shown by {open_}."
        yield _point("Which is better", f"{_in(context) if several else ''}{text}")


def _failures(content: Content) -> Iterator[Markup]:
    report = content.report
    if report is None:
        return
    errors = report.stamp.get("errors") or {}
    failed = [f"{name} ({errors[name]})" if name in errors else name for name in report.failed]
    if failed:
        yield _point("What failed", f"{joined(failed, 5)}.")
    undefined = collections.defaultdict(list)
    for metric, context, why, many in undefined_values(report):
        if why != "error":
            undefined[why].append(f"{many} of {metric}{f' in {context}' if context else ''}")
    if undefined:
        told = "; ".join(f"{reason(why)}: {joined(values, 4)}" for why, values in undefined.items())
        yield _point("Values that are undefined", f"{_capital(told)}. They are shown as – and are in no mean.")
    elif not failed:
        yield _point("What failed", "Nothing: every metric has a value for every perturbation.")


def undefined_values(report: Report) -> list[tuple[str, str, str, int]]:
    """Metric, context, status and number of the values that are undefined."""
    rows = np.flatnonzero(np.isnan(report.value))
    found = collections.Counter((report.metric[i], report.context[i], report.status[i]) for i in rows)
    return [(*key, number) for key, number in found.items()]
