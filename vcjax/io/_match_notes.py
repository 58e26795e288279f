"""What is suspicious about a pair of screens without being wrong."""

import numpy as np

from ._errors import listing
from ._pairs import pair_codes
from ._screen import Screen


UNEQUAL = 4.0  # ratio of cell numbers above which the power of a test differs visibly
DEEPER = 2.0  # ratio of library sizes above which the difference is not sampling
SWAP_MARGIN = 0.1  # difference of correlations that noise between like contexts does not reach


def pair_notes(pred: Screen, real: Screen) -> list[str]:
    """Lines on library sizes, unequal cell numbers, swapped contexts and a prediction that is the measurement."""
    found = [_depths(pred, real), _cell_numbers(pred, real), _swapped_contexts(pred, real)]
    if pred.fingerprint and pred.fingerprint == real.fingerprint:
        found.append("Warning: prediction and measurement are the same data: every score will be perfect")
    return [note for note in found if note]


def _depths(pred: Screen, real: Screen) -> str:
    if pred.depth is None or real.depth is None:
        return ""
    what = "median total counts" if pred.scale == "counts" else "median library size after expm1"
    ratio = max(pred.depth, real.depth) / max(min(pred.depth, real.depth), 1e-300)
    warning = "Warning: library sizes differ: " if ratio > DEEPER else ""
    return f"{warning}{what}: predicted {pred.depth:,.0f}, measured {real.depth:,.0f}"


def _cell_numbers(pred: Screen, real: Screen) -> str:
    size = len(real.perts) * max(1, len(real.contexts))
    n_pred, n_real = (
        np.bincount(codes[codes >= 0], minlength=size)
        for codes in (pair_codes(side, real.perts, real.contexts) for side in (pred, real))
    )
    both = (n_pred > 0) & (n_real > 0)
    ratio = np.ones(size)
    ratio[both] = np.maximum(n_pred[both] / n_real[both], n_real[both] / n_pred[both])
    unequal = np.flatnonzero(ratio > UNEQUAL)
    if not len(unequal):
        return ""
    worst = unequal[np.argsort(-ratio[unequal], kind="stable")]
    examples = listing(f"{real.perts[i // max(1, len(real.contexts))]} {n_pred[i]} against {n_real[i]}" for i in worst)
    return (
        f"Warning: {len(unequal)} perturbations have very unequal numbers of cells (predicted against measured): "
        f"{examples}; `match_cells=True` (`--match-cells`) draws equally many"
    )


def _swapped_contexts(pred: Screen, real: Screen) -> str:
    """Contexts whose predicted mean looks like the measured mean of another one."""
    if pred.context_means is None or real.context_means is None or len(real.contexts) < 2:
        return ""
    if np.isnan(pred.context_means).any():  # a context is not predicted at all
        return ""
    similarity = _deviations(pred.context_means, pred.scale) @ _deviations(real.context_means, real.scale).T
    best = similarity.argmax(axis=1)
    margin = similarity.max(axis=1) - np.diagonal(similarity)
    swapped = [
        f"{real.contexts[i]} looks like {real.contexts[j]}"
        for i, j in enumerate(best)
        if i != j and margin[i] > SWAP_MARGIN
    ]
    return f"Warning: contexts may be swapped in the prediction: {listing(swapped)}" if swapped else ""


def _deviations(means: np.ndarray, scale: str) -> np.ndarray:
    """How each context differs from the mean of all, at unit length."""
    if scale == "counts":
        means = np.log1p(1e4 * means / np.maximum(means.sum(axis=1, keepdims=True), 1e-300))
    apart = means - means.mean(axis=0)
    return apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-300)
