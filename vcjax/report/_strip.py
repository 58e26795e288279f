"""One metric: the values of every perturbation for each control and for the model."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..calibration import Calibration
from ..calibration._calibration import PREDICTION
from ..evaluation import number
from ._style import COLOURS, drawn, GREY, headline, INK, MARKERS, named_ticks, new_figure, view
from ._words import control_words, direction, reason


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLACE = {"negative": 0, "null": 1, "model": 2, "positive": 3}


@drawn
def controls_strip(calibration: Calibration, *, title: str | None = None, width: float = 8.0) -> "Figure":
    """A row for each control and the model, from those that know nothing up to replicates; a dot a perturbation.

    The bar is the mean, with its number at the right. Dashed lines are the perfect value and that without skill, where
    the metric has them. Values far outside of most others are drawn as open marks at the edge, with their number, so
    that they do not press the rest together.

    **Arguments:**

    - `title`: in the place of the verdict. `width`: in inches.

    **Raises:** `ValueError` for a calibration without controls; `vcjax.io.Refusal` without matplotlib.
    """
    names = _ordered(calibration)
    if not names:
        raise ValueError("The calibration has no control and no prediction.")
    figure = new_figure(width, 1.75 + 0.46 * len(names))
    axes = figure.add_subplot()
    low, high = _limits(np.concatenate([calibration.values[name] for name in names]), _anchors(calibration))
    axes.set_xlim(*view(low, high))
    axes.set_ylim(-0.6, len(names) - 0.4)
    for y, name in enumerate(names):
        role = calibration.roles.get(name, "model")
        _row(axes, y, calibration.values[name], calibration.status[name], role, low, high)
    named_ticks(axes, "y", range(len(names)), [control_words(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    top = len(names) - 0.42
    for value, told in _anchors(calibration):
        axes.axvline(value, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.text(value, top, told, ha="center", va="bottom", fontsize=8, color=GREY)
    panel = calibration.metric.level == "panel"
    told = "one number for all perturbations" if panel else "a dot is a perturbation, the bar their mean"
    axes.set_xlabel(f"{calibration.metric.name}  ({direction(calibration.metric)}; {told})")
    first, _, rest = calibration.verdict.partition(" (")
    joint = " " if first.startswith(("separates", "prefers", "cannot separate")) else ": "
    detail = "" if title else rest.removesuffix(")")
    pad = 22.0 if _anchors(calibration) else 8.0
    headline(figure, title or f"{calibration.metric.name}{joint}{first}", detail, pad=pad, share=0.55)
    return figure


def _ordered(calibration: Calibration) -> list[str]:
    """From the bottom: what knows nothing, means, the model, replicates."""
    names = [name for name in (*calibration.roles, PREDICTION) if name in calibration.values]
    return sorted(names, key=lambda name: _PLACE[calibration.roles.get(name, "model")])


def _anchors(calibration: Calibration) -> list[tuple[float, str]]:
    metric = calibration.metric
    known = ((calibration.perfect, "perfect"), (metric.no_skill, "no skill"))
    return [(value, told) for value, told in known if value is not None]


def _limits(values: Float[np.ndarray, " n"], anchors: list[tuple[float, str]]) -> tuple[float, float]:
    """The range of the values and the anchors, without values far outside of most others."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    near, far = np.quantile(values, (0.03, 0.97))
    room = 1.5 * (far - near)
    if room > 0:
        low, high = max(low, float(near - room)), min(high, float(far + room))
    ends = [value for value, _ in anchors if low - 2 * (high - low) <= value <= high + 2 * (high - low)]
    return min([low, *ends]), max([high, *ends])


def _row(
    axes: "Axes", y: int, values: Float[np.ndarray, " n"], status: str, role: str, low: float, high: float
) -> None:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        middle = (low + high) / 2
        axes.text(middle, y, f"– {reason(status)}", ha="center", va="center", fontsize=8.5, color=GREY)
        return
    style = {"color": COLOURS[role], "marker": MARKERS[role], "linestyle": "none", "clip_on": False}
    # Spread by place in the order of values, so that equal ones lie side by side and the figure is always the same.
    order = np.argsort(np.argsort(known, kind="stable"), kind="stable")
    height = y + 0.5 * ((order * 0.618034) % 1 - 0.5) if len(known) > 1 else np.full(1, float(y))
    inside = (known >= low) & (known <= high)
    size = 3.2 if len(known) > 100 else 4.4
    alpha = 0.55 if len(known) > 100 else 0.75
    axes.plot(known[inside], height[inside], markersize=size, alpha=alpha, markeredgewidth=0, **style)
    if not inside.all():  # a line of no point would stand at the figure's corner and take room
        edge = np.clip(known[~inside], low, high)
        axes.plot(edge, height[~inside], markersize=size + 1, markerfacecolor="white", alpha=0.9, **style)
    mean = float(known.mean())
    if low <= mean <= high:
        axes.plot([mean, mean], [y - 0.33, y + 0.33], color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4)
    lost, missing = int(np.sum(~inside)), len(values) - len(known)
    lines = [number(mean) if len(known) == 1 else f"mean {number(mean)}"]
    lines += [f"{lost} at the edge: {number(float(known.min()))} to {number(float(known.max()))}"] if lost else []
    lines += [f"{missing} without a value"] if missing else []
    axes.annotate(
        "\n".join(lines),
        (1.01, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=INK,
    )
