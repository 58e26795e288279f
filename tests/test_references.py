"""References: what they are the mean of, and whether they leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vcjax import metrics, references, weights
from vcjax.references import _means


PERTS = ("a", "b", "c", "d", "e", "f")
TRAIN = np.array([True, True, False, True, False, True])
RNG = np.random.default_rng(0)
PROFILES = RNG.normal(size=(6, 9))
CELLS = np.array([5.0, 9, 3, 12, 7, 4])
CONTROL = RNG.normal(size=9)


def close(value, expected, atol=1e-13):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def test_the_mean_of_training_perturbations():
    made = references.train_mean(PROFILES, perts=PERTS, train=TRAIN)
    close(made.values, PROFILES[TRAIN].mean(0))
    assert (made.kind, made.weighting, made.perts) == ("train_mean", "pert", ("a", "b", "d", "f"))
    by_cell = references.train_mean(PROFILES, perts=PERTS, train=TRAIN, cells=CELLS, weighting="cell", context="K562")
    close(by_cell.values, np.average(PROFILES[TRAIN], axis=0, weights=CELLS[TRAIN]))
    assert (by_cell.weighting, by_cell.context) == ("cell", "K562")
    with_control = references.train_mean(PROFILES, perts=PERTS, train=TRAIN, control=CONTROL)
    close(with_control.values, np.vstack([PROFILES[TRAIN], CONTROL]).mean(0))
    assert with_control.with_control


def test_the_mean_of_all_perturbations_and_the_control():
    close(references.all_mean(PROFILES, perts=PERTS).values, PROFILES.mean(0))
    made = references.all_mean(
        PROFILES, perts=PERTS, cells=CELLS, weighting="cell", control=CONTROL, control_cells=20.0
    )
    close(made.values, np.average(np.vstack([PROFILES, CONTROL]), axis=0, weights=[*CELLS, 20]))
    assert (made.kind, made.perts, made.provenance()["with_control"]) == ("all_mean", PERTS, True)


@pytest.mark.parametrize("weighting", ["pert", "cell"])
def test_the_mean_of_the_others(weighting):
    made = references.loo_mean(PROFILES, perts=PERTS, cells=CELLS, weighting=weighting)
    inside = references.loo_mean(PROFILES, perts=PERTS, train=TRAIN, cells=CELLS, weighting=weighting)
    amount = np.ones(6) if weighting == "pert" else CELLS
    for p in range(6):
        others = np.arange(6) != p
        close(made.values[p], np.average(PROFILES[others], axis=0, weights=amount[others]))
        others = others & TRAIN
        close(inside.values[p], np.average(PROFILES[others], axis=0, weights=amount[others]))
    assert inside.perts == ("a", "b", "d", "f")


def test_profiles_of_other_origin_are_taken_as_they_are():
    control = references.control_reference(CONTROL)
    outside = references.external(CONTROL, perts=["a"], context="RPE1")
    for made, kind in ((control, "control"), (outside, "external")):
        close(made.values, CONTROL, 0)
        assert made.kind == kind
    assert (outside.perts, outside.context) == (("a",), "RPE1")


def test_each_row_has_the_reference_of_its_context():
    contexts = ["K562", "RPE1", "K562", "RPE1", "K562", "RPE1"]
    first = np.array(contexts) == "K562"
    made = references.per_context(
        references.train_mean, PROFILES, contexts, perts=PERTS, train=TRAIN, cells=CELLS, weighting="cell"
    )
    for inside in (first, ~first):
        kept = inside & TRAIN
        expected = np.average(PROFILES[kept], axis=0, weights=CELLS[kept])
        close(made.values[inside], np.broadcast_to(expected, (3, 9)))
    assert (made.context, set(made.perts)) == ("K562, RPE1", {"a", "b", "d", "f"})
    loo = references.per_context(references.loo_mean, PROFILES, contexts, perts=PERTS)
    close(loo.values[0], PROFILES[[2, 4]].mean(0))
    controls = {"K562": CONTROL, "RPE1": -CONTROL}
    mixed = references.per_context(references.all_mean, PROFILES, contexts, perts=PERTS, control=controls)
    close(mixed.values[1], (PROFILES[~first].sum(0) - CONTROL) / 4)
    with pytest.raises(ValueError, match="One context"):
        references.per_context(references.all_mean, PROFILES, contexts[:2], perts=PERTS)


def test_the_mean_of_the_others_is_opposite_under_the_reference_of_all():
    reference = references.all_mean(PROFILES, perts=PERTS).values
    others = references.loo_mean(PROFILES, perts=PERTS).values
    close(metrics.pearson(others, PROFILES, reference=reference), -1)
    # Measured from the mean of the others it has no effect at all.
    assert np.isnan(metrics.pearson(others, PROFILES, reference=others)).all()


def test_the_training_mean_is_antiparallel_to_the_mean_test_effect_under_the_reference_of_all():
    reference = np.asarray(references.all_mean(PROFILES, perts=PERTS).values)
    guess = np.asarray(references.train_mean(PROFILES, perts=PERTS, train=TRAIN).values)
    test_mean = PROFILES[~TRAIN].mean(0)
    share = (~TRAIN).mean()
    close(guess - reference, share * (guess - test_mean))
    close(metrics.cosine((guess - reference)[None], (test_mean - reference)[None]), -1)
    scores = metrics.pearson(np.broadcast_to(guess, (2, 9)), PROFILES[~TRAIN], reference=reference)
    assert float(scores.mean()) < 0


def test_evaluated_truth_has_no_part_in_the_training_mean():
    # No part at all: not in a bit, whatever it is, and without the help of a stopped gradient.
    made = references.train_mean(PROFILES, perts=PERTS, train=TRAIN, cells=CELLS, weighting="cell")
    for junk in (1e30, np.nan):
        other = np.where(TRAIN[:, None], PROFILES, junk)
        again = references.train_mean(other, perts=PERTS, train=TRAIN, cells=CELLS, weighting="cell")
        np.testing.assert_array_equal(again.values, made.values)
    amount = jnp.asarray(TRAIN * CELLS)
    jacobian = jax.jacrev(lambda x: _means.mean_of(x, amount))(jnp.asarray(PROFILES))
    np.testing.assert_array_equal(np.asarray(jacobian)[:, ~TRAIN], 0)
    assert np.abs(np.asarray(jacobian)[:, TRAIN]).max() > 0.1


def test_a_perturbation_has_no_part_in_the_mean_of_the_others():
    jacobian = np.asarray(jax.jacrev(lambda x: _means.means_of_others(x, jnp.ones(6)))(jnp.asarray(PROFILES)))
    own = np.stack([jacobian[p, :, p] for p in range(6)])
    close(own, 0, 1e-15)
    close(jacobian[0, 0, 1, 0], 0.2)


@pytest.mark.parametrize("build", [references.train_mean, references.loo_mean, references.all_mean])
def test_no_gradient_flows_from_a_reference_into_the_truth(build):
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(build(x, perts=PERTS).values ** 2)))(jnp.asarray(PROFILES))
    np.testing.assert_array_equal(gradient, 0)


def test_a_loss_against_a_reference_trains_the_prediction_alone():
    def loss(pred, real):
        reference = references.loo_mean(real, perts=PERTS).values
        return jnp.sum(metrics.pearson(pred, jax.lax.stop_gradient(real), reference=reference))

    pred, real = jax.grad(loss, argnums=(0, 1))(jnp.asarray(PROFILES + RNG.normal(size=(6, 9))), jnp.asarray(PROFILES))
    assert np.abs(pred).max() > 0
    np.testing.assert_array_equal(real, 0)


def test_leaks_are_found_refused_and_described():
    everything = references.all_mean(PROFILES, perts=PERTS)
    assert references.find_leak(everything, ["e", "x", "c", "e"]) == ("e", "c")
    with pytest.raises(references.LeakError, match=r"4 of the 5 evaluated perturbations: a, b, c and 1 more") as raised:
        references.check_leak(everything, ["a", "b", "c", "d", "x"])
    assert raised.value.perts == ("a", "b", "c", "d")
    told = references.check_leak(everything, ["c", "x"], allow_leak=True)
    assert told == "The values of the reference (all_mean) are made of 1 of the 2 evaluated perturbations: c."
    train = references.train_mean(PROFILES, perts=PERTS, train=TRAIN)
    assert references.check_leak(train, ["c", "e"]) == ""
    with pytest.raises(ValueError, match="evaluated perturbations: a"):
        references.check_leak(train, ["a", "c"])


def test_references_that_leave_the_own_perturbation_out_are_no_leak():
    for made in (
        references.loo_mean(PROFILES, perts=PERTS),
        references.control_reference(CONTROL),
        references.external(CONTROL, perts=PERTS),
    ):
        assert references.check_leak(made, PERTS) == ""


def test_weights_leak_where_they_are_made_of_the_scored_cells():
    made = lambda cells, **more: weights.Weights(jnp.ones((6, 9)), "mejia", cells=cells, perts=PERTS, **more)
    for cells in ("all", "first half", "train"):
        with pytest.raises(ValueError, match="2 of the 2 evaluated perturbations: a, b"):
            references.check_leak(made(cells), ["a", "b"])
        assert references.check_leak(made(cells), ["x"]) == ""
        with pytest.raises(ValueError, match="evaluated"):
            references.check_leak(made(cells, pool=("x",)), ["x"])
    for cells in ("other half", "crossfit"):
        assert references.check_leak(made(cells), ["a", "b"]) == ""
    assert "mejia" in references.check_leak(made("all"), ["a"], allow_leak=True)


def test_what_does_not_say_what_it_is_made_of_may_leak():
    nameless = weights.Weights(jnp.ones((6, 9)), "own")
    with pytest.raises(references.LeakError, match="do not say"):
        references.check_leak(nameless, ["a"])
    assert "do not say" in references.check_leak(nameless, ["a"], allow_leak=True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="name the 6 rows"):
        references.train_mean(PROFILES, perts=PERTS[:3])
    with pytest.raises(ValueError, match="No perturbation"):
        references.train_mean(PROFILES, perts=PERTS, train=np.zeros(6, bool))
    with pytest.raises((ValueError, TypeCheckError)):
        references.train_mean(PROFILES, perts=PERTS, train=TRAIN[:3])
    with pytest.raises((ValueError, TypeCheckError)):
        references.train_mean(PROFILES, perts=PERTS, cells=CELLS[:3], weighting="cell")
    with pytest.raises(ValueError, match="needs `cells`"):
        references.all_mean(PROFILES, perts=PERTS, weighting="cell")
    with pytest.raises(ValueError, match="needs `control_cells`"):
        references.all_mean(PROFILES, perts=PERTS, cells=CELLS, weighting="cell", control=CONTROL)
    with pytest.raises((ValueError, TypeCheckError)):
        references.all_mean(PROFILES, perts=PERTS, weighting="gene")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least two"):
        references.loo_mean(PROFILES[:1], perts=PERTS[:1])
