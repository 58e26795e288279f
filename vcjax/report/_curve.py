"""Are predicted effects of the right size? Measured against predicted ones, and the slope of every perturbation."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from ..calibration import EffectCurve
from ._style import COLOURS, drawn, FAINT, GREY, headline, INK, new_figure, short, view


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@drawn
def calibration_curve(
    curve: EffectCurve,
    *,
    labels: Sequence[str] | None = None,
    unit: str = "log-normalised expression",
    title: str | None = None,
    width: float = 8.5,
) -> "Figure":
    """Left, mean measured effect of each bin of predicted effects, with its interval; right, every slope.

    The dashed line is where predicted and measured effects are the same; the solid one is the fit. At the right the
    slopes of the single perturbations in ascending order, with names at both ends.

    **Arguments:**

    - `labels`: names of the perturbations, in the order of the curve's `slopes`.
    - `unit`: of the effects. `title`: in the place of the sentence that says what the slope means; `width`: in inches.

    **Raises:** `ValueError` for labels of another number than the slopes; `vcjax.io.Refusal` without matplotlib.
    """
    if labels is not None and len(labels) != len(curve.slopes):
        raise ValueError(f"There are {len(labels)} labels and {len(curve.slopes)} perturbations.")
    figure = new_figure(width, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(2.1, 1))
    _bins(left, curve)
    left.set_xlabel(f"predicted effect ({unit})")
    left.set_ylabel("measured effect (mean of a bin)")
    _slopes(right, curve, labels)
    headline(figure, title or size_sentence(curve))
    return figure


def size_sentence(curve: EffectCurve) -> str:
    """What the slope says about the size of the predicted effects."""
    slope, (low, high) = curve.slope, curve.slope_interval
    if math.isnan(slope):
        return "Nothing can be said about the size of the predicted effects: they are the same everywhere"
    told = f"where the model predicts an effect of 1, {slope:.2f} is measured on average"
    if math.isnan(low):
        return f"Of one perturbation no more can be said than that {told}"
    told = f"{told} ({curve.level:.0%} interval {low:.2f} to {high:.2f})"
    if low <= 0 <= high:
        return f"Predicted effects say nothing about the measured ones: {told}"
    if high < 0:
        return f"Predicted effects go the wrong way: {told}"
    if low <= 1 <= high:
        near = low > 2 / 3 and high < 1.5
        return f"Predicted effects {'have the right size' if near else 'may or may not have the right size'}: {told}"
    return f"Predicted effects are too {'large' if slope < 1 else 'small'}: {told}"


def _bins(axes: "Axes", curve: EffectCurve) -> None:
    if len(curve.predicted) == 0:
        axes.text(0.5, 0.5, "no effect to compare", transform=axes.transAxes, ha="center", color=GREY)
        return
    half = NormalDist().inv_cdf(0.5 + curve.level / 2) * np.where(np.isnan(curve.error), 0, curve.error)
    x = view(float(curve.predicted.min()), float(curve.predicted.max()))
    y = view(float((curve.measured - half).min()), float((curve.measured + half).max()))
    ratio = (x[1] - x[0]) / (y[1] - y[0])
    if 0.25 < ratio < 4:
        x = y = (min(x[0], y[0]), max(x[1], y[1]))
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.axhline(0, color=FAINT, linewidth=0.7, zorder=0)
    axes.axvline(0, color=FAINT, linewidth=0.7, zorder=0)
    axes.axline((0, 0), slope=1, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, label="the right size: slope 1")
    if not math.isnan(curve.slope):
        told = f"fit: slope {curve.slope:.2f}"
        axes.axline((0, curve.intercept), slope=curve.slope, color=COLOURS["model"], linewidth=1.3, label=told)
    axes.errorbar(
        *(curve.predicted, curve.measured, np.where(np.isnan(curve.error), np.nan, half)),
        fmt="D",
        markersize=4.2,
        color=COLOURS["model"],
        ecolor=INK,
        elinewidth=1.0,
        capsize=2.0,
        label=f"bin of about {_rounded(float(np.median(curve.count)))} entries, {curve.level:.0%} interval",
    )
    axes.legend(loc="best", frameon=False, fontsize=8.5)


def _rounded(count: float) -> str:
    digits = max(len(str(int(count))) - 2, 0)
    return f"{round(count, -digits):,.0f}"


def _slopes(axes: "Axes", curve: EffectCurve, labels: Sequence[str] | None) -> None:
    known = np.flatnonzero(np.isfinite(curve.slopes))
    order = known[np.argsort(curve.slopes[known], kind="stable")]
    slopes, places = curve.slopes[order], np.arange(len(order))
    axes.set_xlabel("slope of each perturbation")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if len(order) == 0:
        axes.text(0.5, 0.5, "no perturbation has a slope", transform=axes.transAxes, ha="center", color=GREY)
        return
    middle = float(np.median(slopes))
    reach = max(2.0, 4 * abs(middle), 6 * float(np.median(np.abs(slopes - middle))))
    low, high = max(float(slopes[0]), middle - reach), min(float(slopes[-1]), middle + reach)
    axes.set_xlim(*view(min(low, 0.0), max(high, 1.0), margin=0.1))
    axes.set_ylim(-0.08 * len(order) - 0.6, 1.08 * len(order) - 0.4)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.axvline(1, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=0)
    inside = (slopes >= low) & (slopes <= high)
    style = {"color": COLOURS["model"], "marker": "D", "linestyle": "none", "clip_on": False}
    size = 4.0 if len(order) <= 60 else 2.6
    axes.plot(slopes[inside], places[inside], markersize=size, **style)
    if not inside.all():  # a line of no point would stand at the figure's corner and take room
        edge = np.clip(slopes[~inside], low, high)
        axes.plot(edge, places[~inside], markersize=size, markerfacecolor="white", **style)
    if labels is not None:
        for place in sorted({0, len(order) - 1}):
            told, at = short(str(labels[order[place]]), 18), float(np.clip(slopes[place], low, high))
            side = -1 if place == 0 else 1
            axes.annotate(
                *(told, (at, place)),
                xytext=(4 * side, 6 * side),
                textcoords="offset points",
                ha="left" if side < 0 else "right",
                va="top" if side < 0 else "bottom",
                fontsize=8,
            )
    gone = len(curve.slopes) - len(order)
    if gone or not inside.all():
        edge = f"{int(np.sum(~inside))} beyond the edge (open)" if not inside.all() else ""
        axes.set_title(
            "; ".join(filter(None, (edge, f"{gone} without a slope" if gone else ""))), fontsize=8, color=GREY
        )
