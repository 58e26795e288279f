import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import directional, finite_difference
from jaxtyping import TypeCheckError

from vcjax import metrics


CELLS, GENES = 60, 40


def cells(seed: int, shift: float = 0.0) -> np.ndarray:
    """Log-normalised cells whose genes share two factors, some of them never expressed or constant."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).normal(0, 0.6, (2, GENES))
    rate = np.exp(0.5 + shift * np.linspace(-1, 1, GENES) + rng.normal(size=(CELLS, 2)) @ loadings)
    x = np.log1p(rng.poisson(rate))
    x[:, 5] = 0
    x[:, 6] = 0.7
    x[9:, 7] = 0  # expressed in fewer than ten cells
    return x


REAL, PRED, CONTROL = cells(0, 1.0), cells(1, 1.0), cells(2)


def chosen(target: int = -1, top: int = 100):
    """The genes by the definition, one after the other."""
    change = np.abs(np.log2((np.expm1(REAL).mean(0) + 1) / (np.expm1(CONTROL).mean(0) + 1)))
    able = [g for g in range(GENES) if (REAL[:, g] > 0).sum() >= 10 and g != target]
    return sorted(able, key=lambda g: (-change[g], g))[:top]


def varying(genes):
    return [g for g in genes if REAL[:, g].std() > 1e-6 and PRED[:, g].std() > 1e-6]


def matrices(genes):
    return np.corrcoef(PRED[:, genes].T), np.corrcoef(REAL[:, genes].T)


@pytest.mark.parametrize(("target", "top"), [(-1, 100), (3, 25)])
def test_responding_genes_equal_their_definition(target, top):
    genes = metrics.responding_genes(REAL, CONTROL, target=target, top=top)
    assert list(np.asarray(genes.gene)[np.asarray(genes.used)]) == chosen(target, top)


def test_correlation_and_eigenvalues_equal_numpy():
    genes = metrics.responding_genes(REAL, CONTROL, top=30)
    a, b = matrices(varying(chosen(top=30)))
    upper = np.triu_indices(len(a), 1)
    assert float(metrics.covariance_correlation(PRED, REAL, genes)) == pytest.approx(
        np.corrcoef(a[upper], b[upper])[0, 1], abs=1e-12
    )
    assert float(metrics.covariance_eigenvalue_ratio(PRED, REAL, genes)) == pytest.approx(
        np.linalg.eigvalsh(a)[-1] / np.linalg.eigvalsh(b)[-1], abs=1e-12
    )
    assert float(metrics.covariance_correlation(REAL, REAL, genes)) == pytest.approx(1)
    assert float(metrics.covariance_eigenvalue_ratio(REAL, REAL, genes)) == pytest.approx(1)


def test_concordance_equals_its_definition_over_significant_pairs():
    a, b = matrices(varying(range(GENES)))
    upper = np.triu_indices(len(a), 1)
    # A correlation is at the threshold where its p-value is 5 %.
    t = scipy.stats.t.ppf(0.975, CELLS - 2)
    least = t / np.sqrt(CELLS - 2 + t**2)
    both = (np.abs(a[upper]) >= least) & (np.abs(b[upper]) >= least)
    x, y = a[upper][both], b[upper][both]
    wanted = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2 + 1e-12)
    assert both.sum() > 20
    assert float(metrics.covariance_concordance(PRED, REAL)) == pytest.approx(wanted, abs=1e-12)
    assert float(metrics.covariance_concordance(REAL, REAL)) == pytest.approx(1)


def test_too_little_to_go_by_is_undefined():
    genes = metrics.responding_genes(REAL, CONTROL, top=19)
    assert np.isnan(metrics.covariance_correlation(PRED, REAL, genes))
    assert np.isnan(metrics.covariance_eigenvalue_ratio(PRED, REAL, genes))
    flat = np.ones_like(REAL)
    everything = metrics.responding_genes(REAL, CONTROL)
    assert np.isnan(metrics.covariance_correlation(flat, REAL, everything))
    assert np.isnan(metrics.covariance_concordance(flat, REAL))
    assert np.isnan(metrics.covariance_concordance(PRED[:2], REAL[:2]))
    with pytest.raises((ValueError, TypeCheckError)):
        metrics.covariance_concordance(PRED[:-1], REAL)
    with pytest.raises((ValueError, TypeCheckError)):
        metrics.covariance_correlation(PRED[:-1], REAL, everything)


@pytest.mark.parametrize("name", ["covariance_correlation", "covariance_eigenvalue_ratio", "covariance_concordance"])
def test_gradients_equal_finite_differences(name):
    extra = () if name == "covariance_concordance" else (metrics.responding_genes(REAL, CONTROL),)
    function = jax.jit(lambda pred: getattr(metrics, name)(pred, REAL, *extra))
    smooth = PRED + np.random.default_rng(3).normal(0, 0.05, PRED.shape)
    direction = np.random.default_rng(4).normal(size=PRED.shape)
    assert directional(function, smooth, direction) == pytest.approx(
        finite_difference(function, smooth, direction, 1e-7), rel=1e-5
    )
    for pred in (PRED, np.zeros_like(PRED)):  # constant genes
        assert np.isfinite(jax.grad(lambda x: jnp.nan_to_num(function(x)))(jnp.asarray(pred))).all()
