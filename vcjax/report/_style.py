"""What all figures have in common: one colour and marker for each role, one font, no frame."""

import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TYPE_CHECKING, TypeVar

from ..io import Refusal


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Apart in hue for every kind of colour vision and, with the markers, in print without colour.
COLOURS = {"negative": "#6e6e6e", "null": "#dd9f1b", "positive": "#1f5f99", "model": "#b8350b"}
MARKERS = {"negative": "s", "null": "o", "positive": "^", "model": "D"}
SERIES = ("#b8350b", "#1f5f99", "#dd9f1b", "#2d8a69", "#8d5fa8", "#6e6e6e")
SERIES_MARKERS = ("D", "^", "o", "s", "v", "P")
INK, GREY, FAINT = "#1c1c1c", "#5f5f5f", "#c4c4c4"

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a label with two dollars in it is no formula
    "axes.facecolor": "white",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "lines.linewidth": 1.4,
}


def require_matplotlib() -> None:
    """Refuses where figures cannot be drawn, before anything else is done.

    **Raises:** `vcjax.io.Refusal` without matplotlib.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise Refusal(
            what="Figures need matplotlib, which is not installed.",
            where="vcjax.report",
            why="The figures, and the HTML report that holds them, cannot be drawn.",
            fix="pip install 'vcjax[plot]'",
        ) from error


def drawn(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that draws, in the style of this package whatever the user's own is."""

    @functools.wraps(function)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        require_matplotlib()
        import matplotlib

        with matplotlib.rc_context(_RC):  # pyright: ignore[reportArgumentType]
            return function(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> "Figure":
    """A figure in inches that no window and no global state knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def headline(figure: "Figure", text: str, detail: str = "", *, pad: float = 8.0, share: float = 0.95) -> None:
    """What one sees, in bold over the figure, and a line of detail under it; both broken to its width.

    `pad`: points between the detail and the axes; `share`: of the figure's width that the axes have.
    """
    letters = figure.get_figwidth() * 72 / 6.1
    figure.suptitle(
        textwrap.fill(text, int(letters)), x=0.012, ha="left", fontsize=10.5, fontweight="bold", linespacing=1.25
    )
    if detail:
        axes = figure.axes[0]
        wide = textwrap.fill(detail, int(letters * 1.2 * share))
        axes.set_title(wide, loc="left", fontsize=8.5, color=GREY, linespacing=1.25, pad=pad)


def named_ticks(axes: "Axes", axis: str, places: Sequence[int], labels: Sequence[str], **style: Any) -> None:
    """Ticks with these labels, taken as they are."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_ticks(list(places), labels=list(labels), **style)
    for label in chosen.get_ticklabels():
        label.set_parse_math(False)


def short(label: str, most: int = 28) -> str:
    """A label that fits beside a point."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def view(low: float, high: float, margin: float = 0.06) -> tuple[float, float]:
    """Limits of an axis with some room at both ends; of one value, a range around it."""
    gap = high - low
    pad = margin * gap if gap > 0 else max(abs(low) * 0.1, 0.1)
    return low - pad, high + pad
