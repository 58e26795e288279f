"""All metrics at a glance: where the model lies between control and replicate, and which metrics can tell."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..calibration import Calibration
from ..calibration._calibration import PREDICTION
from ..evaluation import number
from ._position import has_model, ordered, position
from ._style import drawn, FAINT, GREY, headline, INK, named_ticks, new_figure
from ._words import ARROWS, count, judgement


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROLES = {"negative": "control", "null": "mean", "model": "model", "positive": "replicate"}
_ENDS = {"negative": " = 0", "positive": " = 1"}
_WORST, _NOTHING, _BEST = "#c4601a", "#f7f7f7", "#2c6aa8"


@drawn
def controls_heatmap(
    calibrations: Mapping[str, Calibration], *, title: str | None = None, width: float = 9.0
) -> "Figure":
    """Rows are metrics, columns the control, the mean, the model and the replicate.

    Every cell has the position between control (0) and replicate (1), which is not cut, and in grey the metric's own
    mean value. The colour is that of the position, cut to [-1, 1]: orange below the control, blue towards the
    replicate. A metric that cannot tell a replicate from the mean is hatched and has no colours. A dash, with the
    reason, stands where there is no value. A metric that has no value for the control is marked †: its 0 is the mean.

    **Arguments:**

    - `calibrations`: by name; those that can tell come first, otherwise in the given order.
    - `title`: in the place of the sentence that says what one sees. `width`: in inches.

    **Raises:** `ValueError` without a calibration; `vcjax.io.Refusal` without matplotlib.
    """
    if not calibrations:
        raise ValueError("At least one calibration is needed, got none.")
    rows = ordered(calibrations)
    roles = [role for role in _ROLES if role != "model" or has_model(calibrations)]
    figure = new_figure(width, 1.55 + 0.29 * len(rows))
    axes = figure.add_subplot()
    axes.set_xlim(-0.5, len(roles) + 0.3)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for y, (_, calibration) in enumerate(rows):
        for x, role in enumerate(roles):
            _cell(axes, x, y, calibration, role)
        told = judgement(calibration)
        axes.text(len(roles) - 0.42, y, told, va="center", fontsize=8.5, color=INK if calibration.separates else GREY)
    marks = ["" if calibration.negative else " †" for _, calibration in rows]
    names = [
        f"{name} {ARROWS[row.metric.higher_is_better]}{mark}" for (name, row), mark in zip(rows, marks, strict=True)
    ]
    named_ticks(axes, "y", range(len(rows)), names, fontsize=8.5)
    heads = [_ROLES[role] + _ENDS.get(role, "") for role in roles]
    axes.xaxis.tick_top()
    named_ticks(axes, "x", range(len(roles) + 1), [*heads, "can it tell?"], fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    notes = ["bold: position between control and replicate; grey: the metric's own value; ↑ higher, ↓ lower is better"]
    notes += ["can it tell: does it put a replicate above the mean?"]
    notes += ["† no value for the control: 0 is the mean"] if any(marks) else []
    axes.set_xlabel("\n".join(notes), loc="left", fontsize=8, color=GREY)
    axes.xaxis.set_label_position("bottom")
    headline(figure, title or _sentence(rows))
    return figure


def _cell(axes: "Axes", x: int, y: int, calibration: Calibration, role: str) -> None:
    from matplotlib.patches import Rectangle

    name = _name(calibration, role)
    value = math.nan if name is None else calibration.mean(name)
    place = math.nan if name is None else position(calibration, name)
    coloured = calibration.separates and not math.isnan(place)
    face = _colour(place) if coloured else (1.0, 1.0, 1.0)
    hatch = "////" if calibration.separates is False else None
    axes.add_patch(
        Rectangle((x - 0.49, y - 0.46), 0.98, 0.92, facecolor=face, edgecolor=FAINT, hatch=hatch, linewidth=0.0)
    )
    dark = coloured and np.dot(face, (0.299, 0.587, 0.114)) < 0.6
    style = {"va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if hatch else None}
    if math.isnan(value):
        axes.text(x, y, f"– {_why(calibration, role)}", ha="center", fontsize=6.5, color=GREY, **style)
        return
    raw = "#f0f0f0" if dark else "#3c3c3c" if coloured else GREY
    if math.isnan(place):
        axes.text(x, y, number(value), ha="center", fontsize=8, color=raw, **style)
        return
    bold = "white" if dark else INK if coloured else GREY
    axes.text(x - 0.06, y, _place_text(place), ha="right", fontsize=9, fontweight="bold", color=bold, **style)
    axes.text(x + 0.02, y, number(value), ha="left", fontsize=7.5, color=raw, **style)


def _place_text(place: float) -> str:
    """Two digits; none of a number that a scale of nearly no length has made large; no minus before zero."""
    return f"{round(place, 2) + 0.0:.2f}" if abs(place) < 10 else f"{place:,.0f}"


def _name(calibration: Calibration, role: str) -> str | None:
    if role == "model":
        return PREDICTION if PREDICTION in calibration.values else None
    return {"negative": calibration.negative, "null": calibration.null, "positive": calibration.positive}[role]


def _why(calibration: Calibration, role: str) -> str:
    """Why a role has no value: what is wrong with the first control that could have had it."""
    names = [PREDICTION] if role == "model" else [name for name, each in calibration.roles.items() if each == role]
    found = [calibration.status[name] for name in names if name in calibration.status]
    return found[0].replace("_", " ") if found and found[0] != "ok" else "none given"


def _colour(place: float) -> tuple[float, float, float]:
    """White at 0, blue at 1 and beyond, orange at -1 and below."""
    to_rgb = lambda text: np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    share = min(max(place, -1.0), 1.0)
    end = to_rgb(_BEST if share > 0 else _WORST)
    mixed = to_rgb(_NOTHING) + abs(share) * (end - to_rgb(_NOTHING))
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _sentence(rows: list[tuple[str, Calibration]]) -> str:
    able = [row for row in rows if row[1].separates]
    first = f"{len(able)} of {count(len(rows), 'metric')} can tell a replicate from the mean on this data"
    places = [position(row, PREDICTION) for _, row in able]
    places = sorted(place for place in places if not math.isnan(place))
    if not places:
        return first
    if len(places) == 1:
        return f"{first}; by that one the model lies at {places[0]:.2f} between control (0) and replicate (1)"
    middle = float(np.median(places))
    return (
        f"{first}; by these the model lies at {middle:.2f} (median; {places[0]:.2f} to {places[-1]:.2f}) between "
        "control (0) and replicate (1)"
    )
