"""Which row of the profiles each cell of a screen belongs to, and the cells of each context alone."""

import dataclasses
from collections.abc import Iterator

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


def context_cells(screen: Screen) -> Iterator[tuple[str, np.ndarray]]:
    """Each context and which cells it has; one named `""` with all cells for a screen without contexts."""
    if screen.context_codes is None:
        yield "", np.ones(len(screen.codes), bool)
        return
    for code, context in enumerate(screen.contexts):
        yield context, screen.context_codes == code


def check_controls(screen: Screen) -> None:
    """Refuses a measured screen with perturbed cells and no control cells, in any of its contexts.

    **Raises:** `Refusal`.
    """
    control, perturbed = screen.codes == -1, screen.codes >= 0
    bare = [
        context or "the whole screen"
        for context, inside in context_cells(screen)
        if np.any(inside & perturbed) and not np.any(inside & control)
    ]
    if bare:
        raise Refusal(
            what="The measured side has no control cells.",
            where=f"{screen.name}, no cell labelled {screen.control!r} in {listing(bare)}",
            why="Effects are measured from the control cells of their context.",
            fix="name the label of the control cells (`control=`, `--control-pert`), or leave these contexts out.",
        )


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
