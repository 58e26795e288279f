"""The linear model of principal components, against its formula in numpy with components from a singular value
decomposition.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import finite_difference

from vcjax.baselines._features import Features, one_hot, profile_features, RandomFeatures
from vcjax.baselines._interface import PertData
from vcjax.baselines._pca_ridge import PCARidge


pytestmark = pytest.mark.long

RNG = np.random.default_rng(1)
GENES = tuple(f"g{i}" for i in range(20))
PERTS = ("g3", "g7", "g11", "g0", "g16")
Y = RNG.normal(size=(5, 20))
CONTROL = RNG.gamma(2, size=20)
OUTSIDE = Features(jnp.asarray(RNG.normal(size=(20, 3))), GENES)


def data(rows: Iterable[int] = range(5), perts: tuple[str, ...] = PERTS):
    rows = list(rows)
    names = tuple(perts[i] for i in rows)
    return PertData(jnp.asarray(Y[rows]), jnp.asarray(CONTROL), perts=names, genes=GENES)


def close(value, expected, atol=1e-10):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def published(y, perts, new, *, dims, gene_ridge=0.1, pert_ridge=0.1, control=True):
    """The published formula, a gene a row: components of the profiles, each centred over genes."""
    effects = np.vstack([y, np.zeros(20)]).T if control else y.T
    profiles = CONTROL[:, None] + effects
    u, s, _ = np.linalg.svd(profiles - profiles.mean(0), full_matrices=False)
    g = (u * s)[:, :dims]
    place = [GENES.index(pert) for pert in perts]
    p = g[place].T
    p = np.hstack([p, np.zeros((len(p), 1))]) if control else p
    b = effects.mean(1, keepdims=True)
    left = np.linalg.solve(g.T @ g + gene_ridge * np.eye(g.shape[1]), g.T @ (effects - b) @ p.T)
    c = left @ np.linalg.inv(p @ p.T + pert_ridge * np.eye(len(p)))
    return (g @ c @ g[[GENES.index(pert) for pert in new]].T + b).T


@pytest.mark.parametrize(("dims", "control"), [(3, True), (3, False), (10, True)])
def test_the_published_formula(dims, control):
    model = PCARidge(dims=dims, include_control=control)
    made = model.fit(data()).predict(["g5", "g9", "g3"])
    close(made.effect, published(Y, PERTS, ["g5", "g9", "g3"], dims=dims, control=control))
    assert made.covered.all()
    assert made.fairness == "transductive"  # g3 was trained on
    assert model.fit(data()).predict(["g5"]).fairness == "inductive"


def test_other_ridges():
    model = PCARidge(dims=2, log_gene_ridge=np.log(5.0), log_pert_ridge=np.log(0.7))
    expected = published(Y, PERTS, ["g5"], dims=2, gene_ridge=5.0, pert_ridge=0.7)
    close(model.fit(data()).predict(["g5"]).effect, expected)


VARIANTS = {
    "own": PCARidge(dims=3),
    "own without the control": PCARidge(dims=3, include_control=False),
    "own vectors of perturbations": PCARidge(dims=3, identity_genes=True),
    "vectors of perturbations from elsewhere": PCARidge(OUTSIDE, dims=3),
    "vectors of genes from elsewhere": PCARidge(gene_embedding=OUTSIDE, dims=3),
    "all from elsewhere": PCARidge(OUTSIDE, OUTSIDE),
    "one vector a perturbation": PCARidge(one_hot(PERTS), identity_genes=True),
    "random": PCARidge(RandomFeatures(jax.random.key(0), 4), identity_genes=True),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("perts", [PERTS, ("g3", "other", "g11", "g0", "g16")])
def test_leaving_one_out_equals_refits(name, perts):
    model = VARIANTS[name]
    left = model.fit(data(perts=perts)).leave_one_out()
    for i in range(5):
        refit = model.fit(data([j for j in range(5) if j != i], perts)).predict([perts[i]])
        close(left.effect[i], refit.effect[0])
        assert bool(left.covered[i]) == bool(refit.covered[0])
    assert left.fairness == ("inductive" if name.startswith("own") else "external")


def test_a_label_that_names_no_gene_is_not_covered():
    made = PCARidge(dims=3).fit(data()).predict(["unknown", "g5+g9", "g5+unknown"])
    assert made.covered.tolist() == [False, True, False]
    close(made.effect[0], Y.mean(0), 1e-15)
    # A combination has the sum of its members' vectors, and the model is linear in these.
    single = published(Y, PERTS, ["g5", "g9"], dims=3)
    close(made.effect[1], single.sum(0) - Y.sum(0) / 6)
    with pytest.raises(ValueError, match="None of 5"):
        PCARidge().fit(dataclasses.replace(data(), perts=tuple("abcde")))
    with pytest.raises(ValueError, match="names of genes"):
        PCARidge().fit(dataclasses.replace(data(), genes=()))
    with pytest.raises(ValueError, match="exclude"):
        PCARidge(gene_embedding=OUTSIDE, identity_genes=True)
    with pytest.raises(ValueError, match="at least 1"):
        PCARidge(dims=0)


def test_infinite_ridges_leave_the_mean():
    for control, mean in ((True, Y.sum(0) / 6), (False, Y.mean(0))):
        made = PCARidge(log_pert_ridge=60.0, include_control=control).fit(data()).predict(["g5"])
        close(made.effect[0], mean)
        made = PCARidge(log_gene_ridge=60.0, include_control=control).fit(data()).predict(["g5"])
        close(made.effect[0], mean)


def test_identity_genes_and_vectors_of_another_context():
    other = PertData(jnp.asarray(RNG.normal(size=(7, 12))), jnp.zeros(12), perts=(*PERTS, "g5", "x"))
    table = profile_features(other, 4)
    model = PCARidge(table, identity_genes=True, log_gene_ridge=np.log(0.2))
    p, b = np.asarray(table.values)[:5], Y.sum(0) / 6
    expected = b + np.asarray(table.values)[5] @ np.linalg.solve(p.T @ p + 0.1 * np.eye(4), p.T @ (Y - b)) / 1.2
    made = model.fit(data()).predict(["g5"])
    close(made.effect[0], expected)
    assert made.fairness == "external"


@pytest.mark.parametrize("field", ["log_gene_ridge", "log_pert_ridge"])
@pytest.mark.parametrize("name", ["own", "all from elsewhere"])
def test_ridges_have_the_gradient_of_finite_differences(name, field):
    @jax.jit
    def error(value):
        model = dataclasses.replace(VARIANTS[name], **{field: value})
        left = model.fit(data()).leave_one_out()
        assert left is not None
        return jnp.mean((left.effect - Y) ** 2) + jnp.sum(model.fit(data()).predict(["g5"]).effect ** 2)

    at = np.array(-0.7)
    found = jax.grad(error)(jnp.asarray(at))
    close(found, finite_difference(error, at, 1.0), 1e-7)
    assert abs(float(found)) > 1e-6


def test_the_order_of_perturbations_does_not_matter():
    order = [3, 0, 4, 1, 2]
    first, second = PCARidge(dims=3).fit(data(order)), PCARidge(dims=3).fit(data())
    close(first.predict(["g5"]).effect, second.predict(["g5"]).effect)
    left, straight = first.leave_one_out(), second.leave_one_out()
    close(left.effect, np.asarray(straight.effect)[order])
