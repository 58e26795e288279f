"""Screens made of the cells of another one: some of them, some several times, under new labels."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.sparse

from ._matrix import BlockMatrix, Matrix, n_rows, Source
from ._screen import Screen


class PickedCells(Source):
    """Rows of a matrix by ascending index, each as often as it is named; nothing is held but the block in flight."""

    def __init__(self, matrix: Matrix, rows: np.ndarray) -> None:
        self.matrix, self.rows = matrix, rows
        self.shape, self.dtype = (len(rows), matrix.shape[1]), np.dtype(np.float32)

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        for start, block in self.matrix.chunks(max_entries):
            first, last = np.searchsorted(self.rows, (start, start + n_rows(block)))
            picked = self.rows[first:last] - start
            ends = np.cumsum(np.diff(block.indptr)[picked])
            while first < last:
                done = len(picked) - (last - first)
                before = ends[done - 1] if done else 0
                count = max(1, int(np.searchsorted(ends, before + max_entries, side="right")) - done)
                yield int(first), block[picked[done : done + count]]
                first += count


def picked_screen(screen: Screen, rows: np.ndarray, codes: np.ndarray, name: str) -> Screen:
    """The cells `rows` of a screen, in any order and with repetitions, as cells of the perturbations `codes`.

    Contexts are dropped; what cells were normalised by stays with them.
    """
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return dataclasses.replace(
        screen,
        name=f"{name} of {screen.name}",
        matrix=BlockMatrix(PickedCells(screen.matrix, rows)),
        codes=codes[order].astype(screen.codes.dtype),
        contexts=(),
        context_codes=None,
        context_means=None,
        totals=None if screen.totals is None else screen.totals[rows],
        notes=(),
        fingerprint="",
    )


def control_as_prediction(screen: Screen, rng: np.random.Generator) -> Screen:
    """Control cells under every label, as many as the perturbation has: drawn anew for each, without repetition.

    (With repetition where there are not enough.) The control cells themselves stay as they are.
    """
    controls = np.flatnonzero(screen.codes == -1)
    sizes = screen.cell_counts()
    drawn = [rng.choice(controls, n, replace=bool(n > len(controls))) for n in sizes]
    return _labelled(screen, drawn, sizes, "control cells")


def others_as_prediction(screen: Screen, rng: np.random.Generator, sources: np.ndarray | None = None) -> Screen:
    """Cells of other perturbations at random under every label, as many as it has.

    **Arguments:** `sources`, codes of the perturbations to draw from (training ones), all but the own one by default.

    A perturbation without others to draw from has no cells.
    """
    sizes = screen.cell_counts()
    kept = np.arange(len(sizes)) if sources is None else np.unique(sources)
    cells = np.flatnonzero(np.isin(screen.codes, kept))
    cells = cells[np.argsort(screen.codes[cells], kind="stable")]
    counts = np.where(np.isin(np.arange(len(sizes)), kept), sizes, 0)
    ends = np.cumsum(counts)
    drawn = []
    for size, own, end in zip(sizes, counts, ends, strict=True):
        rest = len(cells) - own
        places = rng.choice(rest, size, replace=bool(size > rest)) if rest else np.zeros(0, np.int64)
        # Places behind the own cells skip them.
        drawn.append(cells[np.where(places < end - own, places, places + own)])
    return _labelled(screen, drawn, np.array([len(x) for x in drawn]), "cells of other perturbations")


def bootstrap_screen(screen: Screen, rng: np.random.Generator) -> Screen:
    """As many cells of each perturbation as it has, drawn from them with repetition; control cells as they are."""
    sizes = screen.cell_counts()
    own = [np.flatnonzero(screen.codes == code) for code in range(len(sizes))]
    drawn = [rng.choice(cells, len(cells)) if len(cells) else cells for cells in own]
    return _labelled(screen, drawn, sizes, "resampled cells")


def _labelled(screen: Screen, drawn: list[np.ndarray], sizes: np.ndarray, name: str) -> Screen:
    controls = np.flatnonzero(screen.codes == -1)
    codes = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(len(controls), -1)])
    return picked_screen(screen, np.concatenate([*drawn, controls]).astype(np.int64), codes, name)
