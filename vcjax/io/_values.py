"""What the values of a screen are and whether they can be: one walk over the blocks."""

import dataclasses
import hashlib
import zlib
from typing import Literal

import numpy as np
import scipy.sparse

from ._errors import Refusal
from ._labels import Labels
from ._matrix import n_rows
from ._pseudobulk import sums_of_cells
from ._scale import decide_scale, RowFacts, Scale


InputType = Literal["auto", "counts", "lognorm", "delta"]
TOLERANCE = 1e-6  # how far from a whole number a count may be, absolutely


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """What `ValueCheck` found; the fields are those of `Screen`."""

    scale: Scale
    verdict: str
    notes: tuple[str, ...]
    totals: np.ndarray
    depth: float | None
    context_means: np.ndarray | None
    fingerprint: str


class ValueCheck:
    """Walks over a screen once: `update` with every block in turn, then `finish`.

    A count is a value within 1e-6 of a whole number (absolutely: no relative tolerance). `input_type="auto"` detects
    the scale, any other choice is verified.

    **Arguments:**

    - `name`, `labels`, `genes`: of the screen, for the messages and the digest.
    - `input_type`: `"counts"`, `"lognorm"` (log1p of normalised counts), `"delta"` (effects: any sign) or `"auto"`.
    - `max_total`: a library size that no cell may exceed. By default a total above 10⁶ counts is noted and a lognorm
        cell whose `expm1` sums to more is refused.
    - `stored`: the dtype before it was widened.
    """

    def __init__(
        self,
        name: str,
        labels: Labels,
        genes: tuple[str, ...],
        *,
        input_type: InputType = "auto",
        max_total: float | None = None,
        stored: np.dtype | None = None,
    ) -> None:
        n_cells, n_genes = len(labels.codes), len(genes)
        self.name, self.labels, self.genes, self.input_type, self.max_total = name, labels, genes, input_type, max_total
        self.half = stored == np.float16
        self.totals = np.zeros(n_cells)
        self.linear_totals = np.zeros(n_cells)
        self.entries = np.zeros(n_cells, np.int64)
        self.fractional = np.zeros(n_cells, np.int64)
        self.largest = 0.0
        self._bad: dict[str, tuple[int, str]] = {}
        self._sketch = np.zeros(n_cells)
        # Of each perturbation, with the control last: the total of the first cell, and whether others have another.
        self._first_totals = np.full(len(labels.perts) + 2, np.nan)
        self._differing = np.zeros(len(labels.perts) + 2, bool)
        self._weights = np.random.default_rng(0).random(n_genes)
        self._contexts = None if labels.context_codes is None or len(labels.contexts) < 2 else _one_hot(labels)
        self._context_sums = np.zeros((n_genes, len(labels.contexts)))
        # Checksums of the values and the genes, each by itself: they then do not depend on the size of the blocks.
        self._checksums = [0, 0]

    def update(self, start: int, block: scipy.sparse.csr_matrix) -> None:
        """Takes in the rows from `start` on; a block is canonical CSR."""
        rows, data = slice(start, start + n_rows(block)), block.data
        self.entries[rows] = np.diff(block.indptr)
        for i, part in enumerate((data, block.indices)):
            self._checksums[i] = zlib.crc32(np.ascontiguousarray(part).data, self._checksums[i])
        self.totals[rows] = sums_of_cells(data.astype(np.float64), self.entries[rows])
        if not data.size:
            return
        if not np.isfinite(self.totals[rows]).all() and self._find_non_finite(start, block):
            return
        low, high = float(data.min()), float(data.max())
        self.largest = max(self.largest, high)
        if low < 0 and self.input_type != "delta":
            self._record("negative", start, block, data < 0)
        self._project(rows, block)
        if self._contexts is not None:
            self._context_sums += block.T @ self._contexts[rows]
        if self.input_type != "delta":
            self._whole_numbers(start, block)

    def _project(self, rows: slice, block: scipy.sparse.csr_matrix) -> None:
        """A random projection of each cell that has the total of the first of its group, and may be the same cell."""
        codes, totals = self.labels.codes[rows], self.totals[rows]
        new = np.isnan(self._first_totals[codes])
        self._first_totals[codes[new]] = totals[new]
        same = totals == self._first_totals[codes]
        self._differing[codes[~same]] = True
        alike = np.flatnonzero(same & ~self._differing[codes])
        if not len(alike):
            return
        self._sketch[rows.start + alike] = block[alike] @ self._weights

    def _whole_numbers(self, start: int, block: scipy.sparse.csr_matrix) -> None:
        rows, data = slice(start, start + n_rows(block)), block.data
        whole = np.rint(data)
        if np.array_equal(data, whole):
            return
        off = np.abs(data - whole) > TOLERANCE
        if not off.any():
            return
        self._record("fractional", start, block, off)
        self.fractional[rows] = _row_counts(block, off)
        with np.errstate(over="ignore"):
            linear = scipy.sparse.csr_matrix((np.expm1(data), block.indices, block.indptr), shape=block.shape)
        self.linear_totals[rows] = linear @ np.ones(len(self.genes))

    def _find_non_finite(self, start: int, block: scipy.sparse.csr_matrix) -> bool:
        self._record("NaN", start, block, np.isnan(block.data))
        self._record("infinite", start, block, np.isinf(block.data))
        return "NaN" in self._bad or "infinite" in self._bad

    def _record(self, kind: str, start: int, block: scipy.sparse.csr_matrix, mask: np.ndarray) -> None:
        """Counts values of a kind and remembers where the first of them is."""
        count, first = self._bad.get(kind, (0, ""))
        where = np.flatnonzero(mask)
        if not len(where):
            return
        if not count:
            row = int(np.searchsorted(block.indptr, where[0], side="right")) - 1
            gene = self.genes[block.indices[where[0]]]
            cell = start + row
            first = f"row {cell}, gene {gene!r}, perturbation {self.labels.of(cell)!r}, value {block.data[where[0]]:g}"
        self._bad[kind] = (count + len(where), first)

    def finish(self) -> Values:
        """The verdict.

        **Raises:** `Refusal` for NaN, infinite or negative values, for a scale that contradicts the declared one, that
        is mixed or that is neither counts nor lognorm, and for totals above `max_total`.
        """
        for kind in ("NaN", "infinite", "negative"):
            if kind in self._bad:
                raise self._bad_values(kind)
        facts = RowFacts(
            self.name,
            self.totals,
            self.linear_totals,
            self.entries,
            self.fractional,
            self._bad.get("fractional", (0, ""))[1],
            self.labels.of,
            16 * float(np.finfo(np.float16 if self.half else np.float32).eps),
        )
        scale, verdict, depth, notes = decide_scale(facts, self.input_type, self.max_total)
        return Values(
            scale,
            verdict,
            tuple([*notes, *self._observations(scale)]),
            self.totals,
            depth,
            None if self._contexts is None else (self._context_sums / np.maximum(self._contexts.sum(axis=0), 1)).T,
            self._fingerprint(),
        )

    def _bad_values(self, kind: str) -> Refusal:
        count, first = self._bad[kind]
        why, fix = {
            "NaN": (
                "A single NaN makes the profile of its perturbation undefined.",
                'set them to zero with `nan="zero"` (`--nan zero`) if that is what they mean.',
            ),
            "infinite": (
                "An infinite value makes the profile of its perturbation infinite; float16 overflows at 65,504.",
                "write the values again in float32.",
            ),
            "negative": (
                "Neither counts nor log-normalised values can be negative.",
                'undo centring or scaling; for effects declare `input_type="delta"` (`--input-type delta`).',
            ),
        }[kind]
        found = "1 value is" if count == 1 else f"{count:,} values are"
        return Refusal(what=f"{found} {kind}.", where=f"{self.name}, first: {first}", why=why, fix=fix)

    def _observations(self, scale: Scale) -> list[str]:
        notes = []
        empty = int(np.sum(self.entries == 0))
        if empty and scale != "delta":
            notes.append(f"Warning: {empty} of {len(self.entries)} cells hold zeros only; they are kept as zeros")
        if self.half:
            notes.append("float16 values were widened to float32")
            if scale == "counts" and self.largest > 2048:
                notes.append(
                    "Warning: float16 holds whole numbers exactly only up to 2,048, and there are larger counts"
                )
        tiled = self._identical_groups()
        if tiled:
            notes.append(
                f"Warning: identical cells: rank tests saturate where a perturbation is one profile repeated "
                f"({len(tiled)} perturbations, e.g. {tiled[0]})"
            )
        return notes

    def _identical_groups(self) -> list[str]:
        """Perturbations of two cells or more that are all the same: their random projections agree to the last bit."""
        codes = self.labels.codes
        low, high = np.full(len(self.labels.perts), np.inf), np.full(len(self.labels.perts), -np.inf)
        kept = codes >= 0
        np.minimum.at(low, codes[kept], self._sketch[kept])
        np.maximum.at(high, codes[kept], self._sketch[kept])
        size = np.bincount(codes[kept], minlength=len(low))
        low[self._differing[: len(low)]] = np.nan
        return [
            pert for pert, same in zip(self.labels.perts, (size > 1) & (low == high) & (low != 0), strict=True) if same
        ]

    def _fingerprint(self) -> str:
        """Of all names and labels, every cell's total and number of entries, and checksums of what these sum up."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(str(self._checksums).encode())
        for part in (self.totals, self.entries):
            digest.update(part.data)
        labels = self.labels
        names = [labels.control, *labels.perts, "\0", *labels.contexts, "\0", *self.genes]
        digest.update("\1".join(names).encode())
        digest.update(np.ascontiguousarray(labels.codes).data)
        if labels.context_codes is not None:
            digest.update(np.ascontiguousarray(labels.context_codes).data)
        return digest.hexdigest()


def _row_counts(block: scipy.sparse.csr_matrix, mask: np.ndarray) -> np.ndarray:
    before = np.concatenate([[0], np.cumsum(mask)])[block.indptr]
    return np.diff(before)


def _one_hot(labels: Labels) -> np.ndarray:
    assert labels.context_codes is not None
    return (labels.context_codes[:, None] == np.arange(len(labels.contexts))).astype(np.float64)
