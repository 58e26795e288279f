"""One contender of calibration.py in a process of its own: `vcjax64`, `vcjax32`, `numpy` or `scperteval`.

    python _calibration_worker.py NAME FOLDER THREADS

A request (see `_peer.py`) is `{"case": "weighted"}`. `FOLDER` holds the input; what a case finds goes to
`NAME-CASE.npz` there.
"""

import importlib
import pathlib
import sys
import types
from typing import Any

import numpy as np
from _peer import serve


SAMPLES = 1000
FIELDS: tuple[str, ...] = ("wmse_positive", "wmse_negative", "r2_positive", "r2_negative", "drf_wmse", "drf_r2")


def load(folder, *names):
    """Arrays of the input by name."""
    return [np.load(folder / f"{name}.npy") for name in names]


def load_cells(folder):
    """The log-normalised cells as an AnnData, labelled."""
    import anndata
    import scipy.sparse as sp

    adata = anndata.AnnData(sp.load_npz(folder / "cells.npz"))
    (codes,) = load(folder, "codes")
    adata.obs["perturbation"] = np.array([f"P{code:04d}" if code >= 0 else "control" for code in codes])
    adata.obs_names = [f"cell{i}" for i in range(adata.n_obs)]
    adata.var_names = [f"G{i:05d}" for i in range(adata.n_vars)]
    return adata


def fractions(wmse, r2):
    """The dynamic range fractions of both metrics by hand, from (positive, negative) each."""
    errors = np.clip((wmse[1] - wmse[0]) / (wmse[1] + 1e-6), -1, 1)
    return errors, np.clip((r2[0] - r2[1]) / (1 - r2[1] + 1e-6), -1, 1)


class Vcjax:
    """This library, in float64 or float32."""

    def __init__(self, folder, threads, bits):
        import jax

        jax.config.update("jax_enable_x64", bits == 64)
        jax.config.update("jax_platforms", "cpu")
        self.jax, self.folder, self.dtype = jax, folder, f"float{bits}"
        self.inputs, self.programs = {}, {}

    def _arrays(self, *names):
        for name in names:
            if name not in self.inputs:
                self.inputs[name] = self.jax.numpy.asarray(np.load(self.folder / f"{name}.npy"), self.dtype)
        return [self.inputs[name] for name in names]

    def prepare(self, case):
        """Inputs where they are wanted, and the program; nothing of it is timed."""
        if case == "weighted":
            self.arguments = self._arrays("scores", "first_mean", "second_mean", "null", "control")
        elif case == "moments":
            from vcjax.de import Moments

            names = [
                f"{side}_{part}" for side in ("first", "second", "whole") for part in ("mean", "variance", "cells")
            ]
            parts = self._arrays(*names)
            moments = [Moments(*parts[i : i + 3]) for i in (0, 3, 6)]
            self.arguments = [*moments, *self._arrays("control")]
        elif case == "bootstrap":
            self.arguments = [*self._arrays("values"), self.jax.random.key(0)]
        elif case == "cells":
            self.adata = load_cells(self.folder) if not hasattr(self, "adata") else self.adata
            return self.from_cells
        if case not in self.programs:
            function = {"weighted": weighted, "moments": from_moments, "bootstrap": intervals}[case]
            self.programs[case] = self.jax.jit(function).lower(*self.arguments).compile()
        program, arguments = self.programs[case], self.arguments
        return lambda: self.jax.block_until_ready(program(*arguments))

    def from_cells(self):
        """What a user calls: controls of a screen, weights, and two metrics calibrated."""
        import dataclasses

        from vcjax.calibration import calibrate
        from vcjax.evaluation import make_controls
        from vcjax.io import read_screen
        from vcjax.metrics import CATALOGUE
        from vcjax.weights import SCPERTEVAL

        screen = read_screen(self.adata, pert_col="perturbation", control="control", input_type="lognorm")
        (one,) = make_controls(screen, seeds=(0,), kinds=("mean", "duplicate", "interpolated"))
        one = dataclasses.replace(one, weights=SCPERTEVAL(one.moments, perts=one.perts).values)
        rows = [calibrate(CATALOGUE[name], one, positive="interpolated") for name in ("weighted_mse", "weighted_r2")]
        values = [row.values[name] for row in rows for name in ("interpolated", "loo_mean")]
        return dict(zip(FIELDS, [*values, *fractions(values[:2], values[2:])], strict=True))

    def memory(self, case):
        """Bytes that a compiled program holds beside its inputs, from its compiled form."""
        if case not in self.programs:
            return None
        analysis = self.programs[case].memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def weighted(scores, real, positive, null, control):
    """Weights of given |t|, and WMSE and R2w of both controls."""
    import dataclasses

    from vcjax.metrics import weighted_mse, weighted_r2
    from vcjax.weights import SCPERTEVAL

    values = dataclasses.replace(SCPERTEVAL, to="sum1").from_scores(scores).values
    found = [weighted_mse(pred, real, values) for pred in (positive, null)]
    found += [weighted_r2(pred, real, values, reference=control) for pred in (positive, null)]
    return dict(zip(FIELDS, found, strict=False))


def from_moments(first, second, whole, control):
    """Tests, weights, the controls, WMSE and R2w of both, and their dynamic range fractions."""
    import dataclasses

    from vcjax.calibration import dynamic_range_fraction, interpolated_duplicate, leave_one_out_mean
    from vcjax.de import benjamini_hochberg, rest_of, welch_test
    from vcjax.metrics import weighted_mse, weighted_r2
    from vcjax.weights import SCPERTEVAL

    recipe = dataclasses.replace(SCPERTEVAL, statistic="welch", to="sum1")
    values = recipe(first, pool=whole).values
    null = leave_one_out_mean(whole.mean)
    log_padj = benjamini_hochberg(welch_test(second, rest_of(whole)).log_pvalue)
    positive = interpolated_duplicate(second.mean, null, log_padj)
    wmse = [weighted_mse(pred, first.mean, values) for pred in (positive, null)]
    r2 = [weighted_r2(pred, first.mean, values, reference=control) for pred in (positive, null)]
    errors = dynamic_range_fraction(wmse[0], wmse[1], 0.0, higher_is_better=False)
    drf = [errors, dynamic_range_fraction(r2[0], r2[1], 1.0, higher_is_better=True)]
    return dict(zip(FIELDS, [*wmse, *r2, *drf], strict=True))


def intervals(values, key):
    """Bootstrap intervals of the means of several metrics over perturbations."""
    import jax

    from vcjax.comparison import confidence_interval

    one = lambda row: confidence_interval(row, key=key, samples=SAMPLES, method="percentile", small_sample=False)
    found = jax.vmap(one)(values)
    return {"low": found.low, "high": found.high}


class Numpy:
    """The same by NumPy and SciPy, all perturbations at once."""

    def __init__(self, folder, threads):
        self.folder = folder

    def prepare(self, case):
        """Inputs where they are wanted; nothing of it is timed."""
        if case == "weighted":
            arrays = load(self.folder, "scores", "first_mean", "second_mean", "null", "control")
            return lambda: self.weighted(*arrays)
        if case == "moments":
            sides = [load(self.folder, *(f"{side}_{part}" for part in ("mean", "variance", "cells")))
                     for side in ("first", "second", "whole")]  # fmt: skip
            (control,) = load(self.folder, "control")
            return lambda: self.from_moments(sides[0], sides[1], sides[2], control)
        if case == "bootstrap":
            (values,) = load(self.folder, "values")
            return lambda: self.intervals(values)
        import scipy.sparse as sp

        cells, codes = sp.load_npz(self.folder / "cells.npz"), *load(self.folder, "codes")
        halves = load(self.folder, "first_half", "second_half")
        return lambda: self.from_cells(cells, codes, halves)

    @staticmethod
    def weighted(scores, real, positive, null, control):
        """Weights of given |t|, and WMSE and R2w of both controls."""
        size = np.abs(scores)
        low, high = size.min(axis=1, keepdims=True), size.max(axis=1, keepdims=True)
        weights = ((size - low) / (high - low)) ** 2
        weights /= weights.sum(axis=1, keepdims=True)
        effect = real - control
        centred = effect - (weights * effect).sum(axis=1, keepdims=True)
        spread = (weights * centred**2).sum(axis=1)
        wmse = [(weights * (pred - real) ** 2).sum(axis=1) for pred in (positive, null)]
        return dict(zip(FIELDS, [*wmse, *(1 - x / spread for x in wmse)], strict=False))

    def from_moments(self, first, second, whole, control):
        """Tests, weights, the controls, WMSE and R2w of both, and their dynamic range fractions."""
        from scipy.special import stdtr

        rest = self.rest(*whole)
        t, _ = self.welch(first, rest)
        found, freedom = self.welch(second, rest)
        padj = self.adjusted(2 * stdtr(freedom, -np.abs(found)))
        mean = whole[0]
        null = (mean.sum(axis=0) - mean) / (len(mean) - 1)
        positive = (1 - padj) * second[0] + padj * null
        values = self.weighted(t, first[0], positive, null, control)
        wmse, r2 = ([values[f"{name}_{side}"] for side in ("positive", "negative")] for name in ("wmse", "r2"))
        return values | dict(zip(FIELDS[4:], fractions(wmse, r2), strict=True))

    @staticmethod
    def rest(mean, variance, cells):
        """Moments of the cells of all other perturbations."""
        n = cells[:, None]
        sums, squares = n * mean, (n - 1) * variance + n * mean**2
        others = cells.sum() - n
        rest = (sums.sum(axis=0) - sums) / others
        square = (squares.sum(axis=0) - squares) / others
        return rest, np.maximum(square - rest**2, 0) * others / (others - 1), others[:, 0]

    @staticmethod
    def welch(side, rest):
        """Welch's t and its degrees of freedom."""
        own, other = side[1] / side[2][:, None], rest[1] / rest[2][:, None]
        square = own + other
        some = square > 0
        safe = np.where(some, square, 1)
        t = np.where(some, (side[0] - rest[0]) / np.sqrt(safe), 0)
        spread = own**2 / (side[2][:, None] - 1) + other**2 / (rest[2][:, None] - 1)
        return t, np.where(some, square**2 / np.where(spread > 0, spread, 1), 1)

    @staticmethod
    def adjusted(pvalue):
        """Benjamini and Hochberg's p-values, row by row."""
        genes = pvalue.shape[1]
        order = np.argsort(pvalue, axis=1)
        scaled = np.take_along_axis(pvalue, order, axis=1) * genes / np.arange(1, genes + 1)
        least = np.minimum(np.minimum.accumulate(scaled[:, ::-1], axis=1)[:, ::-1], 1)
        found = np.empty_like(pvalue)
        np.put_along_axis(found, order, least, axis=1)
        return found

    @staticmethod
    def intervals(values):
        """Bootstrap intervals of the means of several metrics over perturbations."""
        rng, perts = np.random.default_rng(0), values.shape[1]
        draws = values[:, rng.integers(perts, size=(SAMPLES, perts))].mean(axis=2)
        low, high = np.quantile(draws, [0.025, 0.975], axis=1)
        return {"low": low, "high": high}

    def from_cells(self, cells, codes, halves):
        """All of it from sparse cells, divided as given."""
        perts, perturbed = int(codes.max()) + 1, np.flatnonzero(codes >= 0)
        sides = [moments(cells, codes, rows, perts) for rows in (*halves, perturbed)]
        control = np.asarray(cells[codes < 0].mean(axis=0)).ravel()
        return self.from_moments(sides[0], sides[1], sides[2], control)


def moments(cells, codes, rows, perts):
    """Mean and variance of the chosen rows of a sparse matrix by perturbation, and their number."""
    import scipy.sparse as sp

    chosen = cells[rows]
    groups = sp.csr_matrix((np.ones(len(rows)), (codes[rows], np.arange(len(rows)))), shape=(perts, len(rows)))
    size = np.asarray(groups.sum(axis=1)).ravel()
    mean = (groups @ chosen).toarray() / size[:, None]
    square = (groups @ chosen.multiply(chosen).tocsr()).toarray() / size[:, None]
    return mean, np.maximum(square - mean**2, 0) * (size / (size - 1))[:, None], size


class ScPertEval:
    """scPertEval through its own functions."""

    PROTOCOLS = ("wmse_exp2", "weighted_r2_ctrl_exp2")

    def __init__(self, folder, threads):
        self.package, self.folder, self.threads = importlib.import_module("scperteval"), folder, threads
        self.adata = load_cells(folder)
        # Its index of the cells decides the halves, which all others are given.
        self.handle = self.make()
        halves = self.handle._ds.halves
        for i, name in enumerate(("first_half", "second_half")):
            np.save(folder / f"{name}.npy", np.concatenate([halves[pert][i] for pert in sorted(halves)]))

    def make(self):
        """A handle, which has indexed the cells."""
        return self.package.prepare(
            self.adata, list(self.PROTOCOLS), min_cells=4, workers=self.threads, name="benchmark"
        )

    def prepare(self, case):
        """Inputs where they are wanted; nothing of it is timed."""
        if case == "weighted":
            arrays = load(self.folder, "scores", "first_mean", "second_mean", "null", "control")
            return lambda: self.weighted(*arrays)
        if case == "cells":
            return lambda: self.calibrated(self.make())
        self.calibrated(self.handle)
        if case == "moments":  # moments of all cells stay in its cache, tests do not
            memo = self.handle._store.memo
            for key in [key for key in memo if key[0] == "de"]:
                del memo[key]
        return lambda: self.calibrated(self.handle)

    def calibrated(self, handle):
        """Both protocols."""
        tables = [self.package.calibrate(handle, name).per_perturbation for name in self.PROTOCOLS]
        values = [table[f"raw_{side}"].to_numpy() for table in tables for side in ("positive", "negative")]
        return dict(zip(FIELDS, [*values, *(table["drf"].to_numpy() for table in tables)], strict=True))

    def weighted(self, scores, real, positive, null, control):
        """Its two metrics, one perturbation after the other, with the statistic given."""
        metrics = importlib.import_module("scperteval.protocols.metrics")
        found = {name: np.empty(len(real)) for name in FIELDS[:4]}
        for i, (row, truth) in enumerate(zip(scores, real, strict=True)):
            test = types.SimpleNamespace(statistic=row)
            context = types.SimpleNamespace(
                current_pert=None, cfg=types.SimpleNamespace(truth=None), de=lambda *_, test=test: test
            )
            for side, pred in (("positive", positive[i]), ("negative", null[i])):
                found[f"wmse_{side}"][i] = metrics.weighted_mse(truth, pred, context)
                found[f"r2_{side}"][i] = metrics.weighted_r2(truth - control, pred - control, context)
        return found


def main():
    name, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])

    def start():
        if name == "scperteval":
            return ScPertEval(folder, threads).prepare
        return (Numpy(folder, threads) if name == "numpy" else Vcjax(folder, threads, int(name[-2:]))).prepare

    def send(found, case):
        save: Any = np.savez
        save(folder / f"{name}-{case}.npz", **{key: np.asarray(value) for key, value in found.items()})

    serve(start, send)


if __name__ == "__main__":
    main()
