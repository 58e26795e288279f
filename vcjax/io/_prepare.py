"""A prediction packed for submission: checked, reduced to what is asked for, compressed."""

import dataclasses
import os
import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from ._challenge import CELL_EVAL_PREP, Rules
from ._errors import Refusal
from ._matrix import BLOCK_ENTRIES
from ._submission import check_submission, same_file, Submission


MEMBER = "pred.h5ad.zst"
WATERMARK = ("watermark.txt", b"vcc-prep")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was written: the `path`, numbers of cells, genes, perturbations and stored values, the scale, notes."""

    path: str
    cells: int
    genes: int
    perturbations: int
    entries: int
    scale: str
    notes: tuple[str, ...]


def prepare_submission(
    source: Any,
    path: str | os.PathLike,
    genes: Sequence[str],
    *,
    rules: Rules = CELL_EVAL_PREP,
    perts: Mapping[str, int | None] | None = None,
    pert_col: str | None = None,
    context_col: str | None = None,
    control: str = "non-targeting",
    output_pert_col: str = "target_gene",
    output_context_col: str = "celltype",
    encoding: int = 32,
    keep_counts: bool = False,
    gene_col: str | None = None,
    layer: str | None = None,
    force: bool = False,
    threads: int = -1,
    max_memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Prepared:
    """Writes the `.vcc` archive of `cell-eval prep`: a tar of `pred.h5ad.zst` and `watermark.txt`.

    The h5ad in it has the values, in sparse rows with the genes in the order of the list, and the labels of the cells.
    Counts are log-normalised, scaled to their median total, as cell-eval does it, unless the rules ask for counts or
    `keep_counts` says so. Cells are read in blocks, and nothing is at `path` before it is complete.

    **Arguments:**

    - `genes`, `rules`, `perts`, `pert_col`, `context_col`, `control`, `gene_col`, `layer`: see `check_submission`.
    - `output_pert_col`, `output_context_col`: names of the columns that are written.
    - `encoding`: bits of a value, 32 or 64. `threads`: of the compression, -1 for all cores.
    - `force`: replace the file at `path`. `progress`: called as `progress(stage, done, total)`.

    **Raises:** `Refusal` for a submission that breaks the rules, for a `path` that is the input or is taken, and where
    the package zstandard is missing. `ValueError` for another encoding.
    """
    if encoding not in (32, 64):
        raise ValueError(f"The encoding is 32 or 64, got {encoding}.")
    path = pathlib.Path(path)
    _check_path(source, path, force=force)
    compressor = _compressor(threads)
    submission = check_submission(
        source,
        rules,
        genes=genes,
        perts=perts,
        pert_col=pert_col,
        context_col=context_col,
        control=control,
        gene_col=gene_col,
        layer=layer,
        max_memory=max_memory,
        progress=progress,
    )
    normalise = submission.values.scale == "counts" and not (rules.counts or keep_counts)
    dtype = np.dtype(np.float64 if encoding == 64 else np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=".vcjax-", dir=path.parent))
    try:
        plain, packed, archive = staging / "pred.h5ad", staging / MEMBER, staging / "archive.vcc"
        names = (output_pert_col, output_context_col)
        _write_h5ad(submission, plain, names, _blocks(submission, dtype, normalise), dtype, progress)
        with open(plain, "rb") as read, open(packed, "wb") as write:
            compressor.copy_stream(read, write, size=plain.stat().st_size)
        plain.unlink()
        (staging / WATERMARK[0]).write_bytes(WATERMARK[1])
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            for member in (MEMBER, WATERMARK[0]):
                tar.add(staging / member, member, filter=_anonymous)
        os.replace(archive, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    note = ("counts were log-normalised, scaled to their median total",) if normalise else ()
    return Prepared(
        path=str(path),
        cells=submission.matrix.shape[0],
        genes=len(submission.genes),
        perturbations=len(submission.labels.perts),
        entries=submission.entries,
        scale="lognorm" if normalise else submission.values.scale,
        notes=(*submission.notes, *note, rules.disclaimer),
    )


def _check_path(source: Any, path: pathlib.Path, *, force: bool) -> None:
    same = same_file(source, path)
    if same or (path.exists() and not force):
        raise Refusal(
            what="The submission would be written over the input." if same else "The file exists.",
            where=str(path),
            why="The data would be lost.",
            fix="name another file: path= / --output."
            if same
            else "name another file, or allow it: force=True / --force.",
        )


def _compressor(threads: int) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise Refusal(
            what="The package zstandard is not installed.",
            where="prepare_submission / vcjax prep",
            why="A submission is compressed with it.",
            fix="pip install 'vcjax[submit]'.",
        ) from error
    return zstandard.ZstdCompressor(threads=threads)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same archive from the same cells, whoever packs it and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _blocks(submission: Submission, dtype: np.dtype, normalise: bool) -> Iterator[scipy.sparse.csr_matrix]:
    """The values in the dtype in which they are written; the logarithm is taken in it, too."""
    totals = submission.values.totals
    positive = totals[totals > 0]
    divisors = totals / (float(np.median(positive)) if len(positive) else 1.0)
    for start, block in submission.matrix.chunks(BLOCK_ENTRIES):
        lengths = np.diff(block.indptr)
        values = block.data.astype(dtype, copy=False)
        if normalise:
            values = np.log1p(values / np.repeat(divisors[start : start + len(lengths)].astype(dtype), lengths))
        yield scipy.sparse.csr_matrix((values, block.indices, block.indptr), block.shape)


def _write_h5ad(
    submission: Submission,
    path: pathlib.Path,
    names: tuple[str, str],
    blocks: Iterator[scipy.sparse.csr_matrix],
    dtype: np.dtype,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    import anndata
    import h5py
    import pandas as pd

    labels, shape = submission.labels, submission.matrix.shape
    columns = {names[0]: pd.Categorical(np.array([*labels.perts, labels.control], object)[labels.codes])}
    if labels.context_codes is not None:
        columns[names[1]] = pd.Categorical(np.array(labels.contexts, object)[labels.context_codes])
    # Plain strings: readers of older versions do not know the nullable ones that pandas would choose.
    obs = pd.DataFrame(columns, index=pd.Index([str(i) for i in range(shape[0])], dtype=object))
    var = pd.DataFrame(index=pd.Index(list(submission.genes), dtype=object))
    anndata.AnnData(scipy.sparse.csr_matrix(shape, dtype=dtype), obs=obs, var=var).write_h5ad(path)
    wide = max(submission.entries, shape[1]) >= 2**31
    with h5py.File(path, "r+") as file:
        group: Any = file["X"]
        for key in ("data", "indices", "indptr"):
            del group[key]
        data = group.create_dataset("data", (submission.entries,), dtype)
        indices = group.create_dataset("indices", (submission.entries,), np.int64 if wide else np.int32)
        start, lengths = 0, [np.zeros(1, np.int64)]
        cells = 0
        for block in blocks:
            data[start : start + block.nnz], indices[start : start + block.nnz] = block.data, block.indices
            start, cells = start + block.nnz, cells + len(block.indptr) - 1
            lengths.append(np.diff(block.indptr))
            if progress is not None:
                progress("packing", cells, shape[0])
        ends = np.cumsum(np.concatenate(lengths), dtype=np.int64)
        group.create_dataset("indptr", data=ends if wide else ends.astype(np.int32))
