"""Tables of differential expression for tests, with every oddity a table can have."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import vcjax


PERTS, GENES = 14, 30


def odd_tables(seed: int) -> tuple[Any, Any]:
    """A predicted and a measured side with ties, infinite and undefined fold changes, empty sets and full ones."""
    rng, perts, genes = np.random.default_rng(seed), PERTS, GENES
    real, pred = _table(rng, perts, genes), _table(rng, perts, genes)
    shared = rng.random((perts, genes)) < 0.5  # so that the two sides agree in part
    for name in ("log2_fold_change", "log_pvalue", "log_padj"):
        pred[name] = np.where(shared, real[name], pred[name])
    insignificant = {"log_pvalue": np.log(0.4), "log_padj": np.log(0.7)}
    certain = {"log_pvalue": np.log(0.001), "log_padj": np.log(0.004)}
    for sides, row, entries in (
        ([real], 0, insignificant),
        ([pred], 1, insignificant),
        ([real, pred], 2, insignificant),
        ([real], 3, certain),
        ([pred], 4, certain),
        ([real, pred], 5, certain),
        ([real], 6, {"log2_fold_change": 0.0}),
        ([pred], 7, {"log2_fold_change": 0.5}),
        ([real], 8, {"log2_fold_change": 1.5}),
        ([pred], 9, {"log2_fold_change": np.nan}),
    ):
        for side in sides:
            for name, value in entries.items():
                side[name][row] = value
    for side in (real, pred):  # one significant gene, the own target
        side["log_padj"][10] = np.where(np.arange(genes) == 3, np.log(0.01), np.log(0.6))
    targets = np.where(np.arange(perts) % 3 == 0, -1, np.arange(perts) % genes)
    targets[10] = 3
    return _side(pred, targets), _side(real, targets)


def _table(rng, perts, genes):
    shape = perts, genes
    change = np.round(rng.normal(0, 1, shape), 1)
    odd = rng.random(shape)
    change = np.select([odd < 0.03, odd < 0.06, odd < 0.08], [np.inf, -np.inf, np.nan], change)
    padj = rng.choice([0.0, 1e-12, 1e-4, 0.01, 0.04, 0.05, 0.2, 0.9, 1.0], shape)
    with np.errstate(divide="ignore"):
        log_padj = np.where(rng.random(shape) < 0.03, np.nan, np.log(padj))
        log_pvalue = np.log(padj * rng.choice([0.2, 0.5], shape))
    return {
        "log2_fold_change": change,
        "log_pvalue": log_pvalue,
        "log_padj": log_padj,
        "tested": rng.random(shape) < 0.9,
        "name_order": rng.permutation(genes),
    }


def _side(table, targets):
    zeros = jnp.zeros(table["tested"].shape)
    arrays = {name: jnp.asarray(value) for name, value in table.items()}
    return vcjax.Profiles(zeros, zeros[0], targets=jnp.asarray(targets), de=vcjax.DETable(**arrays))


def smooth_tables(dtype: Any = np.float64, *, perts: int = PERTS, genes: int = GENES) -> tuple[Any, Any]:
    """A predicted and a measured side without oddities, whose statistics lie on either side of significance."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, (perts, genes)) * (rng.random((perts, genes)) < 0.7)
    sides = [_measured(truth + rng.normal(0, noise, truth.shape), dtype) for noise in (0.5, 0.1)]
    targets = jnp.asarray(np.where(np.arange(perts) == 2, -1, np.arange(perts)))
    energy = rng.gamma(2, 1, (2, perts))
    energy[0] += energy[1]
    pred, real = (
        vcjax.Profiles(de.log_padj, de.log_padj[0], targets=targets, de=de, energy=jnp.asarray(e, dtype))
        for de, e in zip(sides, energy, strict=True)
    )
    return pred, real


def _measured(change, dtype):
    z = jnp.asarray(np.abs(4 * change))
    log_p = vcjax.de.log_two_sided(z)
    log_padj = vcjax.de.benjamini_hochberg(log_p)
    arrays = [jnp.asarray(x, dtype) for x in (change, log_p, log_padj)]
    return vcjax.DETable(*arrays, tested=jnp.ones(change.shape, bool), z=z.astype(dtype))
