"""Which row of the profiles each cell of a screen belongs to, and the cells of one context alone."""

import dataclasses

import numpy as np

from ._errors import listing, Refusal, suggestion
from ._screen import Screen


def cell_groups(screen: Screen, context: str | None) -> np.ndarray:
    """The row of each cell, that of the control last; -1 for a cell to leave out.

    **Raises:** `Refusal` for a context that the screen does not have.
    """
    codes = np.asarray(screen.codes, np.int64)
    groups = np.where(codes == -1, len(screen.perts), np.maximum(codes, -1))
    if context is None:
        return groups
    groups[screen.context_codes != _code(screen, context)] = -1
    return groups


def one_context(screen: Screen, context: str | None) -> Screen:
    """The cells of one context as a screen without contexts; all cells of a screen that has none, or one, for `None`.

    **Raises:** `Refusal` for a context that the screen does not have, and if one of several must be named.
    """
    if not context and len(screen.contexts) <= 1:
        return dataclasses.replace(screen, contexts=(), context_codes=None)
    inside = screen.context_codes == _code(screen, context)
    codes = np.where(inside, screen.codes, -2).astype(screen.codes.dtype)
    return dataclasses.replace(screen, codes=codes, contexts=(), context_codes=None, context_means=None)


def _code(screen: Screen, context: str | None) -> int:
    if context in screen.contexts and screen.context_codes is not None:
        return screen.contexts.index(context)
    absent = "Cells of one context are needed, and none is named."
    if context is not None:
        absent = f"There is no context {context!r}.{suggestion(context, screen.contexts)}"
    raise Refusal(
        what=absent,
        where=f"{screen.name}, with the contexts {listing(screen.contexts, 8) or '(none: no context column)'}",
        why="There would be no cells to score, or those of several cell lines as if they were one.",
        fix="name one of them: `context=`, of the column `context_col=` (`--context-col`).",
    )
