"""Cells of a predicted screen, made when they are asked for: of profiles, or of control cells."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import scipy.sparse

from ..io import Screen
from ..io._baseline import _control_rows, EmittedCells
from ..io._matrix import BlockMatrix, n_rows, Source


Emit = Literal["profile", "tile", "dispersed"]
_PROFILE_DEPTH = 1e9  # of a cell that stands for a whole profile: rounding to whole counts is then far below any noise


class ProfileCells(Source):
    """Cells that are all the profile of their perturbation, exactly, or as whole numbers.

    As whole numbers, each entry is rounded up in as many of a perturbation's cells as its fraction says, so that the
    sum over these cells is that of the profile to within one count, without bias.
    """

    def __init__(self, profiles: np.ndarray, codes: np.ndarray, seed: int | None) -> None:
        self.profiles, self.codes = profiles, codes
        self.shape, self.dtype = (len(codes), profiles.shape[1]), np.dtype(np.float32)
        self.offsets = None if seed is None else np.random.default_rng(seed).random(profiles.shape, np.float32)
        sizes = np.bincount(codes, minlength=len(profiles))
        self.phase = (np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes]) / sizes[codes]

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        step = max(1, max_entries // self.shape[1])
        for start in range(0, len(self.codes), step):
            codes = self.codes[start : start + step]
            values = self.profiles[codes]
            if self.offsets is not None:
                values = np.floor(values + (self.offsets[codes] + self.phase[start : start + step, None]) % 1)
            yield start, scipy.sparse.csr_matrix(values.astype(np.float32))


class RatioCells(EmittedCells):
    """Cells of a bank, scaled gene by gene as their perturbation says.

    Counts stay whole numbers: each product is rounded up with the probability of its fraction. Log-normalised values
    are scaled under the logarithm.
    """

    def __init__(
        self, bank: scipy.sparse.csr_matrix, rows: np.ndarray, codes: np.ndarray, ratios: np.ndarray, seed: int | None
    ) -> None:
        super().__init__(bank, ratios.shape[1], rows, codes, ratios)
        self.seed = seed

    def _block(self, start: int, stop: int) -> scipy.sparse.csr_matrix:
        block = self.bank[self.rows[start:stop]]
        cells = np.repeat(np.arange(start, stop), np.diff(block.indptr))
        factors = self.factors[self.scaled[cells], block.indices]
        if self.seed is None:
            values = np.log1p(np.expm1(block.data.astype(np.float64)) * factors)
        else:
            places = cells.astype(np.uint64) * np.uint64(self.shape[1]) + block.indices.astype(np.uint64)
            values = np.floor(block.data.astype(np.float64) * factors + scattered(places, self.seed))
        return scipy.sparse.csr_matrix((values.astype(np.float32), block.indices, block.indptr), block.shape)


class Stacked(Source):
    """The rows of several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.shape = (sum(source.shape[0] for source in sources), sources[0].shape[1])
        self.dtype = sources[0].dtype

    def blocks(self, max_entries: int) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
        first = 0
        for source in self.sources:
            for start, block in source.blocks(max_entries):
                yield first + start, block
            first += source.shape[0]


def emit_screen(
    train: Screen,
    perts: Sequence[str],
    shares: np.ndarray,
    ratios: np.ndarray,
    profiles: np.ndarray,
    cells: np.ndarray,
    *,
    emit: Emit,
    seed: int = 0,
) -> Screen:
    """Predicted cells on the scale of a training screen, and its control cells as they are.

    **Arguments:**

    - `perts`: the labels, and of each `shares` (of counts, gene by gene), `ratios` (to the control's), `profiles` (in
        log-normalised units) and `cells`, how many to make.
    - `emit`: `"dispersed"`: control cells drawn with `seed` and multiplied by the ratios, so that they differ as those
        do. `"tile"`: every cell is the profile, at the median depth of the control cells; a test of differential
        expression takes it for certain. `"profile"`: one cell a perturbation, at a depth that makes rounding vanish.

    Counts are whole numbers, as every reader of counts expects.
    """
    order = np.argsort(np.array(perts, object).astype(str), kind="stable")
    names = tuple(perts[i] for i in order)
    bank = _control_rows(train)
    counted = train.scale == "counts"
    sizes = np.ones(len(names), np.int64) if emit == "profile" else np.asarray(cells, np.int64)[order]
    codes = np.repeat(np.arange(len(names)), sizes)
    if emit == "dispersed":
        drawn = np.random.default_rng(seed).integers(0, n_rows(bank), size=len(codes))
        made: Source = RatioCells(bank, drawn, codes, ratios[order], seed if counted else None)
    else:
        totals = np.asarray(bank.sum(axis=1), np.float64).ravel()
        depth = _PROFILE_DEPTH if emit == "profile" else float(np.median(totals[totals > 0]))
        made = ProfileCells((depth * shares if counted else profiles)[order], codes, seed if counted else None)
    unperturbed = EmittedCells(bank, len(train.genes), np.arange(n_rows(bank)))
    return dataclasses.replace(
        train,
        matrix=BlockMatrix(Stacked([made, unperturbed])),
        perts=names,
        codes=np.concatenate([codes, np.full(n_rows(bank), -1)]).astype(np.int32),
        contexts=(),
        context_codes=None,
        context_means=None,
        scale_verdict=f"{train.scale} (made here)",
        notes=(),
        totals=None,
        depth=None,
        fingerprint="",
        missing=(),
    )


def scattered(places: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each place, the same in whatever order and blocks they are asked for (splitmix64)."""
    with np.errstate(over="ignore"):
        word = places + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
    return (word ^ (word >> np.uint64(31))).astype(np.float64) / 2.0**64
