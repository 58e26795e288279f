"""Small screens for the tests of reading, matching and refusing."""

import contextlib
import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from vcjax.io import Refusal


GENES = ("ADNP", "BRD4", "CHD8", "DYRK1A", "EHMT1", "FOXP1")
LABELS = ("non-targeting", "ADNP", "BRD4", "CHD8")


def counts(n_cells: int = 40, n_genes: int = len(GENES), seed: int = 0) -> np.ndarray:
    """Counts of cells that differ, none of them empty."""
    rng = np.random.default_rng(seed)
    return (rng.poisson(3.0, (n_cells, n_genes)) + (np.arange(n_genes) == 0)).astype(np.float32)


def lognorm(matrix: np.ndarray, target_sum: float = 1e4) -> np.ndarray:
    """log1p of counts scaled to one library size."""
    return np.log1p(matrix * (target_sum / matrix.sum(axis=1, keepdims=True))).astype(np.float32)


def screen_of(matrix=None, labels=None, genes=GENES, *, column="target_gene", **obs) -> Any:
    """An AnnData of these values (counts by default), labels in turn, and further columns of `obs`."""
    matrix = counts() if matrix is None else matrix
    cells = matrix.shape[0]
    labels = np.resize(np.array(LABELS, object), cells) if labels is None else labels
    table = pd.DataFrame({column: labels, **obs}, index=pd.Index([f"cell{i}" for i in range(cells)]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique")
        return anndata.AnnData(matrix, obs=table, var=pd.DataFrame(index=pd.Index(list(genes))))


def dense(matrix) -> np.ndarray:
    """All rows of a `Matrix`, as float64."""
    blocks = [block for _, block in matrix.chunks()]
    return np.asarray(scipy.sparse.vstack(blocks).todense(), np.float64)


@contextlib.contextmanager
def refused(*texts: str):
    """Expects a `Refusal` with its four parts filled in and each of `texts` somewhere in the message."""
    with pytest.raises(Refusal) as caught:
        yield caught
    refusal = caught.value
    assert all((refusal.what, refusal.where, refusal.why, refusal.fix))
    for text in texts:
        assert text in str(refusal), f"{text!r} is not in:\n{refusal}"
