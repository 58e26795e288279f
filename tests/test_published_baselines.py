"""The baselines of published packages on a handful of cells, with every number derived by hand from their formulas.

Two contexts, four genes, log-normalised cells as each package would read them. The linear model of Ahlmann-Eltze et
al., too long for the hand, stands beside its formula in `test_pca_ridge.py`.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from vcjax.baselines import (
    Additive,
    CellMean,
    ContextMean,
    CrossContextMean,
    GenericResponse,
    MatchingMean,
    MeanResponse,
    MeanWithControl,
    NoChange,
    OrderMean,
    PertData,
)


GENES = ("A", "B", "C", "D")
CONTROL = np.array([3.0, 2, 1, 2])
ONE = {  # means: [3 2 1 2], [1 2 3 2], [4 1 1 3], [2 1 3 4]
    "control": [[2, 2, 2, 2], [4, 2, 0, 2]],
    "A": [[1, 2, 3, 2]],
    "B": [[3, 0, 1, 2], [3, 1, 1, 5], [6, 2, 1, 2]],
    "A+B": [[1, 1, 2, 4], [3, 1, 4, 4]],
}
TWO = {  # effects on its own control: A [0 0 1 1], C [2 0 0 0]
    "control": [[1, 1, 1, 1]],
    "A": [[0, 1, 2, 3], [2, 1, 2, 1]],
    "C": [[2, 1, 1, 1], [4, 1, 1, 1], [3, 0, 1, 2], [3, 2, 1, 0]],
}


def data(cells, context, perts=None):
    names = tuple(name for name in cells if name != "control" and (perts is None or name in perts))
    means = {name: np.mean(rows, axis=0) for name, rows in cells.items()}
    return PertData(
        jnp.asarray([means[name] - means["control"] for name in names]),
        jnp.asarray(means["control"]),
        cells=jnp.asarray([len(cells[name]) for name in names], float),
        targets=jnp.asarray([GENES.index(name) if name in GENES else -1 for name in names]),
        perts=names,
        genes=GENES,
        context=context,
    )


ALL, SINGLES, OTHER = data(ONE, "one"), data(ONE, "one", ("A", "B")), data(TWO, "two")
MEAN_CELL = np.array([17, 7, 12, 19]) / 6  # of the six perturbed cells
CASES = {
    "Ahlmann-Eltze: no change": (NoChange(), ALL, "new", CONTROL),
    "Ahlmann-Eltze: mean of perturbations": (MeanResponse(), ALL, "new", np.array([7, 4, 7, 9]) / 3),
    "Ahlmann-Eltze: additive": (Additive(), SINGLES, "A+B", [2, 1, 3, 3]),
    "Systema: mean of perturbed cells": (CellMean(), ALL, "new", MEAN_CELL),
    "Systema: matching mean": (MatchingMean(weighting="cell"), SINGLES, "A+B", [2.5, 1.5, 2, 2.5]),
    "Systema: matching mean, one part unseen": (
        *(MatchingMean(weighting="cell"), ALL, "A+new"),
        (np.array([1, 2, 3, 2]) + MEAN_CELL) / 2,
    ),
    "PerturBench: average over the cells of a part": (
        *(MatchingMean(parts="carriers"), ALL, "A+B"),
        (np.array([5, 4, 9, 10]) / 3 + np.array([16, 5, 9, 17]) / 5) / 2,
    ),
    "PerturBench: average of a single": (MatchingMean(parts="carriers"), ALL, "A", np.array([5, 4, 9, 10]) / 3),
    "State: mean of the context": (ContextMean(), ALL, "new", MEAN_CELL),
    "State: perturbation mean, contexts alike": (CrossContextMean(), SINGLES, "A", [2, 2, 2.5, 2.5]),
    "State: perturbation mean, seen elsewhere": (CrossContextMean(), SINGLES, "C", [5, 2, 1, 2]),
    "TxPert: general baseline, by cells": (
        *(CrossContextMean(weighting="cell"), SINGLES, "A"),
        CONTROL + np.array([-2, 0, 4, 2]) / 3,
    ),
    "TxPert: global, of a single": (OrderMean(), ALL, "new", CONTROL + [0.25, -0.75, 0.5, 0.75]),
    "TxPert: global, of a double": (OrderMean(), ALL, "new+other", [2, 1, 3, 4]),
    "TxPert: sum of seen parts": (Additive(), SINGLES, "A+B", [2, 1, 3, 3]),
    "cell-eval: average with the control among the groups": (MeanWithControl(), ALL, "new", [2.5, 1.5, 2, 2.75]),
    "cell-eval2: generic response, targets omitted": (GenericResponse(), ALL, "new", [3, 1.5, 7 / 3, 3]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_formula(name):
    baseline, train, pert, expected = CASES[name]
    external = [OTHER] if isinstance(baseline, CrossContextMean) else []
    found = baseline.fit(train, external=external).predict((pert,))
    np.testing.assert_allclose(found.profile[0], expected, rtol=0, atol=1e-14)
    assert bool(found.covered[0])
