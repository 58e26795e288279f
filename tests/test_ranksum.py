"""The exact rank-sum test, by every engine."""

import importlib.util
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats
from jaxtyping import TypeCheckError

from vcjax.de import rank_sums
from vcjax.de._ranksum import rank_sums_of, statistics
from vcjax.de._ranksum_cells import blocks, cells_of, make_side, sides_of
from vcjax.de._ranksum_device import device_tallies
from vcjax.de._ranksum_host import numba_tallies, numpy_tallies


ENGINES = {"numba": numba_tallies, "numpy": numpy_tallies, "jax": device_tallies}
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
NUMBA = pytest.param("numba", marks=needs_numba)
engines = pytest.mark.parametrize("engine", [NUMBA, "numpy", "jax"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

CELLS, GENES, GROUPS = 160, 12, 5


def screen(dtype=np.float32, *, negative=False, seed=0):
    """Counts with many ties, some of them made continuous, and the group of each cell."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(1.0, (CELLS, GENES)).astype(dtype) - (1 if negative else 0)
    dense[rng.random(dense.shape) < 0.4] = 0
    dense[:, :4] += (dense[:, :4] != 0) * rng.normal(0, 0.2, (CELLS, 4)).astype(dtype)
    dense[:, 4] = np.abs(rng.normal(1, 0.3, CELLS))  # no zeros
    codes = rng.integers(-2, GROUPS, CELLS)
    return dense, codes


def integers(engine, values, codes, groups=GROUPS, reference=None):
    """What an engine hands to the shared finish, genes in order."""
    sides, cells = sides_of(values, codes, groups, reference)
    found = {}
    ENGINES[engine](sides, groups, lambda first, tallies, sums: found.update({first: tallies}), 2)
    return np.concatenate([found[first] for first in sorted(found)]), cells


def brute_force(dense, codes, groups):
    """U by all pairs, and its variance from the sizes of the blocks of ties, both from integers."""
    u, variance = np.zeros((groups, dense.shape[1])), np.zeros((groups, dense.shape[1]))
    for p in range(groups):
        for g in range(dense.shape[1]):
            x, y = dense[codes == p, g], dense[codes == -1, g]
            n, m = len(x), len(y)
            u[p, g] = sum((a > b) + 0.5 * (a == b) for a in x for b in y)
            tied = sum(count**3 - count for count in np.unique(np.concatenate([x, y]), return_counts=True)[1].tolist())
            total = n + m
            if n and m:
                variance[p, g] = n * m * (total**3 - total - tied) / (12 * total * (total - 1))
    return u, variance


@engines
@dtypes
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_agrees_with_all_pairs(engine, dtype, negative, sparse):
    dense, codes = screen(dtype, negative=negative)
    found = rank_sums(scipy.sparse.csr_matrix(dense) if sparse else dense, codes, GROUPS, engine=engine)
    u, variance = brute_force(dense, codes, GROUPS)
    assert np.array_equal(found.u, u)
    assert np.allclose(found.variance, variance, rtol=1e-14, atol=0)
    assert np.array_equal(found.cells, np.bincount(codes[codes >= 0], minlength=GROUPS))
    assert found.control_cells == (codes == -1).sum()


@engines
@dtypes
@pytest.mark.parametrize("continuity", [True, False])
def test_agrees_with_scipy(engine, dtype, continuity):
    dense, codes = screen(dtype, seed=1)
    found = rank_sums(dense, codes, GROUPS, engine=engine)
    log_pvalue, z = found.log_pvalue(continuity), found.z(continuity)
    double = dense.astype(np.float64)
    for p in range(GROUPS):
        theirs: Any = scipy.stats.mannwhitneyu(
            double[codes == p], double[codes == -1], axis=0, method="asymptotic", use_continuity=continuity
        )
        assert np.array_equal(found.u[p], theirs.statistic)
        assert np.allclose(np.exp(log_pvalue[p]), theirs.pvalue, rtol=1e-12, atol=0)
        assert np.allclose(2 * scipy.special.ndtr(-z[p]), theirs.pvalue, rtol=1e-12, atol=0)


@dtypes
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("other", [NUMBA, "jax"])
def test_engines_make_the_same_integers(dtype, negative, other):
    dense, codes = screen(dtype, negative=negative, seed=2)
    ours, cells = integers("numpy", dense, codes)
    theirs, _ = integers(other, dense, codes)
    assert np.array_equal(ours, theirs)
    assert (ours[..., 3].sum() > 0) == (negative or (dense < 0).any())
    for a, b in zip(statistics(ours, cells), statistics(theirs, cells), strict=True):
        assert np.array_equal(a, b)


@engines
def test_zeros_may_be_stored_and_negative(engine):
    dense, codes = screen()
    expected = rank_sums(dense, codes, GROUPS, engine=engine)
    stored = scipy.sparse.csr_matrix(np.ones_like(dense))
    stored.data[:] = dense.ravel()
    stored.data[np.flatnonzero(stored.data == 0)[::2]] = -0.0
    assert stored.nnz == dense.size
    negative_zeros = np.where((dense == 0) & (np.arange(GENES) % 2 == 0), -0.0, dense).astype(np.float32)
    for values in (stored, negative_zeros):
        found = rank_sums(values, codes, GROUPS, engine=engine)
        assert np.array_equal(found.u, expected.u)
        assert np.array_equal(found.variance, expected.variance)


@engines
def test_indices_may_be_unsorted_and_repeated(engine):
    dense, codes = screen()
    tidy = scipy.sparse.csr_matrix(dense)
    rows = np.repeat(np.arange(CELLS), np.diff(tidy.indptr))
    order = np.lexsort([np.random.default_rng(0).random(tidy.nnz), rows])
    untidy = scipy.sparse.csr_matrix((tidy.data[order], tidy.indices[order], tidy.indptr), shape=dense.shape)
    before = untidy.indices.copy()
    # Halves of each value, in two entries of the same place.
    halves = np.repeat(tidy.data / 2, 2), np.repeat(tidy.indices, 2), 2 * tidy.indptr
    repeated = scipy.sparse.csr_matrix(halves, shape=dense.shape)
    expected = rank_sums(dense, codes, GROUPS, engine=engine)
    for values in (untidy, repeated, scipy.sparse.csr_array(tidy)):
        assert np.array_equal(rank_sums(values, codes, GROUPS, engine=engine).u, expected.u)
    assert np.array_equal(untidy.indices, before)
    assert repeated.nnz == 2 * tidy.nnz


@engines
@dtypes
@pytest.mark.parametrize("sparse", [False, True])
def test_control_cells_of_another_matrix(engine, dtype, sparse):
    dense, codes = screen(dtype)
    as_given = scipy.sparse.csr_matrix if sparse else np.asarray
    expected = rank_sums(dense, codes, GROUPS, engine=engine)
    found = rank_sums(
        as_given(dense), np.where(codes == -1, -2, codes), GROUPS, engine=engine, reference=as_given(dense[codes == -1])
    )
    assert np.array_equal(found.u, expected.u)
    assert np.array_equal(found.variance, expected.variance)
    assert found.control_cells == expected.control_cells


def test_control_cells_in_double_beside_single_precision():
    """The wider of both types is what is ranked."""
    dense, codes = screen(np.float32)
    control = dense[codes == -1].astype(np.float64) + 1e-12
    found = rank_sums(dense, np.where(codes == -1, -2, codes), GROUPS, reference=control, engine="numpy")
    joined = np.concatenate([dense.astype(np.float64), control])
    expected = rank_sums(
        joined, np.concatenate([np.where(codes == -1, -2, codes), np.full(len(control), -1)]), GROUPS, engine="numpy"
    )
    assert np.array_equal(found.u, expected.u)


@engines
def test_double_precision_is_not_rounded(engine):
    """Values that are equal in single precision are not ties."""
    values = np.array([[1.0], [1.0 + 1e-12], [1.0], [1.0 - 1e-12]])
    codes = np.array([-1, 0, 0, 0])
    assert rank_sums(values, codes, 1, engine=engine).u[0, 0] == 1.5
    assert rank_sums(values, codes, 1, engine=engine).variance[0, 0] > 0
    assert rank_sums(values.astype(np.float32), codes, 1, engine=engine).variance[0, 0] == 0


@engines
def test_small_groups_and_equal_cells(engine):
    """Groups of no, one and two cells, and genes that are equal in all cells: p = 1, where scipy has NaN."""
    rng = np.random.default_rng(0)
    codes = np.repeat([-1, 1, 2], [9, 1, 2])
    dense = rng.poisson(2.0, (len(codes), 4)).astype(np.float32)
    dense[:, 1], dense[:, 2] = 0, 3
    found = rank_sums(dense, codes, 3, engine=engine)
    u, variance = brute_force(dense, codes, 3)
    assert np.array_equal(found.u, u)
    assert np.allclose(found.variance, variance, rtol=1e-14, atol=0)
    for continuity in (True, False):
        assert np.all(found.log_pvalue(continuity)[:, 1:3] == 0)
        assert np.all(found.z(continuity)[:, 1:3] == 0)
        assert np.all(found.log_pvalue(continuity)[0] == 0)
    assert np.all(found.cells == [0, 1, 2])


@engines
def test_no_control_cells(engine):
    dense, codes = screen()
    found = rank_sums(dense, np.where(codes == -1, -2, codes), GROUPS, engine=engine)
    assert found.control_cells == 0
    assert np.all(found.log_pvalue() == 0)


def test_nothing_to_test():
    dense, codes = screen()
    assert rank_sums(dense, np.where(codes >= 0, -2, codes), 0).u.shape == (0, GENES)
    assert rank_sums(dense[:, :0], codes, GROUPS).u.shape == (GROUPS, 0)


@engines
def test_many_groups_and_long_ranges_of_values(engine):
    """More groups than 16 bits hold, and magnitudes from the smallest to infinite."""
    rng = np.random.default_rng(0)
    groups = 70_000
    codes = np.concatenate([[-1] * 40, [0, 65_535, 69_999, 69_999]])
    values = (rng.choice([-1, 1], (44, 3)) * 10.0 ** rng.uniform(-44, 38, (44, 3))).astype(np.float32)
    values[0, 0], values[40, 0], values[41, 1] = np.inf, np.inf, -np.inf
    found = rank_sums(values, codes, groups, engine=engine)
    some = np.array([0, 65_535, 69_999])
    narrow = codes.copy()
    narrow[40:] = [0, 1, 2, 2]
    u, variance = brute_force(values, narrow, 3)
    assert np.array_equal(found.u[some], u)
    assert np.allclose(found.variance[some], variance, rtol=1e-14, atol=0)


def test_counters_do_not_overflow():
    """Two million cells in one comparison: all tied, and half of them greater than all others."""
    half = 1_000_000
    codes = np.repeat([-1, 0], half)
    values = scipy.sparse.csr_matrix(np.repeat([[1.0, 1.0, 0.0]], 2 * half, axis=0).astype(np.float32))
    values.data[2 * half + 1 :: 2] = 2
    found = rank_sums(values, codes, 1, engine="numpy")
    assert np.array_equal(found.u[0], [half**2 / 2, half**2, half**2 / 2])
    total = 2 * half
    expected = half**2 * (total**3 - total - 2 * (half**3 - half)) / (12 * total * (total - 1))
    assert found.variance[0].tolist() == pytest.approx([0, expected, 0], rel=1e-14, abs=0)
    assert found.z()[0, 1] > 1000
    assert np.isfinite(found.log_pvalue()[0, 1])


def test_too_many_cells():
    codes = np.repeat([-1, 0], [2_097_151, 1])
    values = scipy.sparse.csr_matrix((len(codes), 1), dtype=np.float32)
    with pytest.raises(ValueError, match="2,097,151 cells"):
        rank_sums(values, codes, 1, engine="numpy")


@pytest.mark.parametrize("cells", [3_000, 12_000])
def test_pvalue_is_finite_far_out(cells):
    """Against the expansion of the tail, where the p-value itself underflows."""
    values = np.arange(2 * cells, dtype=np.float32)[:, None] + 1
    found = rank_sums(values, np.repeat([-1, 0], cells), 1, engine="numpy")
    z, log_pvalue = found.z()[0, 0], found.log_pvalue()[0, 0]
    assert z > 60
    tail = 1 - 1 / z**2 + 3 / z**4 - 15 / z**6
    assert log_pvalue == pytest.approx(math.log(2 * tail / (z * math.sqrt(2 * math.pi))) - z * z / 2, rel=1e-13)


@needs_numba
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [1, 2, 47, 48, 49, 300, 5000])
@pytest.mark.parametrize("kind", ["spread", "few", "near", "nearer", "equal"])
def test_sort_is_stable(bits, size, kind):
    """Keys that leading bits tell apart, or do not, or not at all."""
    from vcjax.de._ranksum_numba import _sorted

    rng = np.random.default_rng(size)
    dtype = np.uint32 if bits == 32 else np.uint64
    top = dtype(1 << (bits - 1))
    keys = {
        "spread": rng.integers(0, 2**31, size).astype(dtype) << dtype(bits - 32),
        "few": rng.integers(0, 3, size).astype(dtype) << dtype(bits - 9),
        "near": rng.integers(0, 1000, size).astype(dtype) + top * rng.integers(0, 2, size).astype(dtype),
        "nearer": np.where(rng.random(size) < 0.01, top, rng.integers(0, 4, size).astype(dtype)),
        "equal": np.full(size, 7, dtype),
    }[kind]
    labels = np.arange(size, dtype=np.uint32)
    order = np.argsort(keys, kind="stable")
    k, g = _sorted(keys.copy(), labels, np.empty_like(keys), np.empty_like(labels), np.empty(2**13, np.int32))
    assert np.array_equal(k, keys[order])
    assert np.array_equal(g, order)


SMALL = {
    "numba": {"_ITEMS": 100, "_MOST_ITEMS": 100, "_RANGE": 300, "_GENES": 2},
    "jax": {"_HOST_ITEMS": 100, "_DEVICE_ITEMS": 100, "_FEWEST_ITEMS": 1, "_RANGE": 500},
}


@pytest.mark.parametrize("engine", [NUMBA, "jax"])
def test_ranges_of_genes_make_one_table(monkeypatch, engine):
    """Ranges and blocks of a few genes give what one block gives, sums included."""
    from vcjax.de import _ranksum_device, _ranksum_host

    dense, codes = screen()
    sides, cells = sides_of(scipy.sparse.csr_matrix(dense), codes, GROUPS, None)
    sides = [side._replace(sums="log") for side in sides]
    expected = rank_sums_of(sides, cells, engine="numpy")
    module = _ranksum_device if engine == "jax" else _ranksum_host
    for name, value in SMALL[engine].items():
        monkeypatch.setattr(module, name, value)
    puts = []
    ENGINES[engine](sides, GROUPS, lambda first, tallies, sums: puts.append((first, len(tallies))), 2)
    assert len(puts) > 3
    assert sum(genes for _, genes in puts) == GENES
    found = rank_sums_of(sides, cells, engine=engine, threads=2)
    np.testing.assert_array_equal(found.u, expected.u)
    np.testing.assert_array_equal(found.variance, expected.variance)
    np.testing.assert_allclose(np.asarray(found.sums), np.asarray(expected.sums), rtol=1e-14)


def test_blocks_cover_all_genes_once():
    items = np.array([5, 0, 7, 100, 0, 0, 3, 3, 3, 3])
    found = list(blocks(items, 10, 3))
    assert [first for first, _ in found] == [0, *[last for _, last in found[:-1]]]
    assert found[-1][1] == len(items)
    assert all(items[a:b].sum() <= 10 or b - a == 1 for a, b in found)
    assert all(0 < b - a <= 3 for a, b in found)


def test_integers_and_half_precision():
    dense, codes = screen()
    counts = np.round(np.abs(dense)).astype(np.int64)
    expected = rank_sums(counts.astype(np.float32), codes, GROUPS, engine="numpy")
    for dtype in (np.int64, np.uint8, np.float16):
        assert np.array_equal(rank_sums(counts.astype(dtype), codes, GROUPS, engine="numpy").u, expected.u)


@pytest.mark.parametrize("sums", ["log", "linear"])
@dtypes
@engines
def test_counts_are_normalised_on_the_way(engine, dtype, sums):
    rng = np.random.default_rng(4)
    counts = rng.poisson(0.8, (CELLS, GENES)).astype(dtype)
    codes, divisors = rng.integers(-2, GROUPS, CELLS), rng.lognormal(0, 0.5, CELLS)
    linear = counts / divisors[:, None].astype(dtype)
    logs = np.log1p(linear)
    sides = [make_side(scipy.sparse.csr_matrix(counts), codes + 1, divisors, sums)]
    found = rank_sums_of(sides, cells_of(sides, GROUPS), engine=engine, threads=2)
    expected = rank_sums(scipy.sparse.csr_matrix(logs), codes, GROUPS, engine=engine)
    np.testing.assert_array_equal(found.u, expected.u)
    np.testing.assert_array_equal(found.variance, expected.variance)
    summed = (logs if sums == "log" else linear).astype(np.float64)
    by_group = np.array([summed[codes == group].sum(axis=0) for group in range(-1, GROUPS)])
    assert found.sums is not None
    np.testing.assert_allclose(found.sums, by_group, rtol=1e-13)


def test_input_is_refused():
    dense, codes = screen()
    bad = dense.copy()
    bad[3, 2] = np.nan
    for values in (bad, scipy.sparse.csr_matrix(bad)):
        with pytest.raises(ValueError, match="`values` holds NaN"):
            rank_sums(values, codes, GROUPS)
    with pytest.raises(ValueError, match="`reference` holds NaN"):
        rank_sums(dense, np.maximum(codes, 0), GROUPS, reference=bad)
    with pytest.raises(ValueError, match="must lie between -1 and 3"):
        rank_sums(dense, codes, GROUPS - 1)
    with pytest.raises(ValueError, match="not -1"):
        rank_sums(dense, codes, GROUPS, reference=dense)
    with pytest.raises(ValueError, match="integers"):
        rank_sums(dense, codes[:-1], GROUPS)
    with pytest.raises(ValueError, match="integers"):
        rank_sums(dense, codes.astype(float), GROUPS)
    with pytest.raises(ValueError, match="11"):
        rank_sums(dense, np.maximum(codes, 0), GROUPS, reference=dense[:, 1:])
    with pytest.raises((ValueError, TypeCheckError), match="engine"):
        rank_sums(dense, codes, GROUPS, engine="fortran")  # pyright: ignore[reportArgumentType]


def test_works_without_numba():
    """In a process where numba cannot be imported, `auto` takes numpy, and `numba` says what is missing."""
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from vcjax.de import rank_sums
print(rank_sums(np.array([[1.0], [2.0]]), np.array([-1, 0]), 1).u[0, 0])
try:
    rank_sums(np.array([[1.0], [2.0]]), np.array([-1, 0]), 1, engine="numba")
except ImportError as error:
    print("vcjax[de]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "True"]
