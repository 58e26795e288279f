"""Rows held in few bytes against the same matrix of scipy."""

import contextlib
import importlib.util
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from screens import dense, screen_of

from vcjax.io import read_screen
from vcjax.io._held import GrowingRows, NarrowRows
from vcjax.io._matrix import BlockMatrix
from vcjax.io._pseudobulk import compiled_loops
from vcjax.io._sources import CsrSource


pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")

WIDE = 70_000  # more columns than two bytes can number


def grown(blocks, columns, dtype: Any = np.float64):
    rows = GrowingRows(columns, narrow=True)
    for block in blocks:
        rows.append(block)
    return rows.narrow(np.dtype(dtype))


def blocks_of(values):
    """Three blocks, one of them without entries."""
    csr: Any = scipy.sparse.csr_matrix(values)
    return csr[:3], scipy.sparse.csr_matrix((1, csr.shape[1]), dtype=csr.dtype), csr[3:]


def counts(columns=40, dtype: Any = np.float32):
    values = np.random.default_rng(0).poisson(0.6, (9, columns)).astype(dtype)
    values[4] = 0
    return values


def whole(values):
    return np.insert(values, 3, 0, axis=0)


@pytest.mark.parametrize("columns", [40, WIDE])
def test_cuts_are_those_of_scipy(columns):
    values = counts(columns)
    held, expected = grown(blocks_of(values), columns), scipy.sparse.csr_matrix(whole(values))
    assert held.shape == expected.shape
    rows = np.array([7, 0, 3, 7])
    for ours, theirs in (
        (held[rows], expected[rows]),
        (held[:, 5:17], expected[:, 5:17]),
        (held[:, :columns], expected),
        (held[:, 9:9], expected[:, 9:9]),
        (held.only(np.array([1, 3, 8]))[:, 2:], expected[[1, 3, 8]][:, 2:]),
    ):
        assert ours.dtype == np.float64
        assert ours.has_canonical_format
        assert ours.shape == theirs.shape
        assert np.array_equal(ours.toarray(), theirs.toarray())


@pytest.mark.parametrize("odd", [0.5, -1.0, 65_536.0, 1e20])
def test_values_that_do_not_fit_are_held_as_they_came(odd):
    values = counts()
    values[7, 3] = odd  # in the last block: what came before was narrow
    held = grown(blocks_of(values), 40, np.float32)
    assert held.data.dtype == np.float32
    assert np.array_equal(held[np.arange(10)].toarray(), whole(values))


def test_small_whole_numbers_take_two_bytes():
    values = counts(dtype=np.float64)
    values[0, 0] = 65_535
    held = grown(blocks_of(values), 40)
    assert held.data.dtype == held.indices.dtype == np.uint16
    assert held[np.arange(10)].toarray()[0, 0] == 65_535
    assert grown(blocks_of(counts(WIDE)), WIDE).indices.dtype == np.int32


@pytest.mark.parametrize("entries", [0, 3, 10_000])
def test_a_wrong_guess_of_the_size_changes_nothing(entries):
    values = counts()
    values[7, 3] = 0.5
    rows = GrowingRows(40, entries, narrow=True)
    for block in blocks_of(values):
        rows.append(block)
    held = rows.narrow(np.dtype(np.float32))
    assert len(held.data) == len(held.indices) == np.count_nonzero(values)
    assert np.array_equal(held[np.arange(10)].toarray(), whole(values))


class Counted(CsrSource):
    """Rows of a matrix, and how often they were read."""

    walks = 0

    def blocks(self, max_entries):
        self.walks += 1
        yield from super().blocks(max_entries)


def kept(values, **options):
    csr: Any = scipy.sparse.csr_matrix(values)
    parts = lambda: contextlib.nullcontext((csr.data, csr.indices, csr.indptr))
    source = Counted("a matrix", csr.shape, csr.dtype, parts)
    matrix = BlockMatrix(source, **options)
    matrix.keep = True
    return matrix, source


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rows_that_are_kept_are_read_once_and_have_their_bits(dtype):
    values = counts(dtype=dtype) if dtype == np.int64 else np.log1p(counts(dtype=dtype))
    matrix, source = kept(values)
    first = list(matrix.chunks(20))
    again = list(matrix.chunks(20))
    assert source.walks == 1
    assert isinstance(matrix.kept, NarrowRows)
    assert len(first) == len(again) > 2
    for (start, block), (where, same) in zip(first, again, strict=True):
        assert start == where
        assert block.dtype == same.dtype
        assert block.indices.dtype == same.indices.dtype
        assert same.has_canonical_format
        assert np.array_equal(block.toarray(), same.toarray())
    matrix.let_go()
    assert np.array_equal(dense(matrix), values)
    assert np.array_equal(dense(matrix), values)
    assert matrix.kept is None
    assert source.walks == 3


def test_a_walk_that_is_not_finished_leaves_nothing():
    matrix, source = kept(counts())
    next(matrix.chunks(20))
    assert matrix.kept is None
    assert np.array_equal(dense(matrix), counts())
    assert source.walks == 2


def test_what_is_kept_has_been_repaired():
    values = counts()
    columns = np.arange(40)[::-1].astype(np.int32)
    columns[5] = -1
    matrix, _ = kept(values, columns=columns, n_columns=40)
    expected = np.zeros_like(values)
    expected[:, columns[columns >= 0]] = values[:, columns >= 0]
    assert np.array_equal(dense(matrix), expected)
    assert np.array_equal(dense(matrix), expected)
    assert matrix.kept is not None
    selected = matrix.select(np.arange(40), 40)
    assert selected.kept is None
    assert np.array_equal(dense(selected), expected)


def test_only_a_checked_and_large_screen_is_kept(monkeypatch):
    adata = screen_of(scipy.sparse.csr_matrix(counts(6)[:, :6] + 1))
    large = lambda **options: read_screen(adata, input_type="counts", **options).matrix
    assert large(keep=True).kept is None
    monkeypatch.setattr("vcjax.io._pseudobulk._MANY", 0)
    assert large().kept is None
    assert large(keep=True, check=False).kept is None
    matrix = large(keep=True)
    assert matrix.kept is not None
    # Loops are loaded for the test of what is kept; for sums alone the screen is not large enough.
    assert compiled_loops(matrix) is not None
    assert compiled_loops(large()) is None
