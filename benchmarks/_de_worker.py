"""Times differential expression by pdex, illico or scanpy on given cells; run by an interpreter that has the package.

    python _de_worker.py pdex|illico|scanpy FOLDER THREADS

`FOLDER` holds `values.npz`, a sparse matrix of cells by genes of logarithms, and `codes.npy`, the perturbation of each
cell or -1. A request (see `_peer.py`) is `{"genes": 32}`, of the first of them. The p-values, (perts, genes), are left
in `FOLDER/NAME.npy`; those of scanpy are not, as it sorts its tables.
"""

import importlib
import logging
import pathlib
import sys
import warnings

import numpy as np
from _peer import serve


CONTROL, COLUMN = "non-targeting", "target"


def pdex(cells, threads):
    """Each group against the reference, without a pseudocount, as cell-eval calls it."""
    function = importlib.import_module("pdex").pdex
    options = {"groupby": COLUMN, "mode": "ref", "reference": CONTROL, "is_log1p": True, "epsilon": 0.0}
    table = function(cells, threads=threads, **options)
    return lambda: tuple(table[name].to_numpy() for name in ("target", "feature", "p_value"))


def illico(cells, threads):
    """The same, by its compiled backend."""
    function = importlib.import_module("illico").asymptotic_wilcoxon
    table = function(cells, is_log1p=True, group_keys=COLUMN, reference=CONTROL, n_threads=threads)
    return lambda: (*(table.index.get_level_values(i).to_numpy() for i in (0, 1)), table["p_value"].to_numpy())


def scanpy(cells, threads):
    """The same, on one thread."""
    function = importlib.import_module("scanpy").tl.rank_genes_groups
    options = {"reference": CONTROL, "method": "wilcoxon", "tie_correct": True, "n_genes": cells.n_vars}
    function(cells, COLUMN, **options)


def read_cells(folder):
    """The cells as the packages take them."""
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    values, codes = sp.load_npz(folder / "values.npz"), np.load(folder / "codes.npy")
    labels = np.where(codes < 0, CONTROL, [f"P{code:05d}" for code in codes])
    obs = pd.DataFrame({COLUMN: pd.Categorical(labels)}, index=np.array([f"cell{i}" for i in range(len(labels))]))
    var = pd.DataFrame(index=np.array([f"G{i:05d}" for i in range(values.shape[1])]))
    return ad.AnnData(sp.csr_matrix(values), obs=obs, var=var)


def by_name(targets, genes, pvalues):
    """The p-values as a matrix, in the order of the labels."""
    rows, row = np.unique(targets.astype(str), return_inverse=True)
    columns, column = np.unique(genes.astype(str), return_inverse=True)
    matrix = np.full((len(rows), len(columns)), np.nan)
    matrix[row, column] = pvalues
    return matrix[rows != CONTROL]


def main():
    name, folder, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    run = {"pdex": pdex, "illico": illico, "scanpy": scanpy}[name]

    def start():
        cells = read_cells(folder)

        def prepare(genes):
            part = cells[:, :genes].copy()
            return lambda: run(part, threads)

        return prepare

    def send(table, genes):
        if table is not None:
            np.save(folder / f"{name}.npy", by_name(*table()))

    serve(start, send)


if __name__ == "__main__":
    main()
