"""Similarities of perturbations, their combination over data sets, and kernel ridge regression by names."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax.baselines._interface import PertData
from vcjax.baselines._kernel_combine import combine_kernels
from vcjax.baselines._kernel_ridge import KernelRidge
from vcjax.baselines._relatedness import NamedKernel, relate
from vcjax.baselines._similarity import similarity


pytestmark = pytest.mark.slow  # refits, and gradients through them


RNG = np.random.default_rng(11)
PERTS = tuple(f"P{i}" for i in range(12))
TARGETS = np.array([3, 7, 7, -1, 0, 11, 24, 5, -1, 9, 3, 20])


def screen(perts=PERTS, genes=25, seed=0, targets=True, **fields):
    """Effects that are linear in latent features which all screens share, and a knock-down."""
    rng = np.random.default_rng(seed)
    latent = np.random.default_rng(99).normal(size=(40, 4))
    place = [int(name[1:]) for name in perts]
    effects = latent[place] @ rng.normal(size=(4, genes)) + 0.8 * rng.normal(size=genes)
    effects += 0.5 * rng.normal(size=effects.shape)
    gene = np.array([TARGETS[i % 12] for i in place]) if targets else np.full(len(perts), -1)
    effects[np.arange(len(perts))[gene >= 0], gene[gene >= 0]] -= 8
    made = {"targets": jnp.asarray(gene) if targets else None, "perts": tuple(perts), **fields}
    return PertData(jnp.asarray(effects), jnp.zeros(genes), **made)


def kernel_of(relatives, **options):
    rows = np.arange(len(relatives.perts))
    return np.asarray(relatives.kernel(rows, rows, **options))


@pytest.mark.parametrize("kind", ["pearson", "cosine"])
@pytest.mark.parametrize("centre", [1.0, 0.0, 0.4])
def test_similarity_is_over_genes_that_neither_targets(kind, centre):
    data = screen()
    y = np.asarray(data.effects) - centre * np.asarray(data.effects).mean(axis=0)
    ours = np.asarray(similarity(data.effects, targets=data.targets, kind=kind, centre=centre))
    for p in range(12):
        for q in range(12):
            kept = np.setdiff1d(np.arange(25), [TARGETS[p], TARGETS[q]])
            a, b = y[p, kept], y[q, kept]
            expected = np.corrcoef(a, b)[0, 1] if kind == "pearson" else a @ b / np.sqrt((a @ a) * (b @ b))
            assert ours[p, q] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["pearson", "cosine"])
@pytest.mark.parametrize("drop", ["own", "panel", "none"])
@pytest.mark.parametrize("centre", [1.0, 0.0, 0.4])
def test_relatives_are_correlations_of_masked_rows(kind, drop, centre):
    data = screen()
    y = np.asarray(data.effects) - centre * np.asarray(data.effects).mean(axis=0)
    counted = np.ones_like(y, bool)
    if drop == "own":
        counted[np.arange(12)[TARGETS >= 0], TARGETS[TARGETS >= 0]] = False
    elif drop == "panel":
        counted[:, np.unique(TARGETS[TARGETS >= 0])] = False
    rows = np.zeros_like(y)
    for p in range(12):
        values = y[p, counted[p]]
        rows[p, counted[p]] = values - values.mean() if kind == "pearson" else values
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ours = kernel_of(relate(data, kind=kind, drop=drop), centre=centre)
    np.testing.assert_allclose(ours, rows @ rows.T, rtol=0, atol=1e-12)
    assert np.linalg.eigvalsh(ours).min() > -1e-12


def test_own_targets_do_not_make_perturbations_alike():
    data = screen()
    # P1 and P2 target the same gene, which is far down in both.
    wild = kernel_of(relate(data, drop="none"))[1, 2]
    kept = kernel_of(relate(data))[1, 2]
    exact = similarity(data.effects, targets=data.targets)[1, 2]
    assert wild > kept + 0.2
    assert kept == pytest.approx(float(exact), abs=1e-12)


def test_centring_takes_the_shared_response_off():
    data = screen(targets=False)
    data = dataclasses.replace(data, effects=data.effects + 10 * RNG.normal(size=25)[None, :])
    off = ~np.eye(12, dtype=bool)
    assert kernel_of(relate(data), centre=0.0)[off].mean() > 0.9
    assert abs(kernel_of(relate(data))[off].mean()) < 0.15


def test_an_effect_of_nothing_resembles_nothing():
    data = screen(targets=False)
    mean = jnp.mean(data.effects[1:], axis=0)
    constant = dataclasses.replace(data, effects=data.effects.at[0].set(mean))
    for options in ({}, {"centre": 1.0}):
        kernel = kernel_of(relate(constant), **options)
        np.testing.assert_array_equal(kernel[0], 0)
        assert np.isfinite(kernel).all()
    of_centre = lambda c: jnp.sum(relate(constant).kernel(np.arange(12), np.arange(12), centre=c) ** 2)
    assert np.isfinite(float(jax.grad(of_centre)(1.0)))
    assert not np.any(np.asarray(similarity(jnp.ones((3, 8)))))


@pytest.mark.parametrize("kind", ["sharpened", "rbf"])
def test_gaussian_kernels(kind):
    data = screen()
    relatives = relate(data, kind=kind, components=3)
    for length in (0.5, 1.0, 2.0):
        kernel = kernel_of(relatives, log_length_scale=np.log(length))
        assert np.linalg.eigvalsh(kernel).min() > -1e-10
        np.testing.assert_allclose(np.diag(kernel), 1, atol=1e-12)
        if kind == "sharpened":
            np.testing.assert_allclose(kernel, np.exp((kernel_of(relate(data)) - 1) / length**2), atol=1e-12)
    if kind == "rbf":
        y = np.asarray(data.effects) - np.asarray(data.effects).mean(axis=0)
        y[np.arange(12)[TARGETS >= 0], TARGETS[TARGETS >= 0]] = 0
        u, s, _ = np.linalg.svd(y, full_matrices=False)
        scores = u[:, :3] * s[:3]
        square = ((scores[:, None] - scores[None]) ** 2).sum(axis=2)
        expected = np.exp(-square / (2 * np.median(square[np.triu_indices(12, 1)])))
        np.testing.assert_allclose(kernel_of(relatives), expected, atol=1e-10)


def test_noise_gives_reliabilities_that_shrink_or_correct():
    data = screen(targets=False)
    plain = kernel_of(relate(data))
    y = np.asarray(data.effects)
    square = 25 * np.var(y - y.mean(axis=0), axis=1)
    rho = RNG.uniform(0.2, 0.9, 12)
    rho[3] = 0
    noisy = dataclasses.replace(data, noise=jnp.asarray((1 - rho) * square))
    relatives = relate(noisy)
    np.testing.assert_allclose(relatives.reliability, rho, atol=1e-12)
    root = np.sqrt(np.outer(rho, rho))
    shrunk = kernel_of(relatives, shrinkage=1.0)
    np.testing.assert_allclose(shrunk, plain * root, atol=1e-12)
    assert np.linalg.eigvalsh(shrunk).min() > -1e-12
    np.testing.assert_allclose(kernel_of(relatives), plain, atol=1e-12)
    corrected = kernel_of(relatives, shrinkage=-1.0)
    known = np.arange(12) != 3
    expected = np.clip(plain / np.where(root > 0, root, 1), -1, 1)
    np.testing.assert_allclose(corrected[np.ix_(known, known)], expected[np.ix_(known, known)], atol=1e-12)
    assert not corrected[3].any()
    rows = np.arange(12)
    of_shrinkage = lambda s: jnp.sum(relatives.kernel(rows, rows, shrinkage=s) * jnp.asarray(plain))
    assert directional(of_shrinkage, 0.7, 1.0) == pytest.approx(finite_difference(of_shrinkage, 0.7, 1.0), rel=1e-6)
    per_gene = dataclasses.replace(data, noise=jnp.asarray((1 - rho) * square / 25)[:, None] * jnp.ones((1, 25)))
    np.testing.assert_allclose(relate(per_gene).reliability, rho, atol=1e-12)


def stacked(kernels, masks, eta):
    """The same from features put side by side."""
    features = []
    for kernel, mask, share in zip(kernels, masks, eta, strict=True):
        values, vectors = np.linalg.eigh(kernel)
        block = vectors * np.sqrt(np.maximum(values, 0))
        features.append(np.sqrt(share) * block * mask[:, None])
    stack = np.hstack(features)
    weight = np.sum([share * mask for share, mask in zip(eta, masks, strict=True)], axis=0)
    stack /= np.sqrt(np.where(weight > 0, weight, 1))[:, None]
    return stack @ stack.T


def test_combination_is_stacked_features_and_semi_definite():
    kernels = [kernel_of(relate(screen(seed=seed))) for seed in range(3)]
    masks = [RNG.random(12) < 0.6 for _ in range(3)]
    masks[0][4] = masks[1][4] = masks[2][4] = False
    masks[0][5], masks[1][5] = True, False
    logits = np.array([0.3, -1.0, 0.8])
    ours = np.asarray(combine_kernels(kernels, masks, logits=logits))
    np.testing.assert_allclose(ours, stacked(kernels, masks, np.exp(logits)), atol=1e-12)
    assert np.linalg.eigvalsh(ours).min() > -1e-12
    assert not ours[4].any()
    present = np.any(masks, axis=0)
    np.testing.assert_allclose(np.diag(ours)[present], 1, atol=1e-12)
    np.testing.assert_allclose(combine_kernels(kernels, masks, logits=logits + 5.0), ours, atol=1e-12)
    with pytest.raises((ValueError, TypeCheckError), match="kernels"):
        combine_kernels(kernels, masks[:2])
    with pytest.raises((ValueError, TypeCheckError), match="logits"):
        combine_kernels(kernels, masks, logits=logits[:2])


def training(perts=PERTS[:9], **fields):
    return screen(perts, genes=17, seed=7, targets=False, **fields)


def test_a_perturbation_that_no_screen_has_gets_the_mean_and_is_flagged():
    others = screen(tuple(p for p in PERTS if p not in ("P2", "P10")), seed=1)
    for intercept in ("mean", "free", "none"):
        fitted = KernelRidge(intercept=intercept).fit(training(), external=[others])
        made = fitted.predict(["P9", "P10", "P99"])
        np.testing.assert_array_equal(made.covered, [True, False, False])
        mean = np.asarray(training().effects.mean(axis=0))
        np.testing.assert_allclose(made.effect[1:], np.broadcast_to(mean, (2, 17)), atol=1e-12)
        assert float(jnp.abs(made.effect[0] - mean).max()) > 1e-2
        left = fitted.leave_one_out()
        np.testing.assert_array_equal(left.covered, [name != "P2" for name in PERTS[:9]])
        others_mean = np.delete(np.asarray(training().effects), 2, axis=0).mean(axis=0)
        np.testing.assert_allclose(left.effect[2], others_mean, atol=1e-12)


@pytest.mark.parametrize("intercept", ["mean", "free", "none"])
def test_leave_one_out_by_names_equals_refits(intercept):
    model = KernelRidge(-0.7, logits=[0.4, -0.2], intercept=intercept, shrinkage=0.5)
    data = training(noise=jnp.asarray(RNG.uniform(0.5, 2, 9)), cells=jnp.full(9, 50.0))
    externals = [screen(PERTS[2:], seed=1), screen(PERTS[:11], genes=31, seed=2)]
    made = model.fit(data, external=externals).leave_one_out()
    for i in (0, 3, 8):
        name = data.perts[i]
        rest = [other for other in data.perts if other != name]
        kept = data.take(rest)
        # The relative noise of a refit has the mean of its own perturbations in it; the fit's own is kept.
        scale = np.mean(np.asarray(data.noise)) / np.mean(np.asarray(kept.noise))
        again = eqx.tree_at(lambda m: m.log_ridge, model, model.log_ridge - np.log(scale))
        refit = again.fit(kept, external=externals).predict([name])
        np.testing.assert_allclose(made.effect[i], refit.effect[0], rtol=0, atol=1e-10)
    groups = [name in ("P0", "P4", "P5") for name in data.perts]
    together = model.fit(data, external=externals).leave_group_out(groups)
    kept = data.take([name for name, out in zip(data.perts, groups, strict=True) if not out])
    scale = np.mean(np.asarray(data.noise)) / np.mean(np.asarray(kept.noise))
    again = eqx.tree_at(lambda m: m.log_ridge, model, model.log_ridge - np.log(scale))
    refit = again.fit(kept, external=externals).predict(["P0", "P4", "P5"])
    np.testing.assert_allclose(together.effect[np.array([0, 4, 5])], refit.effect, rtol=0, atol=1e-10)


def test_adding_a_screen_without_a_perturbation_only_renormalises():
    first, second = screen(seed=1), screen(tuple(p for p in PERTS if p not in ("P9", "P3")), seed=2)
    one = KernelRidge().fit(training(), external=[first]).cross(["P9"])
    two = KernelRidge().fit(training(), external=[first, second]).cross(["P9"])
    # P9 is in one screen only: its similarities to perturbations of both are divided by the root of their weight.
    weight = np.array([0.5 if name == "P3" else 1.0 for name in PERTS[:9]])
    np.testing.assert_allclose(two[0], np.asarray(one[0]) * np.sqrt(0.5 / weight), atol=1e-12)
    far = screen(("P30", "P31", "P32"), seed=3)
    plain, more = (
        KernelRidge().fit(training(), external=screens).predict(["P9", "P10"]).effect
        for screens in ([first], [first, far])
    )
    np.testing.assert_allclose(more, plain, atol=1e-12)


def test_other_screens_may_have_other_genes_and_units():
    data, other = training(), screen(genes=40, seed=5)
    plain = KernelRidge().fit(data, external=[other]).predict(["P10"]).effect
    scaled = dataclasses.replace(other, effects=1000 * other.effects)
    np.testing.assert_allclose(KernelRidge().fit(data, external=[scaled]).predict(["P10"]).effect, plain, atol=1e-10)
    prepared = KernelRidge().prepare([other])
    np.testing.assert_array_equal(KernelRidge().fit(data, external=prepared).predict(["P10"]).effect, plain)


def test_a_kernel_known_otherwise_stands_beside_screens():
    latent = RNG.normal(size=(12, 3))
    values = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    known = NamedKernel(jnp.asarray(values @ values.T), PERTS)
    fitted = KernelRidge(logits=[0.0, 0.0]).fit(training(), external=[known, screen(seed=1)])
    ours = np.asarray(fitted.cross(["P10"]))[0]
    expected = 0.5 * (values @ values.T)[10, :9] + 0.5 * kernel_of(relate(screen(seed=1)), shrinkage=1.0)[10, :9]
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    with pytest.raises((ValueError, TypeCheckError)):
        NamedKernel(jnp.eye(3), ("A", "B"))


def test_noisy_perturbations_are_trusted_less():
    noise = np.ones(9)
    noise[4] = 50.0
    data, other = training(noise=jnp.asarray(noise)), [screen(seed=1)]
    weight = lambda exponent: KernelRidge(noise_exponent=exponent).fit(data, external=other).inverse[4, 4]
    assert float(weight(1.0)) < 0.3 * float(weight(0.0))
    by_cells = training(cells=jnp.asarray(100 / noise))
    np.testing.assert_allclose(
        KernelRidge().fit(by_cells, external=other).matrix, KernelRidge().fit(data, external=other).matrix, rtol=1e-12
    )


def test_gradients_through_the_fit_are_finite_differences():
    data = training(noise=jnp.asarray(RNG.uniform(0.5, 2, 9)))
    externals = [screen(PERTS[2:], seed=1, noise=jnp.full(10, 5.0)), screen(PERTS[:11], genes=31, seed=2)]
    model = KernelRidge(-0.7, logits=[0.4, -0.2], kind="sharpened", centre=0.8, shrinkage=0.6)
    leaves, structure = jax.tree.flatten(model)
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]
    start = np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(float)

    def error(x):
        parts = [p.reshape(leaf.shape) for p, leaf in zip(jnp.split(x, sizes), leaves, strict=True)]
        fitted = jax.tree.unflatten(structure, parts).fit(data, external=externals)
        left = fitted.leave_one_out().effect - data.effects
        return jnp.sum(left**2) + jnp.sum(fitted.predict(["P9", "P10"]).effect ** 2)

    error = jax.jit(error)
    slope = jax.jit(jax.grad(error))(jnp.asarray(start))
    expected = [finite_difference(error, start, direction) for direction in np.eye(len(start))]
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)
    assert np.min(np.abs(expected)) > 1e-6


def test_bands_hold_the_prediction():
    fitted = KernelRidge().fit(training(), external=[screen(seed=1)])
    low, high = fitted.bands(["P9", "P10"], coverage=0.8)
    assert (low <= high).all()
    assert low.shape == (2, 17)


def test_what_a_prediction_was_allowed_to_see():
    fitted = KernelRidge().fit(training(), external=[screen(seed=1, context="other line")])
    made = fitted.predict(["P10"])
    assert (made.fairness, made.baseline, made.perts) == ("external", "kernel_ridge", ("P10",))
    assert dict(made.provenance)["sources"] == ("other line",)
    assert fitted.predict(["P1"]).fairness == "transductive"
    assert fitted.leave_one_out().fairness == "external"


def test_refusals():
    with pytest.raises(ValueError, match="external"):
        KernelRidge().fit(training())
    with pytest.raises(ValueError, match="4 on its diagonal"):
        KernelRidge().fit(training(), external=[NamedKernel(4 * jnp.eye(2), ("P9", "P10"))])
    with pytest.raises((ValueError, TypeCheckError), match="kind"):
        relate(screen(), kind="spearman")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError), match="drop"):
        relate(screen(), drop="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="components"):
        relate(screen(), kind="rbf", components=0)
    with pytest.raises((ValueError, TypeCheckError)):
        similarity(jnp.ones((3, 4)), targets=jnp.zeros(2, int))
    with pytest.raises((ValueError, TypeCheckError), match="kind"):
        similarity(jnp.ones((3, 4)), kind="sharpened")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError), match="logits"):
        KernelRidge(logits=[0.0, 0.0, 0.0]).fit(training(), external=[screen(seed=1)])
