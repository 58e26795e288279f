"""A submission held against the rules of a challenge: everything that is wrong with it, in one walk over its values."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._challenge import Fault, refuse_faults, Rules
from ._errors import listing, Refusal, suggestion
from ._genes import read_genes
from ._labels import Labels, read_labels
from ._matrix import BLOCK_ENTRIES, BlockMatrix
from ._open import open_source, Opened
from ._sources import DenseSource
from ._values import ValueCheck, Values


@dataclasses.dataclass(frozen=True, eq=False)
class Submission:
    """A submission that breaks no rule.

    **Fields:** `opened`, its tables; `matrix`, its values with the genes in the order of `genes`; `labels` and the
    number of stored `entries` that are not zero; `values`, what they are; `notes`, what is worth knowing.
    """

    opened: Opened
    matrix: BlockMatrix
    genes: tuple[str, ...]
    labels: Labels
    entries: int
    values: Values
    notes: tuple[str, ...]


def check_submission(
    source: Any,
    rules: Rules,
    *,
    genes: Sequence[str] | None = None,
    perts: Mapping[str, int | None] | None = None,
    pert_col: str | None = None,
    context_col: str | None = None,
    control: str = "non-targeting",
    gene_col: str | None = None,
    layer: str | None = None,
    max_memory: int | None = None,
    max_entries: int = BLOCK_ENTRIES,
    progress: Callable[[str, int, int], None] | None = None,
) -> Submission:
    """Reads a submission (what `read_screen` reads) and checks it against `rules`.

    **Arguments:**

    - `genes`: the names that it must have, in the order in which it is to be written. `perts`: the labels that it must
        have, in each context, with the number of cells of each where that is prescribed.
    - `pert_col`, `context_col`, `control`, `gene_col`, `layer`, `max_memory`: as of `read_screen`.

    **Raises:** `Refusal`, a single one that lists all faults; and by itself, for a file that cannot be read.
    """
    opened = open_source(source, layer=layer, max_memory=max_memory)
    faults: list[Fault] = []
    names, columns, notes = _genes(opened, gene_col, faults)
    labels = _labels(opened, rules, faults, pert_col=pert_col, context_col=context_col, control=control)
    _check_genes(opened.name, names, genes, rules, faults)
    if labels is not None:
        _check_labels(opened.name, labels, perts, rules, faults)
    _check_size(opened, rules, faults)
    columns, ordered, moved = _order(names, columns, genes)
    matrix = BlockMatrix(opened.source, columns, len(ordered))
    check = ValueCheck(opened.name, labels or _unlabelled(opened), ordered, stored=opened.source.dtype)
    stored = entries = 0
    for start, raw in opened.source.blocks(max_entries):
        block = matrix._canonical(raw)
        stored, entries = stored + raw.nnz, entries + block.nnz
        check.update(start, block)
        if progress is not None:
            progress("checking", start + len(raw.indptr) - 1, matrix.shape[0])
    if rules.max_entries is not None and stored > rules.max_entries:
        excess = Fault(
            f"{stored:,} values are stored; {rules.max_entries:,} are allowed.",
            f"{opened.name}, {100 * stored / (matrix.shape[0] * matrix.shape[1]):.0f} % of all",
            "predict zeros as zeros: counts of cells are sparse.",
        )
        faults.append(excess)
    values = _values(check, rules, faults)
    refuse_faults(opened.name, rules, faults)
    assert labels is not None
    assert values is not None
    notes = (*labels.notes, *notes, *moved, values.verdict, *sorted(matrix.repairs), *values.notes)
    return Submission(opened, matrix, ordered, labels, entries, values, notes)


def _genes(opened: Opened, gene_col: str | None, faults: list[Fault]) -> tuple[tuple[str, ...], Any, tuple[str, ...]]:
    try:
        return read_genes(opened.var, opened.name, gene_col, "refuse")
    except Refusal as refusal:
        faults.append(Fault.of(refusal))
    try:
        return read_genes(opened.var, opened.name, gene_col, "first")
    except Refusal:  # told already
        return tuple(f"column {i}" for i in range(opened.source.shape[1])), None, ()


def _labels(opened: Opened, rules: Rules, faults: list[Fault], **columns: Any) -> Labels | None:
    """The labels, read again without a requirement that failed, so that one fault does not hide the next."""
    required = rules.control == "required"
    for options in ({"drop_unlabelled": False, "require_control": required}, {"drop_unlabelled": True}):
        options = {"require_control": False, **options}
        try:
            return read_labels(opened.obs, opened.name, **columns, **options)  # pyright: ignore[reportArgumentType]
        except Refusal as refusal:
            if refusal.what not in [fault.what for fault in faults]:
                faults.append(Fault.of(refusal))
    return None


def _unlabelled(opened: Opened) -> Labels:
    return Labels(("a cell",), np.zeros(opened.source.shape[0], np.int32), "", (), None, ())


def _order(
    names: tuple[str, ...], columns: np.ndarray | None, genes: Sequence[str] | None
) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """`(columns, genes, notes)` with the genes in the order that is asked for, where they are the same genes."""
    if genes is None or tuple(genes) == names or set(genes) != set(names):
        return columns, names, ()
    place = {gene: i for i, gene in enumerate(genes)}
    order = np.array([place[gene] for gene in names], np.int32)
    moved = order if columns is None else np.where(columns < 0, -1, order[columns])
    return moved.astype(np.int32), tuple(genes), ("genes were put into the order of the list, by name",)


def _check_genes(
    name: str, names: tuple[str, ...], genes: Sequence[str] | None, rules: Rules, faults: list[Fault]
) -> None:
    if rules.genes is not None and len(names if genes is None else genes) != rules.genes:
        what = f"There are {len(names)} genes" if genes is None else f"The list has {len(genes)} genes"
        where = name if genes is None else "genes= / --genes"
        fix = f"use the gene list of {rules.name}: genes= / --genes (`prep` takes another --expected-gene-dim)."
        faults.append(Fault(f"{what}; {rules.genes:,} are expected.", where, fix))
    if genes is None:
        return
    missing, extra = _differences(genes, names)
    if missing:
        where = f"{name}: {listing(missing)}.{suggestion(missing[0], extra)}"
        fix = "predict them, as zeros if need be."
        faults.append(Fault(f"{len(missing)} genes of the list are missing.", where, fix))
    if extra:
        fix = "leave them out: adata[:, genes]."
        faults.append(Fault(f"{len(extra)} genes are not in the list.", f"{name}: {listing(extra)}", fix))


def _check_labels(
    name: str, labels: Labels, perts: Mapping[str, int | None] | None, rules: Rules, faults: list[Fault]
) -> None:
    controls = int(np.sum(labels.codes == -1))
    if rules.control == "refused" and controls:
        fix = f"leave them out: adata[adata.obs[COLUMN] != {labels.control!r}]."
        faults.append(Fault(f"There are {controls} control cells.", f"{name}, label {labels.control!r}", fix))
    wanted = None if perts is None else {label: n for label, n in perts.items() if label != labels.control and n != 0}
    if wanted is None and rules.perts is not None and len(labels.perts) != rules.perts:
        what = f"There are {len(labels.perts)} perturbations; {rules.perts} are expected."
        fix = "predict each target of the challenge; perts= / --perts tells which are missing."
        faults.append(Fault(what, f"{name}: {listing(labels.perts)}", fix))
    if wanted is not None:
        missing, extra = _differences(wanted, labels.perts)
        if missing:
            where = f"{name}: {listing(missing)}.{suggestion(missing[0], extra)}"
            faults.append(Fault(f"{len(missing)} perturbations of the list are missing.", where, "predict them."))
        if extra:
            fix = "spell labels as the list does, exactly, and leave others out."
            faults.append(Fault(f"{len(extra)} perturbations are not in the list.", f"{name}: {listing(extra)}", fix))
    _check_cells(name, labels, wanted, rules, faults)


def _check_cells(
    name: str, labels: Labels, wanted: Mapping[str, int | None] | None, rules: Rules, faults: list[Fault]
) -> None:
    """The number of cells of each label that is there and should be, in each context."""
    expected = [(wanted or {}).get(label) or rules.cells_per_pert for label in labels.perts]
    wrong = []
    for i, context in enumerate(labels.contexts or ("",)):
        kept = labels.codes >= 0
        if labels.context_codes is not None:
            kept &= labels.context_codes == i
        found = np.bincount(labels.codes[kept], minlength=len(labels.perts))
        for label, n, number in zip(labels.perts, found, expected, strict=True):
            if number is not None and n != number and (wanted is None or label in wanted):
                wrong.append(f"{label}{f' in {context}' if context else ''} has {n}, not {number}")
    if wrong:
        what = f"{len(wrong)} perturbations have another number of cells than expected."
        faults.append(Fault(what, f"{name}: {listing(wrong)}", "predict as many cells as asked for."))


def _check_size(opened: Opened, rules: Rules, faults: list[Fault]) -> None:
    cells = opened.source.shape[0]
    if rules.max_cells is not None and cells > rules.max_cells:
        what = f"There are {cells:,} cells; {rules.max_cells:,} are allowed."
        faults.append(Fault(what, opened.name, "predict fewer cells of each perturbation (or --max-cell-dim)."))
    if rules.sparse and isinstance(opened.source, DenseSource):
        fix = "store it in sparse form: adata.X = scipy.sparse.csr_matrix(adata.X)."
        faults.append(Fault("The values are stored as a dense array.", opened.name, fix))


_IMPOSSIBLE = {
    "NaN": "predict a number for every gene of every cell, 0 if need be.",
    "infinite": "write the values again in float32; float16 overflows at 65,504.",
    "negative": "cut them at 0, or undo centring or scaling.",
}


def _values(check: ValueCheck, rules: Rules, faults: list[Fault]) -> Values | None:
    bad = [kind for kind in _IMPOSSIBLE if kind in check._bad]
    for kind in bad:
        refusal = check._bad_values(kind)
        faults.append(Fault(refusal.what, refusal.where, _IMPOSSIBLE[kind]))
    if rules.counts and "fractional" in check._bad:
        count, first = check._bad["fractional"]
        fix = "round them: adata.X.data = numpy.rint(adata.X.data); give counts, not logarithms."
        faults.append(Fault(f"{count:,} values are not whole numbers.", f"{check.name}, first: {first}", fix))
        bad.append("fractional")
    above = np.flatnonzero(check.totals > (np.inf if rules.max_total is None else rules.max_total))
    if len(above):
        cell = int(above[0])
        where = f"{check.name}, first: row {cell} ({check.labels.of(cell)!r}) with {check.totals[cell]:,.0f}"
        what = f"{len(above)} cells have more than {rules.max_total:,.0f} counts."
        faults.append(Fault(what, where, "scale predicted cells to a plausible depth."))
    if bad:
        return None
    try:
        return check.finish()
    except Refusal as refusal:
        faults.append(Fault.of(refusal))
        return None


def _differences(wanted: Iterable[str], found: Iterable[str]) -> tuple[list[str], list[str]]:
    wanted, found = list(wanted), list(found)
    there, asked = set(found), set(wanted)
    return [name for name in wanted if name not in there], [name for name in found if name not in asked]


def same_file(source: Any, path: str | os.PathLike) -> bool:
    """Whether a path that is to be written is the one that is read."""
    if not isinstance(source, str | os.PathLike) or not os.path.exists(source):
        return False
    return os.path.realpath(source) == os.path.realpath(path)
