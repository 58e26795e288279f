"""A figure as part of a page that needs no other file."""

import base64
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._markup import element, Markup
from ._style import drawn


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(make: Callable[[], "Figure"], caption: str, alt: str) -> Markup:
    """A figure with its caption, as SVG or PNG, whichever is smaller; `alt` for those who do not see it."""
    kind, data, width = _encoded(make)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return element(
        "figure", element("img", src=source, alt=alt, width=round(96 * width)), element("figcaption", caption)
    )


@drawn
def _encoded(make: Callable[[], "Figure"]) -> tuple[str, bytes, float]:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "vcjax"}):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a label in a script that the font lacks
        figure = make()
        svg, png = io.BytesIO(), io.BytesIO()
        # Without the date, equal inputs give equal pages.
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=160)
    kind, data = min((("svg+xml", svg.getvalue()), ("png", png.getvalue())), key=lambda row: len(row[1]))
    return kind, data, float(figure.get_figwidth())
