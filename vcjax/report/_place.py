"""Names beside points, where they cover neither points nor each other."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ._style import GREY, INK, short


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Box = tuple[float, float, float, float]
_LINE = 11.5  # points between names over each other
_PLACES = [(dx, _LINE * k) for k in range(-7, 8) for dx in (-42.0, -18.0, -7.0, 7.0, 18.0, 42.0)]
_PLACES += [(0.0, _LINE * k) for k in (-2, -1, 1, 2)]


def label_points(
    figure: "Figure",
    axes: "Axes",
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    chosen: Int[np.ndarray, " k"],
    labels: Sequence[str],
    *,
    size: float = 8.0,
) -> None:
    """Writes the names of the `chosen` points, each at the best of some places around it; limits must be set."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y])) / scale
    frame = axes.get_window_extent()
    inside = (frame.x0 / scale, frame.y0 / scale, frame.x1 / scale, frame.y1 / scale)
    taken: list[_Box] = []
    for place in chosen:
        text = short(str(labels[place]))
        boxes = [_box(points[place], offset, 0.72 * size * len(text), 1.3 * size) for offset in _PLACES]
        costs = [_cost(box, points, taken, inside) for box in boxes]
        best = min(range(len(boxes)), key=lambda i: costs[i] + 0.03 * math.hypot(*_PLACES[i]))
        taken.append(boxes[best])
        dx, dy = _PLACES[best]
        axes.annotate(
            *(text, (x[place], y[place])),
            xytext=(dx, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            va="center",
            fontsize=size,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 2}
            if abs(dy) + abs(dx) > 12
            else None,
        )


def _box(point: np.ndarray, offset: tuple[float, float], width: float, height: float) -> _Box:
    dx, dy = offset
    left = point[0] + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
    low = point[1] + dy - height / 2
    return float(left), float(low), float(left + width), float(low + height)


def _cost(box: _Box, points: np.ndarray, taken: Sequence[_Box], inside: _Box) -> float:
    """How many points and names the box covers; one that sticks out of the frame is worst."""
    left, low, right, high = box
    out = left < inside[0] or low < inside[1] or right > inside[2] or high > inside[3]
    within = (
        (points[:, 0] > left - 3) & (points[:, 0] < right + 3) & (points[:, 1] > low - 2) & (points[:, 1] < high + 2)
    )
    across = sum(left < b[2] and right > b[0] and low < b[3] and high > b[1] for b in taken)
    return 100.0 * out + 10.0 * across + float(np.sum(within))
