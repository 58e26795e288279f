"""Times the discrimination scores of cell-eval and cell-eval2 on given arrays; run by the peers' interpreter.

    python _distances_worker.py cell-eval|cell-eval2 FOLDER

A request (see `_peer.py`) is `{"distance": "l1", "rows": 100}`; scores are sent back. `FOLDER` holds `pred.npy` and
`real.npy`, effects of shape (perts, genes) in float64. Perturbation i is labelled by, and targets, gene i.
"""

import importlib
import logging
import pathlib
import sys
import types

import numpy as np
from _peer import serve


def cell_eval(pred, real, labels, genes):
    """Its row loop, over the first `rows` predictions and all candidates."""
    module = importlib.import_module("cell_eval.metrics._anndata")

    def arrays(embed_key=None):
        for x, y in zip(pred, real, strict=True):
            yield types.SimpleNamespace(perturbation_effect=lambda which, abs, x=x, y=y: y if which == "real" else x)

    def score(distance, rows):
        data = types.SimpleNamespace(iter_bulk_arrays=arrays, perts=labels[:rows], genes=genes)
        return module.discrimination_score(data, metric=distance)

    return score


def cell_eval2(pred, real, labels, genes):
    """The first `rows` predictions, with the conventions of its preset v2."""
    module = importlib.import_module("cell_eval2.metrics.discrimination")
    # The control comes first, so that the first rows are a view.
    pred, real = (np.concatenate([np.zeros((1, len(genes))), side]) for side in (pred, real))
    keys = np.concatenate([["non-targeting"], labels])

    def score(distance, rows):
        return module.discrimination_score(
            pred_bulk=(keys[: rows + 1], pred[: rows + 1]),
            real_bulk=(keys, real),
            genes=genes,
            distance=distance,
            rank_denominator="n-1",
            control_source="real",
        )

    return score


def main():
    peer, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    logging.disable(logging.CRITICAL)

    def start():
        pred, real = np.load(folder / "pred.npy"), np.load(folder / "real.npy")
        genes = np.array([f"G{i:05d}" for i in range(pred.shape[1])])
        score = {"cell-eval": cell_eval, "cell-eval2": cell_eval2}[peer](pred, real, genes[: len(pred)], genes)
        return lambda **request: lambda: score(**request)

    serve(start, send=lambda scores, **_: list(scores.values()))


if __name__ == "__main__":
    main()
