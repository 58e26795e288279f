"""What metrics are worth on two real screens: dynamic range and discrimination between controls made of their cells.

    python benchmarks/real_data.py --data FOLDER [--seeds 5] [--out FOLDER]

`FOLDER` holds `perturbench-devel/devel.h5ad` (its K562 part is used) and `papalexi-sceptredata/papalexi_lowmoi.h5ad`.
The published finding is that weighted and rank metrics tell a replicate from the mean of the other perturbations, and
that MSE and correlations of effects from the control hardly do. The report says whether that holds here, and why not
where it does not: the same screens with fewer cells, and with genes added that respond to nothing.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _measure import machine, RESULTS, versions, write_results
from _real_data_report import report

import vcjax
from vcjax.calibration import calibrate, Calibration, ControlSet, signal_to_noise
from vcjax.comparison import systematic_variation
from vcjax.de import Moments
from vcjax.evaluation import make_controls
from vcjax.io import CELL_EVAL2_DE, read_screen, Screen, split_halves, summarise
from vcjax.metrics import CATALOGUE, cosine
from vcjax.weights import CALIBRATED, effective_genes, MILLER, Weights


FILES = {
    "k562": "perturbench-devel/devel.h5ad",
    "papalexi": "papalexi-sceptredata/papalexi_lowmoi.h5ad",
}
LEAST_CELLS = 4
# Rows of the main table: the metric, which weights, and what its effects are measured from.
ROWS = (
    ("expr_mse", None, "control"),
    ("delta_pearson", None, "control"),
    ("delta_cosine", None, "control"),
    ("delta_pearson", None, "mean"),
    ("weighted_mse", "other half", "control"),
    ("weighted_r2", "other half", "control"),
    ("weighted_r2", "other half", "mean"),
    ("pds_l1", None, "control"),
    ("pds_l2", None, "control"),
    ("pds_cosine", None, "control"),
    ("nir", None, "control"),
    ("de_overlap", None, "control"),
    ("de_sig_jaccard", None, "control"),
    ("de_pr_auc", None, "control"),
    ("de_direction_match", None, "control"),
)
FEW = (
    ("expr_mse", None),
    ("delta_pearson", None),
    ("weighted_mse", "first half, no target"),
    ("weighted_mse", "other half"),
    ("pds_cosine", None),
)
CELLS_OF_HALF = (5, 10, 20, 40)
DILUTIONS = (0, 3, 15)


def read_data(folder: pathlib.Path) -> dict[str, anndata.AnnData]:
    """Both screens: log-normalised cells of K562, and counts of the THP-1 cells with one guide beyond doubt."""
    devel = anndata.read_h5ad(folder / FILES["k562"])
    k562 = devel[(devel.obs["cell_type"] == "k562").to_numpy()].copy()
    papalexi = anndata.read_h5ad(folder / FILES["papalexi"])
    pure = (papalexi.obs["guide_purity"] > 0.8).to_numpy()
    return {"k562": k562, "papalexi": papalexi[pure].copy()}


def screen_of(adata: anndata.AnnData) -> Screen:
    """The screen of either data set."""
    labels = set(adata.obs["perturbation"].astype(str))
    return read_screen(adata, pert_col="perturbation", control="control" if "control" in labels else "non-targeting")


def log_cells(screen: Screen, adata: anndata.AnnData) -> np.ndarray:
    """The cells as `make_controls` sees them: log-normalised to the median total of all cells."""
    values: Any = adata.X
    cells = np.asarray(values.toarray() if sp.issparse(values) else values, np.float64)
    if screen.scale == "counts":
        totals = cells.sum(axis=1, keepdims=True)
        cells = np.log1p(cells / np.where(totals > 0, totals / np.median(totals[totals > 0]), 1))
    return cells


def moments_of(cells: np.ndarray, half: Screen, perts: Sequence[str]) -> Moments:
    """Moments of the cells of one half, in the order of `perts`."""
    groups = [cells[half.codes == half.perts.index(name)] for name in perts]
    rows = [(x.mean(axis=0), x.var(axis=0, ddof=1), float(len(x))) for x in groups]
    return Moments(*(jnp.asarray(np.stack(part), jnp.result_type(float)) for part in zip(*rows, strict=True)))


def controls_of(adata: anndata.AnnData, seeds: Sequence[int], **options: Any) -> dict[str, tuple[ControlSet, ...]]:
    """The control sets under every kind of weights, by where the weights are from.

    `first half`: Miller's, of the truth's own cells; `first half, no target`: this library's recipe of the same cells;
    `other half`: the same of the cells that are not the truth (cross-fitted).
    """
    screen = screen_of(adata)
    sets = make_controls(screen, seeds=seeds, min_cells=LEAST_CELLS, **options)
    cells = log_cells(screen, adata)
    kinds: dict[str, list[ControlSet]] = {"first half": [], "first half, no target": [], "other half": []}
    for seed, one in zip(seeds, sets, strict=True):
        assert one.moments is not None
        first, second, _ = split_halves(screen, seed, min_cells=LEAST_CELLS)
        own, other = (moments_of(cells, half, one.perts) for half in (first, second))
        np.testing.assert_allclose(own.mean, one.moments.mean, rtol=1e-4, atol=1e-5)
        given: dict[str, Any] = {"targets": one.truth.targets, "perts": one.perts}
        weights: dict[str, Weights] = {
            "first half": MILLER(one.moments, perts=one.perts),
            "first half, no target": CALIBRATED(one.moments, **given, cells="first half"),
            "other half": CALIBRATED(other, **given, cells="other half"),
        }
        for kind, found in weights.items():
            kinds[kind].append(dataclasses.replace(one, weights=found.values))
    return {kind: tuple(found) for kind, found in kinds.items()}


def from_mean(one: ControlSet) -> ControlSet:
    """The same with effects from the mean of the other perturbations, as the null control has it.

    The null control then has an effect of exactly zero, as the control has when effects are measured from the control.
    """
    null = next(name for name in ("loo_mean", "train_mean") if name in one.controls)
    reference = one.controls[null].profiles.mean

    def moved(profiles: vcjax.Profiles) -> vcjax.Profiles:
        nothing = jnp.zeros_like(profiles.control)
        return dataclasses.replace(profiles, mean=profiles.mean - reference, control=nothing, space="delta")

    controls = {
        name: dataclasses.replace(control, profiles=moved(control.profiles)) for name, control in one.controls.items()
    }
    return dataclasses.replace(one, truth=moved(one.truth), controls=controls)


def measure(sets: Mapping[str, Sequence[ControlSet]], metric: str, weights: str | None, reference: str) -> Calibration:
    """One metric between the controls of a screen."""
    chosen = sets[weights or "other half"]
    return calibrate(CATALOGUE[metric], [from_mean(one) for one in chosen] if reference == "mean" else chosen)


def described(found: Calibration, weights: str | None, reference: str) -> dict[str, Any]:
    """The numbers of a calibration for the report."""
    row: dict[str, Any] = {
        "metric": found.metric.name,
        "weights": weights,
        "reference": reference,
        "null": found.null or found.negative,
        "separates": found.separates,
        "verdict": found.verdict,
        "status": dict(found.status),
        "means": {name: found.mean(name) for name in found.values},
        "against": {},
    }
    for positive in ("duplicate", "interpolated"):
        for low in dict.fromkeys((found.null, found.negative)):
            bounds = None if low is None else found.between(positive, low)
            if bounds is not None:
                fraction = bounds.fraction
                row["against"][f"{positive} over {low}"] = {
                    "drf": [fraction.median, fraction.low, fraction.high],
                    "bds": [bounds.discrimination, *bounds.discrimination_interval],
                    "gain": [bounds.gap, *bounds.gap_interval],
                    "count": bounds.count,
                }
    return row


def signal(sets: Sequence[ControlSet], mse: Calibration) -> dict[str, Any]:
    """Signal to noise of a half against the mean, and whether it foretells the sign of the MSE's dynamic range."""
    rows = [
        signal_to_noise(
            one.truth.mean, one.controls["loo_mean"].profiles.mean, one.truth.noise, duplicate_noise=one.truth.noise
        )
        for one in sets
        if one.truth.noise is not None
    ]
    snr = np.mean([np.asarray(row) for row in rows], axis=0)
    gain = mse.values["loo_mean"] - mse.values["duplicate"]
    return {
        "quartiles": np.quantile(snr, [0, 0.25, 0.5, 0.75, 1]).tolist(),
        "above_1": float(np.mean(snr > 1)),
        "foretold": float(np.mean((snr > 1) == (gain > 0))),
        "perturbations": len(snr),
    }


def variation(adata: anndata.AnnData, seeds: Sequence[int]) -> dict[str, Any]:
    """Systematic variation: mean and standard deviation over perturbations of the cosine with the common effect.

    `published` is Systema's (the mean of all perturbations); `leave one out` leaves a perturbation's own share out;
    `apart` takes the effect and the common effect from different halves of the control cells besides, so that the
    noise of a shared control cannot pass for a common response (but lowers the cosine, by its noise in both).
    """
    screen = screen_of(adata)
    whole = summarise(screen, space="lognorm").to_profiles()
    effects = whole.mean - whole.control[None, :]
    told = lambda x: [float(np.mean(x)), float(np.std(x, ddof=1))]
    singles = np.array(["+" not in name for name in screen.perts])
    cells, apart = log_cells(screen, adata), []
    others = (jnp.sum(whole.mean, axis=0)[None, :] - whole.mean) / (len(screen.perts) - 1)
    for seed in seeds:
        control = np.random.default_rng(seed).permutation(np.flatnonzero(screen.codes == -1))
        one, other = (jnp.asarray(cells[part].mean(axis=0), whole.mean.dtype) for part in np.array_split(control, 2))
        apart.append(np.asarray(cosine(others - one[None, :], whole.mean - other[None, :])))
    found = {
        "perturbations": len(screen.perts),
        "control_cells": int(np.sum(screen.codes == -1)),
        "published": told(systematic_variation(effects, leave_one_out=False)),
        "leave one out": told(systematic_variation(effects)),
        "apart": told(np.mean(apart, axis=0)),
    }
    if not singles.all():
        found |= {"singles": int(singles.sum()), "published, singles": told(
            systematic_variation(effects[np.flatnonzero(singles)], leave_one_out=False))}  # fmt: skip
    return found


def thinned(adata: anndata.AnnData, cells: int, seed: int = 0) -> anndata.AnnData:
    """The same screen with so many cells of each perturbation; the control cells stay."""
    labels, rng = adata.obs["perturbation"].astype(str).to_numpy(), np.random.default_rng(seed)
    controls = [name for name in ("control", "non-targeting") if name in labels]
    kept = [np.flatnonzero(np.isin(labels, controls))]
    for name in np.setdiff1d(labels, controls):
        kept.append(rng.permutation(np.flatnonzero(labels == name))[:cells])
    return adata[np.sort(np.concatenate(kept))].copy()


def diluted(adata: anndata.AnnData, copies: int, seed: int = 0) -> anndata.AnnData:
    """The same screen with copies of all genes that respond to nothing: those of another cell, drawn at random."""
    values: Any = sp.csr_matrix(adata.X)
    rng = np.random.default_rng(seed)
    blocks = [values, *(values[rng.permutation(adata.n_obs)] for _ in range(copies))]
    names = [f"{name}{'' if i == 0 else f'~{i}'}" for i in range(copies + 1) for name in adata.var_names]
    found = anndata.AnnData(sp.csr_matrix(sp.hstack(blocks)), obs=pd.DataFrame(adata.obs))
    found.var_names = names
    return found


def stressed(adata: anndata.AnnData, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A few metrics with fewer cells, and with genes added that respond to nothing."""
    cases = [(f"{n} cells in a half", lambda n=n: thinned(adata, 2 * n)) for n in CELLS_OF_HALF]
    genes = adata.n_vars
    cases += [(f"{genes * (copies + 1)} genes", lambda copies=copies: diluted(adata, copies)) for copies in DILUTIONS]
    found = []
    for name, make in cases:
        screen = make()
        sets = controls_of(screen, seeds, kinds=("control", "mean", "duplicate", "interpolated"))
        calibrated = {row: measure(sets, *row, "control") for row in FEW}
        rows = [described(value, weights, "control") for (_, weights), value in calibrated.items()]
        found.append({"case": name, "rows": rows, "snr": signal(sets["other half"], calibrated[FEW[0]])})
        jax.clear_caches()
    return found


def run_screen(name: str, adata: anndata.AnnData, seeds: Sequence[int]) -> dict[str, Any]:
    """All of one screen."""
    sets = controls_of(adata, seeds, de=CELL_EVAL2_DE)
    one = sets["other half"][0]
    rows, mse = [], None
    for metric, weights, reference in ROWS:
        found = measure(sets, metric, weights, reference)
        mse = found if metric == "expr_mse" else mse
        rows.append(described(found, weights, reference))
        print(f"{name}: {metric} {weights or ''} from {reference}: {found.verdict}", flush=True)
    assert mse is not None
    weighted = [described(measure(sets, "weighted_mse", kind, "control"), kind, "control") for kind in sets]
    neff = {
        kind: float(np.median([effective_genes(x.weights) for x in some if x.weights is not None]))
        for kind, some in sets.items()
    }
    train = [label for i, label in enumerate(one.perts) if i % 2 == 0]
    apart = controls_of(adata, seeds, kinds=("control", "mean", "duplicate", "interpolated"), train=train)
    trained = [described(measure(apart, metric, weights, "control"), weights, "control") for metric, weights in FEW]
    jax.clear_caches()
    return {
        "name": name,
        "perturbations": len(one.perts),
        "cells": int(adata.n_obs),
        "genes": int(adata.n_vars),
        "cells_of_half": np.quantile(np.asarray(one.moments.cells), [0, 0.5, 1]).tolist() if one.moments else None,
        "notes": list(one.notes),
        "rows": rows,
        "weighted": weighted,
        "effective_genes": neff,
        "train_mean": {"train": len(train), "rows": trained},
        "snr": signal(sets["other half"], mse),
        "systematic_variation": variation(adata, seeds),
        "stress": stressed(adata, seeds),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs both screens and writes `real_data.json` and `real_data.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the data sets")
    parser.add_argument("--screens", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--seeds", type=int, default=5, help="divisions of the cells into halves")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    seeds, data = list(range(args.seeds)), read_data(args.data)
    results = {
        "machine": machine(),
        "versions": versions(["vcjax", "jax", "numpy", "anndata"]),
        "settings": {"seeds": seeds, "files": FILES},
        "screens": [run_screen(name, data[name], seeds) for name in args.screens],
    }
    # A value that there is none of is null, which is JSON; NaN is not.
    plain = json.loads(json.dumps(results), parse_constant=lambda _: None)
    write_results("real_data", plain, report(plain), args.out)


if __name__ == "__main__":
    main()
