"""Opening an h5ad, a zarr store or an AnnData: its tables, and a `Source` of its rows."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse

from ._errors import listing, Refusal, suggestion
from ._group import first_line, open_group
from ._matrix import Source
from ._sources import ColumnSource, CsrSource, DenseSource, ViewSource


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """The tables `obs` and `var` (pandas) of a screen and the source of its rows."""

    name: str
    obs: Any
    var: Any
    source: Source
    notes: tuple[str, ...] = ()


def open_source(source: Any, *, layer: str | None = None, max_memory: int | None = None) -> Opened:
    """What `read_screen` accepts, opened: a path to an h5ad or a zarr store, or an AnnData in memory, backed or a view.

    **Raises:** `Refusal` for a file that is absent, damaged, of another format or of one too old to be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(pathlib.Path(source), layer, max_memory)
    if all(hasattr(source, name) for name in ("obs", "var", "X", "layers", "is_view")):
        return _open_anndata(source, layer, max_memory)
    raise Refusal(
        what=f"A path or an AnnData is expected, got {type(source).__name__}.",
        where="the first argument of `read_screen`",
        why="Labels and gene names are needed beside the values.",
        fix="wrap the values: `anndata.AnnData(X, obs=..., var=...)`.",
    )


def _open_path(path: pathlib.Path, layer: str | None, max_memory: int | None) -> Opened:
    where = "X" if layer is None else f"layers/{layer}"
    with open_group(path) as group:
        obs, var = _read_table(path, group, "obs"), _read_table(path, group, "var")
        if where not in group:
            raise _no_values(str(path), layer, list(group["layers"]) if "layers" in group else [])
        element = group[where]
        kind, shape, dtype = _layout(path, where, element)
    if shape != (len(obs), len(var)):
        raise _shapes(str(path), shape, (len(obs), len(var)))

    @contextlib.contextmanager
    def parts() -> Iterator[Any]:
        with open_group(path) as group:
            element = group[where]
            yield element if kind == "array" else (element["data"], element["indices"], element["indptr"])

    return Opened(str(path), obs, var, _source(str(path), kind, shape, dtype, parts, max_memory))


def _open_anndata(adata: Any, layer: str | None, max_memory: int | None) -> Opened:
    name, shape = "AnnData", (int(adata.n_obs), int(adata.n_vars))
    if layer is not None and layer not in adata.layers:
        raise _no_values(name, layer, list(adata.layers))

    def values(part: Any) -> Any:
        return part.X if layer is None else part.layers[layer]

    matrix: Any = None
    if adata.is_view and shape[0]:
        # The view is asked for a few rows at a time: its `X` as a whole would be a copy of the whole.
        try:
            matrix = values(adata[:1])
            rows = lambda start, stop: values(adata[start:stop])
        except ValueError:  # anndata before 0.13 cannot take a view of a view of a file
            matrix = whole = values(adata)
            rows = lambda start, stop: whole[start:stop]
        if matrix is not None:
            return Opened(name, adata.obs, adata.var, ViewSource(name, shape, np.dtype(matrix.dtype), rows))
    else:
        matrix = values(adata)
    if matrix is None:
        raise _no_values(name, None, list(adata.layers))
    if hasattr(matrix, "group"):  # sparse values of a backed AnnData
        kind, _, dtype = _layout(name, "X", matrix.group)
        group = matrix.group
        parts = (group["data"], group["indices"], group["indptr"])
    elif scipy.sparse.issparse(matrix):
        kind, dtype = matrix.format, matrix.dtype
        if kind not in ("csr", "csc"):
            kind, matrix = "csr", matrix.tocsr()
        parts = (matrix.data, matrix.indices, matrix.indptr)
    elif hasattr(matrix, "shape") and hasattr(matrix, "dtype") and not hasattr(matrix, "dask"):
        kind, dtype, parts = "array", matrix.dtype, matrix
    else:
        raise Refusal(
            what=f"Values held as {type(matrix).__name__} cannot be read.",
            where=f"{name}, {'X' if layer is None else f'layers[{layer!r}]'}",
            why="Cells are read row by row from numpy, scipy, h5py or zarr.",
            fix="load them (`adata = adata.to_memory()`), or give the path of the file.",
        )
    source = _source(name, kind, shape, np.dtype(dtype), lambda: contextlib.nullcontext(parts), max_memory)
    return Opened(name, adata.obs, adata.var, source)


def _source(
    name: str, kind: str, shape: tuple[int, int], dtype: np.dtype, parts: Any, max_memory: int | None
) -> Source:
    if kind == "array":
        return DenseSource(name, shape, dtype, parts)
    return (
        CsrSource(name, shape, dtype, parts) if kind == "csr" else ColumnSource(name, shape, dtype, parts, max_memory)
    )


def _read_table(path: pathlib.Path, group: Any, key: str) -> Any:
    from anndata.io import read_elem

    if key not in group:
        hint = "it looks like a 10x file; " if "matrix" in group else ""
        raise Refusal(
            what=f"There is no table `{key}`: this is not an AnnData file.",
            where=f"{path}, which holds {listing(group, 8) or 'nothing'}",
            why="Without labels and gene names cells cannot be compared.",
            fix=f"{hint}convert it with anndata or scanpy and write it with `adata.write_h5ad(path)`.",
        )
    element = group[key]
    if not hasattr(element, "keys"):
        raise _legacy(path, f"`{key}` is a single array, as anndata before 0.7 wrote it")
    try:
        return read_elem(element)
    except Exception as error:  # one line for the many ways in which an encoding can be unknown
        raise _legacy(path, f"`{key}`: {first_line(error)}") from error


def _layout(path: Any, where: str, element: Any) -> tuple[str, tuple[int, int], np.dtype]:
    """`(csr | csc | array, shape, dtype)` of stored values."""
    if not hasattr(element, "keys"):
        if len(element.shape) != 2:
            raise _shapes(str(path), tuple(element.shape), None)
        return "array", (int(element.shape[0]), int(element.shape[1])), np.dtype(element.dtype)
    encoding = element.attrs.get("encoding-type", element.attrs.get("h5sparse_format", "none"))
    encoding = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
    if (
        encoding[:3] not in ("csr", "csc")
        or shape is None
        or any(k not in element for k in ("data", "indices", "indptr"))
    ):
        raise _legacy(path, f"`{where}` is stored as {encoding!r} with {listing(element, 4) or 'no arrays'}")
    _all_chunks_present(path, where, element["data"])
    return encoding[:3], (int(shape[0]), int(shape[1])), np.dtype(element["data"].dtype)


def _all_chunks_present(path: Any, where: str, array: Any) -> None:
    # A zarr array reads a chunk that was never copied as zeros, without a word.
    present, expected = getattr(array, "nchunks_initialized", None), getattr(array, "nchunks", None)
    if present is not None and expected is not None and present < expected:
        raise Refusal(
            what=f"{expected - present} of {expected} chunks of the stored values are missing.",
            where=f"{path}, {where}/data",
            why="They would be read as zeros.",
            fix="copy the store again, completely.",
        )


def _no_values(name: str, layer: str | None, layers: list) -> Refusal:
    layers = [key for key in layers if key is not None]  # anndata 0.13 lists `X` under the key None
    return Refusal(
        what="There is no `X`." if layer is None else f"There is no layer {layer!r}.{suggestion(layer, layers)}",
        where=f"{name}, with the layers {listing(layers, 8) or '(none)'}",
        why="There are no values to score.",
        fix="name the layer that holds them: `layer=` (`--layer`).",
    )


def _shapes(name: str, shape: tuple[int, ...], expected: tuple[int, int] | None) -> Refusal:
    return Refusal(
        what=f"The values have shape {shape}, the tables say {expected or '(cells, genes)'}.",
        where=name,
        why="Cells or genes would get the labels of others.",
        fix="write the file again from a consistent AnnData.",
    )


def _legacy(path: Any, cause: str) -> Refusal:
    return Refusal(
        what="This file has an encoding that cannot be read.",
        where=f"{path}, {cause}",
        why="Labels or values would have to be guessed.",
        fix="write it again with anndata 0.12 or later: `anndata.read_h5ad(path).write_h5ad(new_path)`.",
    )
