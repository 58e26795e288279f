"""Relatedness transfer between two cell lines, on measured screens."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import shared_path
from scipy.stats import norm

from vcjax import effects_as_profiles
from vcjax.baselines._interface import PertData
from vcjax.baselines._kernel_ridge import KernelRidge
from vcjax.baselines._krr import same_group
from vcjax.metrics import CATALOGUE


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lines():
    """Half-normal pseudo-effects of 585 knock-downs in K562 and in RPE1."""
    held = np.load(shared_path("data/replogle-k562-rpe1-top1000/replogle_top1000.npz"))
    perts, genes = tuple(map(str, held["perts"])), tuple(map(str, held["genes"]))
    scores = norm.ppf(1 - (np.arange(1000) + 0.5) / 2000)
    made = {}
    for name in ("k562", "rpe1"):
        effects = np.zeros((len(perts), len(genes)))
        np.put_along_axis(effects, held[name].astype(int), scores[None, :], axis=1)
        made[name] = effects
    return perts, genes, made


def rotated(*effects):
    """The same rows in an orthonormal basis of their span: all that is asked for here are inner products."""
    values, vectors = np.linalg.eigh(np.vstack(effects) @ np.vstack(effects).T)
    kept = values > 1e-10 * values[-1]
    return np.split(vectors[:, kept] * np.sqrt(values[kept]), len(effects))


def cosine_and_rank(pred, real):
    pair = jnp.asarray(pred), effects_as_profiles(jnp.asarray(real))
    return float(CATALOGUE["delta_cosine"](*pair).mean()), 1 - float(CATALOGUE["pds_cosine"](*pair).mean())


def test_copying_gives_the_recorded_numbers(lines):
    _, _, made = lines
    k562, rpe1 = rotated(made["k562"], made["rpe1"])
    cosine, rank = cosine_and_rank(k562 - k562.mean(axis=0), rpe1 - rpe1.mean(axis=0))
    assert cosine == pytest.approx(0.193, abs=6e-4)
    assert rank == pytest.approx(0.085, abs=6e-4)


@pytest.mark.parametrize(("source", "target", "recorded"), [("k562", "rpe1", 0.489), ("rpe1", "k562", 0.493)])
def test_relatedness_transfer_reaches_the_recorded_numbers(lines, source, target, recorded):
    perts, genes, made = lines
    place = {gene: i for i, gene in enumerate(genes)}
    targets = jnp.asarray([place.get(pert, -1) for pert in perts])
    other = PertData(jnp.asarray(made[source]), jnp.zeros(len(genes)), targets=targets, perts=perts)
    (effects,) = rotated(made[target])
    data = PertData(jnp.asarray(effects), jnp.zeros(effects.shape[1]), perts=perts)
    folds = np.random.default_rng(0).permutation(len(perts)) % 10
    for drop in ("none", "own"):
        model = KernelRidge(np.log(0.3), drop=drop)
        pred = model.fit(data, external=[other]).leave_group_out(folds).effect
        others = (~same_group(folds, len(perts))).astype(float)
        means = others @ effects / others.sum(axis=1, keepdims=True)
        cosine, rank = cosine_and_rank(np.asarray(pred) - means, effects - means)
        assert cosine >= recorded
        assert rank <= 0.0485
    # The closed form for folds is what refits give.
    test = np.flatnonzero(folds == 3)
    train = data.take([perts[i] for i in np.flatnonzero(folds != 3)])
    refit = model.fit(train, external=model.prepare([other])).predict([perts[i] for i in test])
    np.testing.assert_allclose(refit.effect, np.asarray(pred)[test], rtol=0, atol=1e-9)
    # Other perturbations' similarities tell nothing of these: the kernel carries what is transferred.
    shuffled = dataclasses.replace(other, perts=tuple(np.random.default_rng(1).permutation(perts).tolist()))
    pred = model.fit(data, external=[shuffled]).leave_group_out(folds).effect
    cosine, rank = cosine_and_rank(np.asarray(pred) - means, effects - means)
    assert cosine < 0.1
    assert rank > 0.4
