"""Screens to summaries on the host: exact sums, sampling noise, files."""

import dataclasses
import importlib.util
import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from helpers import shared_path
from screens import refused, screen_of

import vcjax.io._noise
from vcjax._pseudobulk import analytic_noise, bulk_lognorm, bulk_sums, jackknife_noise, log_normalise, pseudobulk
from vcjax.io import load_summary, read_screen, Refusal, summarise, Summary
from vcjax.io._pseudobulk import compiled_loops


V1 = ("mse", "mae", "mse_delta", "mae_delta")


def cells(n_cells, n_genes, seed=0, depth=4.0):
    """Counts with empty cells, empty genes, a dominant cell and libraries of very different size."""
    rng = np.random.default_rng(seed)
    rates = rng.lognormal(-1.0, 1.5, n_genes) * (rng.random(n_genes) > 0.1)
    library = rng.lognormal(0, 1, n_cells)
    counts = rng.poisson(depth * library[:, None] * rates * rng.gamma(2, 0.5, (n_cells, n_genes)))
    counts[rng.choice(n_cells, n_cells // 20, replace=False)] = 0
    counts[3] *= 50
    return counts.astype(np.float32)


LABELS = np.array(["non-targeting"] * 150 + ["A"] * 220 + ["B"] * 12 + ["C"] * 2 + ["D"], object)
GENES = ("A", "D", *(f"G{i}" for i in range(78)))


@pytest.fixture(scope="module")
def counts():
    return cells(len(LABELS), len(GENES))


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).permutation(LABELS)


@pytest.fixture(scope="module")
def screen(counts, labels):
    return read_screen(screen_of(scipy.sparse.csr_matrix(counts), labels, GENES), input_type="counts")


def assert_close(actual: Any, desired: Any, rtol: float) -> None:
    np.testing.assert_allclose(actual, desired, rtol=rtol)


def jackknife_by_hand(counts, target_sum):
    """The definition, cell by cell; deviations from the profile itself, because only they keep the digits."""
    counts = counts.astype(np.float64)
    n, sums = len(counts), counts.sum(axis=0)
    if n < 2 or sums.sum() == 0:
        return 0.0
    bulk = np.log1p(target_sum * sums / sums.sum())
    rest = sums.sum() - counts.sum(axis=1)
    left_out = [np.log1p(target_sum * (sums - y) / r) if r else 0 * sums for y, r in zip(counts, rest, strict=True)]
    deviation = np.array(left_out) - bulk
    return (n - 1) / n * np.sum((deviation - deviation.mean(axis=0)) ** 2)


def groups_of(summary, labels):
    return [*(labels == pert for pert in summary.perts), labels == "non-targeting"]


def everything(summary):
    """Profiles and noise with the control as the last row."""
    return np.vstack([summary.mean, summary.control]), np.append(summary.noise, summary.control_noise)


@pytest.mark.parametrize("max_entries", [1, 500, 4_000_000])
def test_bulk_profiles_and_their_jackknife_are_the_definition(counts, labels, screen, max_entries):
    summary = summarise(screen, space="bulk_lognorm", max_entries=max_entries)
    mean, noise = everything(summary)
    for row, members in enumerate(groups_of(summary, labels)):
        sums = counts[members].sum(axis=0, dtype=np.float64)
        assert_close(mean[row], np.log1p(5e4 * sums / sums.sum()), rtol=1e-14)
        assert_close(noise[row], jackknife_by_hand(counts[members], 5e4), rtol=1e-11)
    assert summary.target_sum == 5e4
    assert summary.space == "bulk_lognorm"


@pytest.mark.parametrize("target_sum", [1.0, 1e4, 1e6])
@pytest.mark.parametrize("n_cells", [2, 3, 9, 25, 400])
def test_the_jackknife_holds_for_every_size_of_group_and_library(n_cells, target_sum):
    counts = cells(max(n_cells, 20), 30, seed=n_cells, depth=20)[-n_cells:]
    adata = screen_of(counts, np.full(n_cells, "A", object), [f"G{i}" for i in range(30)])
    screen = read_screen(adata, input_type="counts", require_control=False)
    noise = summarise(screen, space="bulk_lognorm", target_sum=target_sum).noise
    assert_close(noise, [jackknife_by_hand(counts, target_sum)], rtol=1e-11)


@pytest.mark.parametrize("largest", [1e-5, 1e-3, 0.03, 0.099, 0.1])
def test_the_power_series_is_the_logarithm(largest):
    rng = np.random.default_rng(0)
    delta = largest * rng.random(50)
    delta[0] = largest
    u = np.append(rng.random(20), [0.0, 1.0, 1e-9])
    first, second = vcjax.io._noise._series(u, delta)
    exact = np.log1p(np.multiply.outer(delta, u))
    assert_close(first, exact.sum(axis=0), rtol=1e-14)
    assert_close(second, (exact**2).sum(axis=0), rtol=1e-14)


def test_a_cell_that_carries_its_group_alone_leaves_a_zero_profile():
    counts = np.array([[5, 3], [0, 0], [0, 0], [1, 2], [2, 2]], np.float32)
    labels = np.array(["A", "A", "A", "non-targeting", "non-targeting"], object)
    screen = read_screen(screen_of(counts, labels, ("G0", "G1")), input_type="counts")
    noise = summarise(screen, space="bulk_lognorm").noise
    assert noise is not None
    assert_close(noise[0], jackknife_by_hand(counts[:3], 5e4), rtol=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs numba")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_loops_find_what_numpy_finds(dtype, monkeypatch):
    matrix = cells(90, 40, seed=3).astype(dtype)
    matrix[:2] *= 50  # cells that carry most of their group
    names = np.array([*"aabbbb", *["c"] * 40, *["non-targeting"] * 44])
    adata = screen_of(scipy.sparse.csr_matrix(matrix), names, [f"G{i}" for i in range(40)])
    many = read_screen(adata, input_type="counts")
    summary = lambda: summarise(many, space="bulk_lognorm", max_entries=500)
    plain = summary()
    assert compiled_loops(many.matrix) is None
    for name in ("_MANY", "_MORE"):
        monkeypatch.setattr(f"vcjax.io._pseudobulk.{name}", 0)
    assert compiled_loops(many.matrix) is not None
    compiled = summary()
    np.testing.assert_array_equal(compiled.mean, plain.mean)
    np.testing.assert_array_equal(compiled.control, plain.control)
    for ours, theirs in ((compiled.noise, plain.noise), (compiled.control_noise, plain.control_noise)):
        assert_close(ours, theirs, rtol=1e-13)


def test_groups_of_one_cell_have_no_noise(screen):
    for space in ("lognorm", "bulk_lognorm"):
        summary = summarise(screen, space=space)
        assert summary.noise is not None
        assert summary.noise[summary.perts.index("D")] == 0
        assert np.all(summary.noise[:3] > 0)


@pytest.mark.parametrize("max_entries", [1, 500, 4_000_000])
def test_lognorm_profiles_average_cells_with_the_bits_of_scanpy(counts, labels, screen, max_entries):
    summary = summarise(screen, space="lognorm", target_sum=1e4, max_entries=max_entries)
    totals = counts.sum(axis=1, keepdims=True)
    cells = np.log1p(counts / np.where(totals > 0, totals / np.float32(1e4), np.float32(1)))
    assert cells.dtype == np.float32
    mean, noise = everything(summary)
    for row, members in enumerate(groups_of(summary, labels)):
        values = cells[members].astype(np.float64)
        assert_close(mean[row], values.mean(axis=0), rtol=1e-14)
        expected = np.trace(np.cov(values.T)) / len(values) if len(values) > 1 else 0.0
        assert_close(noise[row], expected, rtol=1e-12)


def test_the_default_library_size_is_the_median_of_the_cells_that_are_kept(counts, labels, screen):
    totals = counts.sum(axis=1)
    expected = np.median(totals[totals > 0])
    assert summarise(screen, space="lognorm").target_sum == expected
    first = np.where(np.arange(len(labels)) % 2, "first", "second")
    split = read_screen(
        screen_of(counts, labels, GENES, line=first), context_col="line", input_type="counts", drop_unlabelled=True
    )
    part = summarise(split, space="lognorm", context="first").target_sum
    assert part == np.median(totals[(totals > 0) & (first == "first")])


def test_lognorm_cells_are_averaged_as_they_are(counts, labels):
    log = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e3)
    screen = read_screen(screen_of(scipy.sparse.csr_matrix(log), labels, GENES), input_type="lognorm")
    summary = summarise(screen, space="lognorm")
    assert_close(summary.mean[0], log[labels == "A"].mean(axis=0, dtype=np.float64), rtol=1e-14)
    assert summary.target_sum is None
    assert summary.scale == "lognorm"


def test_the_layout_of_the_matrix_does_not_matter(counts, labels, screen):
    expected = summarise(screen, space="bulk_lognorm")
    for matrix in (counts, scipy.sparse.csc_matrix(counts), counts.astype(np.float64), counts.astype(np.int32)):
        other = summarise(read_screen(screen_of(matrix, labels, GENES), input_type="counts"), space="bulk_lognorm")
        assert_close(other.mean, expected.mean, rtol=1e-14)
        assert_close(other.noise, expected.noise, rtol=1e-11)


def test_jax_and_host_agree(counts, labels, screen):
    groups = np.select([labels == pert for pert in screen.perts], range(len(screen.perts)), -1)
    cells, size = jnp.asarray(counts, jnp.float64), len(screen.perts)
    bulk = summarise(screen, space="bulk_lognorm")
    assert_close(bulk_lognorm(bulk_sums(cells, groups, size)), bulk.mean, rtol=1e-12)
    assert_close(jackknife_noise(cells, groups, size), bulk.noise, rtol=1e-9)
    log = summarise(screen, space="lognorm")
    normalised = log_normalise(cells)
    assert_close(pseudobulk(normalised, groups, size), log.mean, rtol=1e-6)
    assert_close(analytic_noise(normalised, groups, size), log.noise, rtol=1e-6)


def test_a_context_keeps_its_own_cells_and_every_row(counts, labels):
    line = np.where((np.arange(len(labels)) % 2 == 0) & (labels != "D"), "x", "y")
    whole = read_screen(screen_of(counts, labels, GENES, line=line), context_col="line", input_type="counts")
    part = summarise(whole, space="bulk_lognorm", context="x")
    alone = read_screen(screen_of(counts[line == "x"], labels[line == "x"], GENES), input_type="counts")
    expected = summarise(alone, space="bulk_lognorm")
    assert part.perts == ("A", "B", "C", "D")
    kept = [part.perts.index(pert) for pert in expected.perts]
    assert_close(part.mean[kept], expected.mean, rtol=1e-14)
    np.testing.assert_array_equal(part.cells[kept], expected.cells)
    assert_close(part.control_noise, expected.control_noise, rtol=1e-11)
    absent = part.perts.index("D")
    assert part.cells[absent] == 0
    assert np.all(np.isnan(part.mean[absent]))


def test_cells_without_a_label_count_nowhere(counts, labels):
    some = labels.copy()
    some[::7] = None
    partial = read_screen(screen_of(counts, some, GENES), input_type="counts", drop_unlabelled=True)
    kept = np.array([label is not None for label in some])
    alone = read_screen(screen_of(counts[kept], labels[kept], GENES), input_type="counts")
    left = summarise(partial, space="bulk_lognorm")
    right = summarise(alone, space="bulk_lognorm")
    assert_close(left.mean, right.mean, rtol=1e-14)
    assert_close(left.noise, right.noise, rtol=1e-11)
    assert summarise(partial, space="lognorm").target_sum == summarise(alone, space="lognorm").target_sum


def test_a_screen_without_totals_is_walked_over_once_more(screen):
    bare = dataclasses.replace(screen, totals=None)
    for space in ("lognorm", "bulk_lognorm"):
        assert summarise(bare, space=space).fingerprint == summarise(screen, space=space).fingerprint


@pytest.mark.parametrize(
    ("space", "noise", "walks"),
    [("lognorm", True, 2), ("bulk_lognorm", True, 3), ("bulk_lognorm", False, 1)],
)
def test_progress_runs_from_nothing_to_all_cells_of_all_walks(screen, space, noise, walks):
    seen = []
    bare = dataclasses.replace(screen, totals=None)
    summarise(bare, space=space, noise=noise, max_entries=2000, progress=lambda *done: seen.append(done))
    done, total = np.array(seen).T
    assert np.all(np.diff(done) > 0)
    assert set(total) == {walks * len(screen.codes)}
    assert done[-1] == total[-1]


def test_names_resolve_to_target_genes(screen):
    np.testing.assert_array_equal(summarise(screen, space="lognorm").targets, [0, -1, -1, 1])
    given = summarise(screen, space="lognorm", targets=np.array([3, 2, 1, -1]))
    np.testing.assert_array_equal(given.targets, [3, 2, 1, -1])


def test_a_side_without_control_takes_that_of_the_other(counts, labels, screen):
    real = summarise(screen, space="bulk_lognorm")
    kept = labels != "non-targeting"
    bare = read_screen(screen_of(counts[kept], labels[kept], GENES), input_type="counts", require_control=False)
    pred = summarise(bare, space="bulk_lognorm")
    assert pred.control is None
    assert pred.control_noise is None
    with refused("with_control_of"):
        pred.to_profiles()
    borrowed = pred.with_control_of(real)
    np.testing.assert_array_equal(borrowed.to_profiles().control, real.control)
    assert borrowed.control_cells == real.control_cells
    with pytest.raises(ValueError, match="same space"):
        pred.with_control_of(summarise(screen, space="lognorm"))


def test_effects_given_as_such_need_no_control():
    effects = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    adata = screen_of(effects, np.array(["A", "A", "B", "B", "B", "A"], object), ("A", "B", "C"))
    screen = read_screen(adata, input_type="delta", require_control=False)
    summary = summarise(screen, space="lognorm")
    assert summary.space == "delta"
    assert_close(summary.mean[0], effects[[0, 1, 5]].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(summary.control, np.zeros(3))


def test_profiles_hold_what_the_summary_holds(screen):
    summary = summarise(screen, space="bulk_lognorm")
    profiles = summary.to_profiles()
    assert profiles.mean.dtype == jnp.float64
    np.testing.assert_array_equal(profiles.mean, summary.mean)
    np.testing.assert_array_equal(profiles.total_noise(), summary.noise)
    np.testing.assert_array_equal(profiles.targets, summary.targets)
    np.testing.assert_array_equal(profiles.cells, summary.cells)
    assert profiles.target_sum == 5e4
    assert profiles.space == "bulk_lognorm"
    silent = summarise(screen, space="bulk_lognorm", noise=False).to_profiles()
    assert silent.noise is None
    assert silent.control_noise is None


@pytest.mark.parametrize("noise", [True, False])
def test_a_saved_summary_comes_back_whole(tmp_path, screen, noise):
    summary = summarise(screen, space="lognorm", noise=noise)
    summary.save(tmp_path / "real.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["real.npz"]
    back = load_summary(tmp_path / "real.npz")
    assert back.fingerprint == summary.fingerprint
    for field in dataclasses.fields(Summary):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(summary, field.name))
    bare = dataclasses.replace(summary, control=None, control_cells=0, control_noise=None)
    bare.save(tmp_path / "real.npz")
    assert load_summary(tmp_path / "real.npz").control is None


def test_a_failed_save_leaves_the_old_file(tmp_path, screen, monkeypatch):
    summary = summarise(screen, space="lognorm")
    summary.save(tmp_path / "real.npz")
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dataclasses.replace(summary, target_sum=1.0).save(tmp_path / "real.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["real.npz"]
    assert load_summary(tmp_path / "real.npz").fingerprint == summary.fingerprint


def test_the_fingerprint_is_of_values_and_names(screen):
    summary = summarise(screen, space="lognorm")
    changed = summary.mean.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.inf)
    others = [
        dataclasses.replace(summary, mean=changed),
        dataclasses.replace(summary, genes=(*summary.genes[:-1], "other")),
        dataclasses.replace(summary, noise=None),
        dataclasses.replace(summary, target_sum=1.0),
    ]
    assert len({summary.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert dataclasses.replace(summary, mean=summary.mean.copy()).fingerprint == summary.fingerprint


def test_files_that_are_no_whole_summary_are_refused(tmp_path, screen):
    path = tmp_path / "x.npz"
    summarise(screen, space="lognorm").save(path)
    content = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    array_file = tmp_path / "array.npy"
    np.save(array_file, np.zeros(3))
    faults = {
        "a text": lambda: path.write_text("perturbation,mse\n"),
        "nothing": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[: len(content) // 2]),
        "another npz": lambda: np.savez(path, mean=np.zeros(3)),
        "an array": lambda: path.write_bytes(array_file.read_bytes()),
        "a later version": lambda: np.savez(
            path, **{**arrays, "header": np.array(str(arrays["header"]).replace('"version": 2', '"version": 3'))}
        ),
        "an altered value": lambda: np.savez(path, **{**arrays, "mean": arrays["mean"] + 1e-9}),
    }
    for fault, write in faults.items():
        write()
        with pytest.raises(Refusal) as caught:
            load_summary(path)
        assert str(path) in str(caught.value), fault


def test_what_cannot_be_summarised_is_refused(counts, labels, screen):
    log = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e3)
    logs = read_screen(screen_of(log, labels, GENES), input_type="lognorm")
    with refused("not counts", "space='lognorm'"):
        summarise(logs, space="bulk_lognorm")
    with refused("no context 'K562'", "--context-col"):
        summarise(screen, space="lognorm", context="K562")
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="`target_sum` must be positive"):
            summarise(screen, space="lognorm", target_sum=wrong)
    with pytest.raises(ValueError, match="`space` must be"):
        inspect.unwrap(summarise)(screen, space="log")  # without the type checker of the test run


@pytest.mark.parametrize("pair", ["pair_24x400", "papalexi_halves"])
class TestPeers:
    """Against numbers of the published packages, each metric written out in numpy."""

    def test_bulk_profiles_and_noise_are_those_of_cell_eval2(self, pair):
        folder = shared_path(f"reference/{pair}")
        pred, real = (
            summarise(read_screen(folder / f"{side}.h5ad"), space="bulk_lognorm", max_entries=50_000)
            for side in ("pred", "real")
        )
        assert pred.noise is not None
        assert real.noise is not None
        assert real.control is not None
        assert real.control_noise is not None
        measured = real.targets >= 0
        scored = np.ones(real.mean.shape, bool)
        scored[np.flatnonzero(measured), real.targets[measured]] = False
        genes = scored.sum(axis=1)
        error, effect = (pred.mean - real.mean) ** 2, (real.mean - real.control) ** 2
        ours = {
            "expr_mse": error.mean(axis=1),
            "expr_mae": np.abs(pred.mean - real.mean).mean(axis=1),
            "expr_mse_unbiased": ((error * scored).sum(axis=1) - pred.noise - real.noise) / genes,
            "expr_distance_unbiased": ((effect * scored).sum(axis=1) - real.noise - real.control_noise) / genes,
        }
        theirs = _columns(folder / "v2_full.csv")
        for metric, values in ours.items():
            expected = [theirs[pert, metric] for pert in real.perts]
            assert_close(values, expected, rtol=1e-11)

    def test_lognorm_profiles_in_float32_have_the_bits_of_cell_eval(self, pair):
        folder = shared_path(f"reference/{pair}")
        pred, real = (
            summarise(read_screen(folder / f"{side}_lognorm.h5ad"), space="lognorm", max_entries=50_000)
            for side in ("pred", "real")
        )
        assert pred.control is not None
        assert real.control is not None
        (mean, control), (other, other_control) = (
            (x.mean.astype(np.float32), np.asarray(x.control, np.float32)) for x in (pred, real)
        )
        ours = {
            "mse": ((mean - other) ** 2).mean(axis=1),
            "mae": np.abs(mean - other).mean(axis=1),
            "mse_delta": (((mean - control) - (other - other_control)) ** 2).mean(axis=1),
            "mae_delta": np.abs((mean - control) - (other - other_control)).mean(axis=1),
        }
        theirs = _columns(folder / "v1_full.csv")
        for metric, values in ours.items():
            expected = [theirs[pert, metric] for pert in real.perts]
            # One float32 rounding of the final mean, which may be summed in another order.
            assert_close(values, expected, rtol=3e-7)
        assert np.mean(ours["mse"] == [theirs[pert, "mse"] for pert in real.perts]) > 0.9


def _columns(path):
    """`{(perturbation, metric): value}` of a table in either layout."""
    import csv

    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if "metric" in rows[0]:
        return {(row["perturbation"], row["metric"]): float(row["value"]) for row in rows}
    return {(row["perturbation"], name): float(row[name]) for row in rows for name in V1}
