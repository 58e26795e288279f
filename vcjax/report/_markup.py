"""HTML from Python values: whatever is not marked as HTML is text, and escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
    """HTML that is written as it is."""


_VOID = ("img", "meta", "br")
MOST_ROWS = 60


def element(tag: str, /, *content: Any, **attributes: Any) -> Markup:
    """An element with its attributes (`class_` is `class`; `None` leaves one out) and contents."""
    given = [
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    opening = f"<{tag}{''.join(given)}>"
    return Markup(opening if tag in _VOID else f"{opening}{joined_markup(content)}</{tag}>")


def joined_markup(content: Iterable[Any], between: str = "") -> Markup:
    """Contents one after the other, text escaped."""
    return Markup(between.join(x if isinstance(x, Markup) else html.escape(str(x)) for x in content))


def table(
    head: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    caption: str = "",
    text: Iterable[int] = (0,),
    wide: Iterable[int] = (),
    most: int = MOST_ROWS,
    elsewhere: str = "",
) -> Markup:
    """A table whose first column names the rows; columns not in `text` are numbers, `wide` ones sentences.

    Of more than `most` rows the first are shown, with a sentence on how many are not and that they are `elsewhere`.
    """
    words, sentences = set(text), set(wide)
    kind = lambda i: "wide" if i in sentences else "short" if i in words else "number"
    header = element("tr", *(element("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind(i)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows[:most]
    ]
    title = [element("caption", caption)] if caption else []
    whole = element("table", *title, element("thead", header), element("tbody", joined_markup(body, "\n")))
    shown = element("div", whole, class_="scroll")
    if len(rows) <= most:
        return shown
    left = f"{len(rows) - most:,} of {len(rows):,} rows are left out here"
    return joined_markup([shown, element("p", f"{left}{': ' if elsewhere else '.'}{elsewhere}", class_="note")])


def bullets(items: Sequence[Any]) -> Markup:
    """A list; nothing without items."""
    return element("ul", *(element("li", item) for item in items)) if items else Markup()


def section(anchor: str, title: str, *content: Any) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title), *content, id=anchor)
