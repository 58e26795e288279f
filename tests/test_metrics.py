"""Values that can be checked by hand or against packages we did not write."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

import vcjax
from vcjax import metrics
from vcjax.metrics import Cosine, L1, L2


TRUTH = np.array([[1, 0, 2, -1], [0, 1, 0, 0], [2, 2, -1, 0]], float)
GUESS = np.array([[0.5, 0.5, 1, 0], [0, 0.5, 0.5, 0], [1, 2, 0, 1]], float)
SPARSE = np.array([1, 0.428571428571428, 0, 0]) ** 2  # min-max of |t| = [4, 2, .5, NaN], squared
GRADED = np.array([0.4, 0.3, 0.2, 0.1])


def close(value, expected, atol=6e-7):
    np.testing.assert_allclose(value, expected, atol=atol, rtol=0)


def test_errors_of_the_golden_fixture():
    close(metrics.mse(GUESS, TRUTH), [0.625, 0.125, 0.75], 1e-15)
    close(metrics.rmse(GUESS, TRUTH), [0.790569, 0.353553, 0.866025])
    close(metrics.l2(GUESS, TRUTH), [1.581139, 0.707107, 1.732051])
    close(metrics.mae(GUESS, TRUTH), [0.75, 0.25, 0.75], 1e-15)


def test_correlations_of_the_golden_fixture():
    close(metrics.pearson(GUESS, TRUTH), [0.948683, 0.577350, 0.816497])
    close(metrics.cosine(GUESS, TRUTH), [0.833333, 0.707107, 0.816497])
    close(metrics.r2(GUESS, TRUTH), [0.5, 0.333333, 0.555556])
    close(metrics.r2(TRUTH, GUESS), [-4, -1, -0.5], 1e-12)


def test_weighted_metrics_of_the_golden_fixture():
    close(metrics.weighted_mse(GUESS, TRUTH, SPARSE), [0.25, 0.038793, 0.844828])
    r2 = metrics.weighted_r2(GUESS, TRUTH, SPARSE)
    close(r2[:2], [-0.907029, 0.704082])
    assert np.isnan(r2[2])  # the truth is constant on the genes that have weight
    close(metrics.pearson(GUESS, TRUTH, weights=GRADED), [0.887211, 0.654654, 0.777765])
    close(metrics.weighted_r2(GUESS, TRUTH, GRADED), [0.413580, 0.404762, 0.551282])


def test_retrieval_of_the_golden_fixture():
    for distance in (L1(), L2()):
        strict = metrics.normalised_inverse_rank(GUESS, TRUTH, distance=distance, ties="strict")
        close(strict, [0.5, 1, 0.5], 0)
        close(metrics.normalised_inverse_rank(GUESS, TRUTH, distance=distance), [0.5, 1, 0.75], 0)
        columns = metrics.perturbation_discrimination(
            GUESS, TRUTH, distance=distance, ties="strict", direction="truth_to_pred"
        )
        close(columns, [1, 1, 1], 0)
    close(metrics.normalised_inverse_rank(GUESS, TRUTH, distance=Cosine(), ties="strict"), [1, 1, 0.5], 0)
    close(metrics.normalised_inverse_rank(GUESS, TRUTH, distance=Cosine()), [1, 1, 0.75], 0)
    columns = metrics.perturbation_discrimination(
        GUESS, TRUTH, distance=Cosine(), ties="strict", direction="truth_to_pred"
    )
    close(columns, [1, 0.5, 1], 0)
    close(metrics.perturbench_rank(GUESS, TRUTH), [0, 0, 0], 0)
    close(metrics.perturbench_rank(GUESS, TRUTH, distance=Cosine()), [0, 1 / 3, 0], 1e-15)


def test_references_of_the_golden_fixture():
    others = (TRUTH.sum(axis=0) - TRUTH) / 2
    close(metrics.pearson(GUESS, TRUTH, reference=others), [0.910465, 0.885714, 0.821898])
    close(metrics.pearson(GUESS, TRUTH, reference=TRUTH.mean(axis=0)), [0.657895, 0.765547, 0.529761])


def test_the_leave_one_out_mean_scores_minus_one_under_the_all_reference():
    others = (TRUTH.sum(axis=0) - TRUTH) / 2
    close(metrics.pearson(others, TRUTH, reference=TRUTH.mean(axis=0)), -1, 1e-12)


@pytest.mark.parametrize("direction", ["pred_to_truth", "truth_to_pred", "both"])
@pytest.mark.parametrize("distance", [L1(), L2(), Cosine()], ids=lambda d: type(d).__name__)
def test_a_constant_prediction_discriminates_at_chance(direction, distance):
    constant = np.broadcast_to(GUESS[0], GUESS.shape)
    score = metrics.perturbation_discrimination(constant, TRUTH, distance=distance, direction=direction)
    assert float(score.mean()) == pytest.approx(0.5, abs=1e-15)


def test_weighted_mse_of_added_noise_is_its_variance():
    rng = np.random.default_rng(0)
    truth, weights = rng.normal(size=(4, 200_000)), rng.gamma(0.3, 1, (4, 200_000))
    close(metrics.weighted_mse(truth + rng.normal(0, 0.7, truth.shape), truth, weights), 0.49, 0.02)


def test_weighted_r2_is_one_minus_error_over_variance():
    rng = np.random.default_rng(1)
    truth, guess, w = rng.normal(size=(5, 30)), rng.normal(size=(5, 30)), rng.gamma(1, 1, (5, 30))
    reference = rng.normal(size=30)
    share = w / w.sum(1, keepdims=True)
    delta = truth - reference
    variance = (share * (delta - (share * delta).sum(1, keepdims=True)) ** 2).sum(1)
    expected = 1 - metrics.weighted_mse(guess, truth, w) / variance
    close(metrics.weighted_r2(guess, truth, w, reference=reference), expected, 1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_correlations_equal_scipy(masked):
    rng = np.random.default_rng(2)
    truth, guess = rng.normal(size=(6, 40)), rng.normal(size=(6, 40))
    truth[:, :15], guess[:, 10:20] = 0, 0.0
    where = rng.random(40) < 0.6 if masked else np.ones(40, bool)
    for ours, theirs in ((metrics.pearson, scipy.stats.pearsonr), (metrics.spearman, scipy.stats.spearmanr)):
        expected = [theirs(g[where], t[where])[0] for g, t in zip(guess, truth, strict=True)]
        close(ours(guess, truth, where=where), expected, 1e-12)


def test_sides_with_different_controls_give_errors_of_effects():
    control, other = np.array([0.0, 1, 0, 2]), np.array([0.5, 1, 0, 1])
    expected = ((GUESS - other) - (TRUTH - control)) ** 2
    close(metrics.mse(GUESS, TRUTH, reference=control, pred_reference=other), expected.mean(1), 1e-15)
    close(metrics.mse(GUESS, TRUTH, reference=control), metrics.mse(GUESS, TRUTH), 1e-15)


def test_a_pasted_control_is_no_effect_even_after_rounding():
    control = np.random.default_rng(3).gamma(2, 1, 30)
    truth = control + np.random.default_rng(4).normal(0, 0.5, (5, 30))
    noise = 1 + 2e-16 * np.random.default_rng(5).choice([-1, 0, 1], (5, 30))
    pasted = control * noise
    assert np.isnan(metrics.pearson(pasted, truth, reference=control)).all()
    score = metrics.perturbation_discrimination(pasted, truth, reference=control, distance=Cosine())
    close(score, 0.5, 0)


def test_scale_limits_of_discrimination():
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(12, 50)) * rng.gamma(2, 1, (12, 1))
    guess = truth + rng.normal(0, 2, truth.shape)
    huge_l2 = metrics.perturbation_discrimination(1e9 * guess, truth, distance=L2())
    ranks = scipy.stats.rankdata(-guess @ truth.T, axis=1).diagonal()
    close(huge_l2, 1 - (ranks - 1) / 11, 1e-12)
    huge_l1 = metrics.perturbation_discrimination(1e9 * guess, truth, distance=L1())
    ranks = scipy.stats.rankdata(-np.sign(guess) @ truth.T, axis=1).diagonal()
    close(huge_l1, 1 - (ranks - 1) / 11, 1e-12)
    plain, scaled = (metrics.perturbation_discrimination(s * guess, truth, distance=Cosine()) for s in (1, 1e3))
    close(plain, scaled, 0)


def naive_discrimination(pred, real, distance, targets, exclude):
    """One perturbation at a time, deleting genes, counting in Python."""
    from scipy.spatial.distance import cdist

    scores = []
    for p in range(len(pred)):
        kept = np.ones(pred.shape[1], bool)
        dropped = {"own": [targets[p]], "panel": targets, "none": []}[exclude]
        kept[[g for g in dropped if g >= 0]] = False
        d = cdist(pred[p : p + 1, kept], real[:, kept], distance)[0]
        closer = sum(1.0 if x < d[p] else 0.5 if x == d[p] else 0.0 for q, x in enumerate(d) if q != p)
        scores.append(1 - closer / (len(real) - 1))
    return np.array(scores)


@pytest.mark.parametrize("exclude", ["none", "own", "panel"])
@pytest.mark.parametrize("name", ["cityblock", "euclidean", "cosine"])
def test_discrimination_equals_a_naive_loop(name, exclude):
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(15, 24))
    guess = 0.3 * truth + rng.normal(0, 1, truth.shape)
    guess[4] = guess[5] = 0.25 * truth[4]
    targets = np.append(np.arange(13), [-1, 3])
    guess[np.arange(13), np.arange(13)] -= 3  # the predicted knock-downs tell perturbations apart
    distance = {"cityblock": L1(), "euclidean": L2(), "cosine": Cosine()}[name]
    ours = metrics.perturbation_discrimination(guess, truth, distance=distance, targets=targets, exclude=exclude)
    close(ours, naive_discrimination(guess, truth, name, targets, exclude), 1e-12)


def test_tie_and_denominator_conventions():
    # The first prediction is as near to perturbations 0 and 1, the second to 0, 1 and 2, the third only to its own.
    distances = jnp.asarray([[1.0, 1, 2], [1, 1, 1], [3, 2, 1]])
    score = lambda **options: metrics.discrimination_from_distances(distances, **options)
    close(score(), [0.75, 0.5, 1], 0)
    close(score(ties="strict"), [0.5, 0, 1], 0)
    close(score(ties="position"), [1, 0.5, 1], 0)
    close(score(ties="position", denominator="n"), [1, 2 / 3, 1], 1e-15)


def test_candidates_banks_and_masks():
    rng = np.random.default_rng(8)
    bank = rng.normal(size=(20, 10))
    own = np.array([3, 17, 0, 8])
    guess = bank[own] + rng.normal(0, 1, (4, 10))
    whole = metrics.perturbation_discrimination(guess, bank, own=own)
    order = rng.permutation(20)
    moved = metrics.perturbation_discrimination(guess, bank[order], own=np.argsort(order)[own])
    close(whole, moved, 1e-15)
    chosen = np.zeros(20, bool)
    chosen[[3, 17, 0, 8]] = True
    among = metrics.perturbation_discrimination(guess, bank, own=own, candidates=chosen)
    close(among, metrics.perturbation_discrimination(guess, bank[own]), 1e-15)
    each = np.broadcast_to(chosen, (4, 20))
    close(among, metrics.perturbation_discrimination(guess, bank, own=own, candidates=each), 0)
    alone = metrics.perturbation_discrimination(guess, bank, own=own, candidates=np.zeros(20, bool))
    assert np.isnan(alone).all()


def test_reciprocal_rank_and_recall():
    rng = np.random.default_rng(9)
    truth, guess = rng.normal(size=(30, 8)), rng.normal(size=(30, 8))
    from scipy.spatial.distance import cdist

    ranks = scipy.stats.rankdata(cdist(guess, truth), axis=1).diagonal()
    close(metrics.mean_reciprocal_rank(guess, truth, distance=L2()), 1 / ranks, 1e-15)
    for k in (1, 5, 10):
        close(metrics.recall_at_k(guess, truth, k, distance=L2()), ranks <= k, 0)
    tied = np.zeros((2, 3))
    close(metrics.recall_at_k(tied, tied, 1), 0.5, 0)
    with pytest.raises(ValueError, match="at least 1"):
        metrics.recall_at_k(guess, truth, 0)


def test_one_perturbation_has_no_rank():
    score = metrics.perturbation_discrimination(GUESS[:1], TRUTH[:1])
    assert np.isnan(score).all()


def test_amplitudes():
    close(metrics.amplitude_ratio(10 * TRUTH, TRUTH), 10, 1e-12)
    close(metrics.amplitude_slope(10 * TRUTH, TRUTH), 10, 1e-12)
    close(metrics.amplitude_slope(-TRUTH, TRUTH), -1, 1e-12)
    across = TRUTH + np.array([[0, 5.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 5.0]])
    close(metrics.amplitude_slope(across, TRUTH), 1, 1e-12)
    assert float(metrics.amplitude_ratio(across, TRUTH).min()) > 1.5


def test_noise_corrected_errors_are_unbiased():
    rng = np.random.default_rng(10)
    perts, genes, cells = 400, 60, 12
    truth, guess = rng.normal(size=(2, perts, genes))
    draws = [m[:, None] + rng.normal(0, 1.5, (perts, cells, genes)) for m in (guess, truth)]
    means = [d.mean(1) for d in draws]
    noises = [d.var(1, ddof=1).sum(1) / cells for d in draws]
    corrected = metrics.unbiased_mse(*means, *noises)
    exact = ((guess - truth) ** 2).mean(1)
    assert float((corrected - exact).mean()) == pytest.approx(0, abs=4 * float((corrected - exact).std()) / 20)
    assert float((metrics.mse(*means) - exact).mean()) == pytest.approx(2 * 2.25 / cells, rel=0.05)


def test_granted_noise():
    rng = np.random.default_rng(11)
    guess, noise = rng.normal(size=(5, 12)), np.full(5, 0.5)
    close(metrics.granted_noise(np.broadcast_to(guess[0], (5, 12)), noise, noise), 0, 1e-25)  # no variety, no grant
    close(metrics.granted_noise(guess[:1], noise[:1], noise[:1]), 0, 1e-15)
    close(metrics.granted_noise(guess, noise, noise), noise, 0)  # they vary more than they claim
    close(metrics.granted_noise(guess, 9 * noise, noise), noise, 0)  # capped by the measured noise
    small = 1e-3 * guess
    claimed = metrics.granted_noise(small, noise, noise)
    budget = ((small - small.mean(0)) ** 2).sum() / 12
    close(claimed.sum() / 12, budget, 1e-12)


def test_noise_corrected_norm_is_undefined_without_signal():
    real, control = np.zeros((3, 6)), np.zeros(6)
    noise = np.ones(3)
    value = metrics.capped_norm(real, real, control, noise, noise, 1.0)
    assert np.isnan(float(value))


def test_mass_ratio():
    profile = np.log1p(np.array([[10.0, 20, 70], [0, 0, 0]]))
    close(metrics.mass_ratio(profile, 100.0), [1, 0], 1e-15)


BAD = {
    "broadcast": (GUESS[:1], TRUTH),
    "one axis": (GUESS[0], TRUTH[0]),
    "other genes": (GUESS[:, :3], TRUTH),
}


@pytest.mark.parametrize("function", [metrics.mse, metrics.mae, metrics.pearson, metrics.spearman, metrics.r2])
@pytest.mark.parametrize("case", BAD)
def test_shapes_that_would_broadcast_are_refused(function, case):
    with pytest.raises((ValueError, TypeCheckError)):
        function(*BAD[case])


@pytest.mark.parametrize("function", [metrics.mse, metrics.pearson, metrics.perturbation_discrimination])
def test_values_that_are_not_real_numbers_are_refused(function):
    with pytest.raises((TypeError, TypeCheckError)):
        function(GUESS + 1j, TRUTH)


def test_options_of_discrimination_are_checked():
    score = lambda **options: metrics.perturbation_discrimination(GUESS, TRUTH, **options)
    with pytest.raises((ValueError, TypeCheckError)):
        score(ties="random")
    with pytest.raises(ValueError, match="needs `targets`"):
        score(exclude="own")
    with pytest.raises(ValueError, match="say with `own`"):
        metrics.perturbation_discrimination(GUESS[:2], TRUTH)
    with pytest.raises(ValueError, match="same perturbations on both sides"):
        score(own=np.array([0, 1, 2]), direction="truth_to_pred")


@pytest.mark.parametrize(
    ("pred", "real"), list(itertools.product(["float16", "int32", "float32", "float64"], repeat=2))
)
def test_dtypes_are_promoted_and_stated(pred, real):
    value = metrics.mse(GUESS.astype(pred), TRUTH.astype(real))
    assert value.dtype == (np.float64 if "float64" in (pred, real) else np.float32)
    close(value, ((GUESS.astype(pred).astype(float) - TRUTH) ** 2).mean(1), 1e-6)


def test_profiles_say_what_they_lack():
    real = vcjax.effects_as_profiles(TRUTH)
    with pytest.raises(ValueError, match="no sampling noise"):
        metrics.CATALOGUE["expr_mse_unbiased"](GUESS, real)
    with pytest.raises(ValueError, match="is expected"):
        real.with_mean(GUESS[:2])
    with pytest.raises(ValueError, match="takes no gene weights"):
        metrics.CATALOGUE["pds_l1"](GUESS, real, weights=GRADED)
