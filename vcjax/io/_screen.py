"""A screen: labelled cells, still where they lie, checked at the door."""

import dataclasses
from typing import Any, Literal

import numpy as np

from ._genes import Dedup, read_genes
from ._labels import Labels, read_labels
from ._matrix import BLOCK_ENTRIES, BlockMatrix, Matrix
from ._open import open_source
from ._pseudobulk import worth_compiling
from ._scale import Scale
from ._values import InputType, ValueCheck


@dataclasses.dataclass(frozen=True, eq=False)
class Screen:
    """One measured or predicted screen, on disk or in the caller's AnnData, which is never changed.

    **Fields:**

    - `name`: the path, or `AnnData`.
    - `matrix`: the values, in blocks of rows (see `Matrix`), columns in the order of `genes`.
    - `perts`: the labels other than the control, sorted. After `match_screens` both sides have the same `perts`; one
        that the prediction lacks has no cells there and is named in `missing`.
    - `codes`: for each cell the index into `perts`; -1 for a control cell, -2 for a cell to leave out.
    - `control`: the label of the control cells, whether or not there are any.
    - `contexts`, `context_codes`: sorted labels of the cell lines (or types, or batches) and the index of each cell;
        `()` and `None` without a context column.
    - `scale`: what the values are, declared or detected; `scale_verdict` says in a sentence which and why.
    - `notes`: what was repaired or is worth knowing, a line each; those that begin with `Warning:` ask for a look.
    - `totals`: sum of each row over `genes`; `None` where values were not walked over (or genes were dropped since).
    - `depth`: median library size of the non-empty cells: total counts, or sum of `expm1` of lognorm values.
    - `context_means`: mean of the raw values of each context, only where there is more than one.
    - `fingerprint`: digest of shape, names, labels and values; empty where the values were not walked over.
    - `missing`: `(perturbation, context)` pairs that the prediction lacks (context `""` without contexts).
    """

    name: str
    matrix: Matrix
    genes: tuple[str, ...]
    perts: tuple[str, ...]
    codes: np.ndarray
    control: str
    contexts: tuple[str, ...] = ()
    context_codes: np.ndarray | None = None
    scale: Scale = "counts"
    scale_verdict: str = ""
    notes: tuple[str, ...] = ()
    totals: np.ndarray | None = None
    depth: float | None = None
    context_means: np.ndarray | None = None
    fingerprint: str = ""
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def has_control(self) -> bool:
        """Whether any cell carries the control label."""
        return bool(np.any(self.codes == -1))

    def cell_counts(self, context: str | None = None) -> np.ndarray:
        """Number of cells of each perturbation (of one context, or of all).

        **Raises:** `ValueError` for a context that is not one of `contexts`.
        """
        kept = self.codes >= 0
        if context is not None:
            kept &= self.context_codes == self.contexts.index(context)
        return np.bincount(self.codes[kept], minlength=len(self.perts))


def read_screen(
    source: Any,
    *,
    pert_col: str | None = None,
    control: str = "non-targeting",
    context_col: str | None = None,
    input_type: InputType = "auto",
    gene_col: str | None = None,
    layer: str | None = None,
    require_control: bool = True,
    drop_unlabelled: bool = False,
    dedup: Dedup = "refuse",
    nan: Literal["refuse", "zero"] = "refuse",
    max_total: float | None = None,
    max_memory: int | None = None,
    check: bool = True,
    keep: bool = False,
    max_entries: int = BLOCK_ENTRIES,
) -> Screen:
    """A screen opened, labelled and checked; nothing is loaded whole and nothing of the caller's is changed.

    **Arguments:**

    - `source`: the path of an h5ad or a zarr store, or an AnnData in memory, backed, or a view.
    - `pert_col`: the column of `obs` with the perturbation of each cell; by default the one of `target_gene`, `target`,
        `perturbation`, `gene` and `condition` that is there. Labels are compared as strings.
    - `control`: the label of the control cells. A prediction may come without: `require_control=False`.
    - `context_col`: the column of `obs` with the cell line, type or batch.
    - `input_type`: `"counts"`, `"lognorm"`, `"delta"` (effects, of any sign), or `"auto"` to detect the first two.
    - `gene_col`: a column of `var` to take the gene names from, instead of the index. `layer`: values other than `X`.
    - `drop_unlabelled`, `dedup`, `nan`: what to do with cells without a label, genes named twice, and NaN; each is
        refused by default.
    - `max_total`: the library size that no cell may exceed (see `ValueCheck`).
    - `max_memory`: bytes that turning a column-compressed matrix into rows may take.
    - `check=False` skips the walk over the values, for screens that have been checked before; `input_type` must then be
        declared, and `totals`, `depth` and `fingerprint` stay empty.
    - `keep`: the walk leaves a large screen in memory, in four bytes a stored count, so that later walks need not read
        it again, until an evaluation has tested its cells; only where numba is installed, which cuts such rows quickly.
    - `max_entries`: values held at once during the walk.

    **Raises:** `Refusal`, for anything that could give a score of something other than what was meant.
    """
    opened = open_source(source, layer=layer, max_memory=max_memory)
    genes, columns, gene_notes = read_genes(opened.var, opened.name, gene_col, dedup)
    labels = read_labels(
        opened.obs,
        opened.name,
        pert_col=pert_col,
        control=control,
        context_col=context_col,
        drop_unlabelled=drop_unlabelled,
        require_control=require_control,
    )
    matrix = BlockMatrix(opened.source, columns, len(genes), nan_to_zero=nan == "zero")
    matrix.keep = keep and check and worth_compiling(matrix.shape)
    screen = Screen(
        opened.name,
        matrix,
        genes,
        labels.perts,
        labels.codes,
        control,
        labels.contexts,
        labels.context_codes,
        notes=(*labels.notes, *gene_notes, *_group_notes(labels)),
    )
    if check:
        values = ValueCheck(
            opened.name, labels, genes, input_type=input_type, max_total=max_total, stored=opened.source.dtype
        )
        return _checked(screen, matrix, values, max_entries)
    if input_type == "auto":
        raise ValueError('`check=False` looks at no value, so `input_type` must be "counts", "lognorm" or "delta".')
    return dataclasses.replace(screen, scale=input_type, scale_verdict=f"{input_type} (declared, not checked)")


def _checked(screen: Screen, matrix: BlockMatrix, check: ValueCheck, max_entries: int) -> Screen:
    for start, block in matrix.chunks(max_entries):
        check.update(start, block)
    values = check.finish()
    return dataclasses.replace(
        screen,
        scale=values.scale,
        scale_verdict=values.verdict,
        notes=(*screen.notes, *sorted(matrix.repairs), *values.notes),
        totals=values.totals,
        depth=values.depth,
        context_means=values.context_means,
        fingerprint=values.fingerprint,
    )


def _group_notes(labels: Labels) -> tuple[str, ...]:
    notes = []
    if not np.any(labels.codes == -1):
        notes.append(f"no cell is labelled {labels.control!r}: the measured controls are used")
    single = np.flatnonzero(np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.perts)) == 1)
    if len(single):
        notes.append(
            f"Warning: {len(single)} perturbations have one cell (e.g. {labels.perts[single[0]]}): "
            "no variance, no test, no noise estimate"
        )
    return tuple(notes)
