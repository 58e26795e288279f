"""Predictions of known quality for a simulated screen: what a metric says of them tells what the metric is worth."""

import dataclasses
from collections.abc import Callable

import anndata as ad
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from ._simulate import CONTROL, label_cells, PERT_COLUMN, shares, SimulatedScreen


_INFLATION = 10.0
_LARGEST_LOG_EFFECT = 2.5  # without a cap, one gene takes all counts of a cell and the others drop to zero


@dataclasses.dataclass(frozen=True)
class DemoPredictor:
    """One prediction of a simulated screen whose quality is known beforehand.

    **Fields:**

    - `name`: its name in tables and file names.
    - `summary`: what it predicts, in one sentence.
    - `expected`: what a good metric should say of it.
    - `make`: `(screen, rng) -> cells`, the predicted counts of the perturbed cells with their labels; called through
        the predictor itself.
    """

    name: str
    summary: str
    expected: str
    make: Callable[[SimulatedScreen, np.random.Generator], ad.AnnData] = dataclasses.field(repr=False)

    def __call__(self, screen: SimulatedScreen, *, seed: int = 0) -> ad.AnnData:
        """The predicted cells, as counts, together with the measured controls of `screen`.

        Every perturbation has as many cells as it has in `screen`. The draws are independent of those that made
        `screen` also where the seeds are equal.
        """
        # The second word keeps the stream apart from `simulate_screen(seed=seed)`; the name, from other predictors.
        rng = np.random.default_rng([seed, 1, *self.name.encode()])
        return self.make(screen, rng)


def _perfect(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    return screen.adata.copy()


def _replicate(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    return _cells_of(screen, screen.profiles, rng)


def _half_noise(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    # The same effects at random genes are noise of the size and the sparsity of the truth.
    noise = rng.permuted(screen.log_fold_change, axis=1)
    log_effect = (screen.log_fold_change + noise) / 2
    return _cells_of(screen, shares(np.log(screen.baseline) + log_effect), rng)


def _inflated(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    log_effect = np.clip(_INFLATION * screen.log_fold_change, -_LARGEST_LOG_EFFECT, _LARGEST_LOG_EFFECT)
    return _cells_of(screen, shares(np.log(screen.baseline) + log_effect), rng)


def _mean(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    mean = screen.profiles.mean(axis=0)
    return _cells_of(screen, np.broadcast_to(mean, screen.profiles.shape), rng)


def _control(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    controls = _measured(screen, CONTROL)
    drawn = [controls[rng.integers(_count(controls), size=_count(_measured(screen, pert)))] for pert in screen.perts]
    return label_cells([controls, *drawn], [CONTROL, *screen.perts], screen.genes)


def _shuffled(screen: SimulatedScreen, rng: np.random.Generator) -> ad.AnnData:
    # Each perturbation takes the next one's cells in a random ring, so that none keeps its own.
    ring = rng.permutation(len(screen.perts))
    source = np.empty_like(ring)
    source[ring] = np.roll(ring, -1)
    return _cells_of(screen, screen.profiles[source], rng)


def _cells_of(
    screen: SimulatedScreen, profiles: Float[np.ndarray, "perts genes"], rng: np.random.Generator
) -> ad.AnnData:
    """New cells of `profiles`, as many as measured, and the measured controls."""
    blocks = [_measured(screen, CONTROL)]
    for pert, profile in zip(screen.perts, profiles, strict=True):
        blocks.append(screen.draw(profile, _count(_measured(screen, pert)), rng))
    return label_cells(blocks, [CONTROL, *screen.perts], screen.genes)


def _measured(screen: SimulatedScreen, label: str) -> sp.csr_matrix:
    return sp.csr_matrix(screen.adata.X)[np.asarray(screen.adata.obs[PERT_COLUMN] == label)]


def _count(cells: sp.csr_matrix) -> int:
    return len(cells.indptr) - 1


DEMO_PREDICTORS: tuple[DemoPredictor, ...] = (
    DemoPredictor(
        "perfect",
        "The measured cells themselves.",
        "The best value that the metric has.",
        _perfect,
    ),
    DemoPredictor(
        "replicate",
        "New cells drawn from the truth: the screen done once more.",
        "As good as data can be: next to the best value, or equal to it after a correction for sampling noise.",
        _replicate,
    ),
    DemoPredictor(
        "half_noise",
        "Cells whose log effects are half the truth and half the same effects at random genes.",
        "Clearly worse than the replicate, clearly better than the mean.",
        _half_noise,
    ),
    DemoPredictor(
        "inflated",
        "Cells whose log effects are ten times the truth, up to a twelvefold change.",
        "Right genes, absurd size: a metric of pattern may rank it high, an error or an amplitude must reject it.",
        _inflated,
    ),
    DemoPredictor(
        "mean",
        "Cells of the mean of all perturbations, whatever the perturbation is.",
        "No skill: it knows what perturbations have in common, and nothing of any one of them.",
        _mean,
    ),
    DemoPredictor(
        "control",
        "Control cells, drawn once more: no perturbation does anything.",
        "No skill: worse than the mean where perturbations share a response.",
        _control,
    ),
    DemoPredictor(
        "shuffled",
        "The cells of a replicate under the label of another perturbation.",
        "No skill: effects of the right size and spread, each for the wrong perturbation.",
        _shuffled,
    ),
)
