"""Disjoint halves of a screen: two replicates of half its depth, each with control cells of its own."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._errors import listing, Refusal
from ._labels import choose_column
from ._open import open_source
from ._screen import Screen


_LEFT_OUT = -2


def split_halves(
    screen: Screen, seed: int = 0, *, order: Sequence[str] | None = None, min_cells: int = 2
) -> tuple[Screen, Screen, tuple[str, ...]]:
    """`(first half, second half, notes)`: the cells of each perturbation, and the control's, split at random.

    Nothing is read or copied: cells of the other half get the code -2. The odd cell of a group is in neither half, so
    that both have one depth. Perturbations of fewer than `min_cells` cells (two at least) are in neither, with a note.
    In each context groups draw in turn from one `numpy.random.default_rng(seed)`.

    **Arguments:**

    - `order`: the labels, control included, in the order in which they draw; sorted by default.

    **Raises:** `Refusal` for fewer than two control cells, or if no perturbation can be split.
    """
    labels = sorted([*screen.perts, screen.control]) if order is None else order
    codes = {label: code for code, label in enumerate(screen.perts)} | {screen.control: -1}
    turns = [codes[label] for label in labels if label in codes]
    halves = [np.full_like(screen.codes, _LEFT_OUT) for _ in range(2)]
    dropped, split = [], 0
    for context, groups in _groups(screen):
        rng = np.random.default_rng(seed)
        for code in turns:
            cells = rng.permutation(groups.get(code, np.zeros(0, np.int64)))
            half = len(cells) // 2
            if code == -1 and half < 1:
                raise _no_control(screen, context, len(cells))
            if code >= 0 and 0 < len(cells) < max(2, min_cells):
                dropped.append(f"{screen.perts[code]} in {context}" if context else screen.perts[code])
                continue
            for codes_of_half, kept in zip(halves, (cells[:half], cells[half : 2 * half]), strict=True):
                codes_of_half[kept] = code
            split += code >= 0 and half > 0
    if not split:
        raise Refusal(
            what="No perturbation can be split into halves.",
            where=f"{screen.name}, {len(screen.perts)} perturbations of fewer than {max(2, min_cells)} cells",
            why="Halves of one depth need two cells at least.",
            fix="lower the number of cells asked for: min_cells= / --min-cells, or give a screen with replicates.",
        )
    notes = ()
    if dropped:
        few = f"{len(dropped)} perturbations with fewer than {max(2, min_cells)} cells cannot be split"
        notes = (f"Warning: {few} and are left out of the halves: {listing(dropped)}",)
    first, second = (_half(screen, mine, name, seed) for mine, name in zip(halves, ("a", "b"), strict=True))
    return first, second, notes


def label_order(source: Any, pert_col: str | None = None, layer: str | None = None) -> tuple[str, ...]:
    """The labels of a file or an AnnData in the order of their categories, which is that of pandas' `groupby`.

    It is sorted for a column of strings; a stored categorical may have another order.
    """
    import pandas as pd

    opened = open_source(source, layer=layer)
    column, _ = choose_column(list(opened.obs.columns), opened.name, pert_col)
    categories = pd.Categorical(opened.obs[column]).categories
    texts = (text.decode() if isinstance(text, bytes) else str(text) for text in categories)
    return tuple(dict.fromkeys(texts))


def _groups(screen: Screen) -> list[tuple[str, dict[int, np.ndarray]]]:
    """For each context, the cells of every code that occurs, ascending."""
    if screen.context_codes is None:
        return [("", _by_code(np.arange(len(screen.codes)), screen.codes))]
    found = []
    for i, context in enumerate(screen.contexts):
        cells = np.flatnonzero(screen.context_codes == i)
        if np.any(screen.codes[cells] >= 0):
            found.append((context, _by_code(cells, screen.codes[cells])))
    return found


def _by_code(cells: np.ndarray, codes: np.ndarray) -> dict[int, np.ndarray]:
    cells = cells[np.argsort(codes, kind="stable")]
    values, starts = np.unique(np.sort(codes), return_index=True)
    return dict(zip(values.tolist(), np.split(cells, starts[1:]), strict=True))


def _half(screen: Screen, codes: np.ndarray, name: str, seed: int) -> Screen:
    fingerprint = f"{screen.fingerprint}-half-{name}-{seed}" if screen.fingerprint else ""
    return dataclasses.replace(
        screen, name=f"half {name.upper()} of {screen.name}", codes=codes, notes=(), fingerprint=fingerprint
    )


def _no_control(screen: Screen, context: str, found: int) -> Refusal:
    return Refusal(
        what="The control cells cannot be split into halves.",
        where=f"{screen.name}, {found} cells labelled {screen.control!r}{f' in {context}' if context else ''}",
        why="With one control for both halves its sampling noise would pass for agreement.",
        fix="name the label of the control cells: control= / --control, or give a screen with more of them.",
    )
