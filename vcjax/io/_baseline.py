"""Predictions that know only what perturbations have in common: what a prediction must beat to be worth anything."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse

from .._files import replacing
from ._context import cell_groups, check_controls, context_cells, one_context
from ._errors import listing, Refusal
from ._matrix import BLOCK_ENTRIES, BlockMatrix, n_rows, Source
from ._pseudobulk import cell_totals, group_sums
from ._screen import Screen
from ._summarise import summarise


Baseline = Literal["mean", "dispersed", "tile"]


class EmittedCells(Source):
    """Cells made on demand: each is a row of a small bank, as it is or times a row of factors, one a gene.

    `rows` says which row of the bank a cell is, and `scaled` which row of `factors` multiplies it: -1 for none.
    """

    def __init__(
        self,
        bank: scipy.sparse.csr_matrix,
        genes: int,
        rows: np.ndarray,
        scaled: np.ndarray | None = None,
        factors: np.ndarray | None = None,
    ) -> None:
        self.bank, self.rows = bank, rows
        self.scaled = np.full(len(rows), -1) if scaled is None else scaled
        self.factors = np.zeros((0, genes)) if factors is None else factors
        self.shape, self.dtype = (len(rows), genes), bank.dtype

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        entries = np.diff(self.bank.indptr)[self.rows]
        ends = np.cumsum(entries)
        start = 0
        while start < len(self.rows):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + max_entries, side="right")))
            yield start, self._block(start, stop)
            start = stop

    def _block(self, start: int, stop: int) -> scipy.sparse.csr_matrix:
        block, scaled = self.bank[self.rows[start:stop]], self.scaled[start:stop]
        if np.all(scaled < 0):
            return block
        of = np.repeat(scaled, np.diff(block.indptr))
        # The factors stay in float64, so that each product is rounded once.
        values = np.where(of >= 0, block.data * self.factors[of, block.indices], block.data)
        return scipy.sparse.csr_matrix((values.astype(np.float32), block.indices, block.indptr), block.shape)


class LogCells(Source):
    """Counts as log-normalised cells, in the order of operations of scanpy and in the dtype of the counts.

    The library size that cells are scaled to is the median of the positive totals of their context.
    """

    def __init__(self, screen: Screen) -> None:
        self.matrix, self.shape, self.dtype = screen.matrix, screen.matrix.shape, np.dtype(np.float32)
        totals: Any = cell_totals(screen.matrix, BLOCK_ENTRIES) if screen.totals is None else screen.totals
        target = np.ones(self.shape[0])
        for _, inside in context_cells(screen):
            positive = totals[inside & (screen.codes >= -1) & (totals > 0)]
            target[inside] = np.median(positive) if len(positive) else 1.0
        self.divisors = totals / target

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        for start, block in self.matrix.chunks(max_entries):
            lengths = np.diff(block.indptr)
            divisors = self.divisors[start : start + len(lengths)].astype(block.data.dtype)
            values = np.log1p(block.data / np.repeat(divisors, lengths))
            yield start, scipy.sparse.csr_matrix((values, block.indices, block.indptr), block.shape)


def log_normalised(screen: Screen) -> Screen:
    """A screen of counts as one of log-normalised cells, scaled to the median total of all cells of their context.

    Any other screen is returned as it is.
    """
    if screen.scale != "counts":
        return screen
    return dataclasses.replace(
        screen,
        matrix=BlockMatrix(LogCells(screen)),
        scale="lognorm",
        scale_verdict="lognorm (counts, normalised here)",
        totals=None,
        fingerprint=f"{screen.fingerprint}-lognorm" if screen.fingerprint else "",
    )


def baseline_screen(screen: Screen, kind: Baseline, *, targets: np.ndarray | None = None, seed: int = 0) -> Screen:
    """A prediction with as many cells of each perturbation as `screen` has, and the control cells of `screen`.

    In a screen of several contexts each has a baseline of its own, the same as if it were alone: of its own
    perturbations and control cells, at its own median total, drawn from `seed`.

    **Arguments:**

    - `kind`: `"mean"`, cell-eval's: every cell is the mean, over all groups and the control, of the means of
        log-normalised cells. `"dispersed"`, cell-eval2's: control cells drawn with `seed` and scaled gene by gene to
        the generic response, the mean over perturbations of mean counts. `"tile"`: every cell is that response.
    - `targets`: index of the gene that each perturbation targets, which leaves it out of the generic response of that
        gene; `None` for no targets.

    **Raises:** `Refusal` where the generic response is asked of cells that are not counts, for perturbations without
    control cells in their context, for fewer than two perturbations, for a gene that every perturbation targets, and
    for effects given as such.

    Source: `baseline` of cell-eval 0.8.2 and of cell-eval2 0.20.0. Neither knows contexts there; cell-eval's `run`
    takes every context for a screen of its own.
    """
    if screen.scale == "delta" or (kind != "mean" and screen.scale != "counts"):
        raise Refusal(
            what=f"The baseline {kind!r} is made of {'cells' if kind == 'mean' else 'counts'}; the screen holds "
            f"{screen.scale}.",
            where=screen.name,
            why="What is drawn and averaged would be on another scale than what it is compared with.",
            fix="give counts, or use the baseline 'mean': kind='mean' / --emit mean.",
        )
    check_controls(screen)
    if kind == "mean":
        screen = log_normalised(screen)
    made = _emitted(screen, kind, targets, seed)
    return dataclasses.replace(
        screen,
        name=f"baseline {kind!r} of {screen.name}",
        matrix=BlockMatrix(made),
        scale_verdict=f"{screen.scale} (made here)",
        notes=(),
        totals=None,
        context_means=None,
        fingerprint=f"{screen.fingerprint}-{kind}-{seed}" if screen.fingerprint else "",
    )


def _emitted(screen: Screen, kind: Baseline, targets: np.ndarray | None, seed: int) -> EmittedCells:
    control = _control_rows(screen)
    rows, scaled = np.zeros(len(screen.codes), np.int64), np.full(len(screen.codes), -1)
    rows[screen.codes == -1] = np.arange(n_rows(control))
    responses, factors = [], []
    for part in _contexts(screen):
        if kind != "dispersed":
            rows[part.codes >= 0] = n_rows(control) + len(responses)
            responses.append(_mean_profile(part) if kind == "mean" else generic_response(part, targets))
            continue
        own, rng = rows[part.codes == -1], np.random.default_rng(seed)
        for code in range(len(part.perts)):
            cells = np.flatnonzero(part.codes == code)
            rows[cells] = own[rng.integers(0, len(own), size=len(cells))]
        scaled[part.codes >= 0] = len(factors)
        mean = np.asarray(control[own].astype(np.float64).mean(axis=0)).ravel()
        factors.append(np.divide(generic_response(part, targets), mean, out=np.zeros_like(mean), where=mean > 0))
    if kind == "dispersed":
        return EmittedCells(control, len(screen.genes), rows, scaled, np.array(factors))
    bank = _stacked([control, scipy.sparse.csr_matrix(np.array(responses, np.float32))])
    return EmittedCells(bank, len(screen.genes), rows)


def _contexts(screen: Screen) -> Iterator[Screen]:
    """Every context with perturbed cells as a screen of its own, named after it."""
    if not screen.contexts:
        yield screen
    for context in screen.contexts:
        part = one_context(screen, context)
        if np.any(part.codes >= 0):
            yield dataclasses.replace(part, name=f"{screen.name}, {context}")


def generic_response(screen: Screen, targets: np.ndarray | None = None) -> np.ndarray:
    """The mean over perturbations of the mean counts of their cells, for each gene without those that target it.

    **Raises:** `Refusal` for fewer than two perturbations and for a gene that all of them target.
    """
    groups = cell_groups(screen, None)
    sums = group_sums(screen.matrix, groups, len(screen.perts) + 1, BLOCK_ENTRIES)[:-1]
    sizes = np.bincount(groups[groups >= 0], minlength=len(screen.perts) + 1)[:-1]
    counted = np.broadcast_to((sizes > 0)[:, None], sums.shape).copy()
    if targets is not None:
        own = np.flatnonzero(targets >= 0)
        counted[own, targets[own]] = False
    bare = np.flatnonzero(counted.sum(axis=0) == 0)
    if np.sum(sizes > 0) < 2 or len(bare):
        raise Refusal(
            what="There is no response that perturbations have in common.",
            where=f"{screen.name}: {int(np.sum(sizes > 0))} perturbations; targeted by all: "
            f"{listing(screen.genes[i] for i in bare) or 'no gene'}",
            why="A gene is averaged over the perturbations that do not target it.",
            fix="use a screen of more perturbations, or declare that there are no targets (`--no-target-genes`).",
        )
    means = sums / np.maximum(sizes, 1)[:, None]
    return np.sum(means, axis=0, where=counted) / counted.sum(axis=0)


def _mean_profile(screen: Screen) -> np.ndarray:
    summary = summarise(screen, space="lognorm", noise=False)
    rows = summary.mean[summary.cells > 0]
    return np.vstack([rows, *([] if summary.control is None else [summary.control])]).mean(axis=0)


def _control_rows(screen: Screen) -> scipy.sparse.csr_matrix:
    parts = []
    for start, block in screen.matrix.chunks():
        stop = start + len(block.indptr) - 1
        parts.append(block[np.flatnonzero(screen.codes[start:stop] == -1)])
    return _stacked(parts)


def _stacked(parts: list[scipy.sparse.csr_matrix]) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(scipy.sparse.vstack(parts, format="csr"), dtype=np.float32)


def write_screen(
    screen: Screen, path: str | os.PathLike, *, pert_col: str = "target_gene", context_col: str = "celltype"
) -> None:
    """The cells of a screen as an h5ad in CSR form, written in blocks under a temporary name until complete.

    Cells that are left out of the screen are not written. Of `obs` it has the labels alone: `pert_col` and, if the
    screen has contexts, `context_col`.

    **Raises:** `ValueError` if both columns have one name.
    """
    import anndata
    import h5py
    import pandas as pd

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = screen.codes >= -1
    names = np.array([*screen.perts, screen.control], object)[screen.codes[kept]]
    columns = {pert_col: pd.Categorical(names)}
    if screen.context_codes is not None:
        if context_col == pert_col:
            raise ValueError(f"`pert_col` and `context_col` are two columns, got {pert_col!r} for both.")
        columns[context_col] = pd.Categorical.from_codes(screen.context_codes[kept], list(screen.contexts))
    obs = pd.DataFrame(columns, index=pd.Index([f"cell{i}" for i in np.flatnonzero(kept)]))
    frame = anndata.AnnData(
        scipy.sparse.csr_matrix((len(names), len(screen.genes)), dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(screen.genes))),
    )
    with replacing(path) as partial:
        frame.write_h5ad(partial)
        with h5py.File(partial, "r+") as file:
            _fill(file["X"], screen, kept)


def _fill(group, screen: Screen, kept: np.ndarray) -> None:
    """Replaces the empty CSR matrix of a file by the values of the screen."""
    lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
    for name in ("data", "indices", "indptr"):
        del group[name]
    options = {"maxshape": (None,), "chunks": (262_144,), "compression": "gzip", "compression_opts": 1}
    data = group.create_dataset("data", (0,), np.float32, **options)
    indices = group.create_dataset("indices", (0,), np.int32, **options)
    for start, block in screen.matrix.chunks():
        stop = start + len(block.indptr) - 1
        block = block[np.flatnonzero(kept[start:stop])]
        before = data.shape[0]
        for dataset, values in ((data, block.data), (indices, block.indices)):
            dataset.resize((before + block.nnz,))
            dataset[before:] = values
        lengths.append(np.diff(block.indptr))
    group.create_dataset("indptr", data=np.cumsum(np.concatenate(lengths), dtype=np.int64))
