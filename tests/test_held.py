"""Rows held in few bytes against the same matrix of scipy."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from vcjax.io._held import GrowingRows, NarrowRows


pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")

WIDE = 70_000  # more columns than two bytes can number


def grown(blocks, columns, dtype: Any = np.float64):
    from vcjax.io import _loops

    rows = GrowingRows(columns, _loops)
    for block in blocks:
        rows.append(block)
    held = rows.matrix(np.dtype(dtype))
    assert isinstance(held, NarrowRows)
    return held


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
