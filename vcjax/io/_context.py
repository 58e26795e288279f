"""Which row of the profiles each cell of a screen belongs to."""

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
    if context not in screen.contexts or screen.context_codes is None:
        raise Refusal(
            what=f"There is no context {context!r}.{suggestion(context, screen.contexts)}",
            where=f"{screen.name}, with the contexts {listing(screen.contexts, 8) or '(none: no context column)'}",
            why="There would be no cells to score.",
            fix="name one of them: `context=`, of the column `context_col=` (`--context-col`).",
        )
    groups[screen.context_codes != screen.contexts.index(context)] = -1
    return groups
