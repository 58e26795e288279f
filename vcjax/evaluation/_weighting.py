"""Gene weights of an evaluation of files: which recipe, made of which cells, and the truth that they belong to."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..io import log_normalised, Refusal, Screen, split_halves, summarise, Summary
from ..io._context import one_context
from ..io._gene_moments import bulk_gene_noise, gene_moments, GeneMoments
from ..weights import crossfit, shared_weights, WeightRecipe, Weights


WeightsFrom = Literal["other-half", "measured", "train"]
LEAST_CELLS = 4
"""Cells of a perturbation that can be split into halves which both have a variance."""


@dataclasses.dataclass(frozen=True)
class Weighting:
    """How gene weights are made.

    **Fields:**

    - `recipe`: see `vcjax.weights`.
    - `source`: `"other-half"` splits the measured cells of every perturbation: each half is a truth with the weights of
        the other, and the values of both are averaged. `"measured"` uses the cells that are scored, as some papers do,
        which is a leak. `"train"` uses training perturbations, one row of weights for all.
    - `seed`: of the split. `allow_leak`: score in spite of a leak, with a note.
    """

    recipe: WeightRecipe
    source: WeightsFrom
    seed: int = 0
    allow_leak: bool = False

    def check(self, training: bool) -> None:
        """Refuses weights made of what they weigh, unless that is allowed, and of training data that are not there."""
        if self.source == "train" and not training:
            raise Refusal(
                what="Gene weights are to be made of training perturbations, and there are none.",
                where="weights_from= / --weights-from train",
                why="Weights of other cells would be others than asked for.",
                fix="Give the training screen: train= / --train.",
            )
        if self.source == "measured" and not self.allow_leak:
            raise Refusal(
                what="The gene weights would be made of the cells that are scored.",
                where="weights_from= / --weights-from measured",
                why="A gene that the scored cells show changed by chance then counts more: a leak of the answer.",
                fix="Use the other half of the cells: weights_from='other-half' / --weights-from other-half; or allow "
                "it, for numbers that were published so: allow_leak=True / --allow-leak.",
            )

    def settings(self) -> dict[str, Any]:
        """What decides the weights, for a stamp."""
        fields = {field.name: getattr(self.recipe, field.name) for field in dataclasses.fields(self.recipe)}
        return {**fields, "from": self.source, "seed": self.seed if self.source == "other-half" else None}

    def describe(self) -> str:
        """The same in a few words."""
        made = {
            "other-half": f"of the half of the cells that is not scored, in turn (split with seed {self.seed})",
            "measured": "of the cells that are scored (a leak that was allowed)",
            "train": "of training perturbations, one row for all",
        }
        return f"recipe {self.recipe.name!r}, made {made[self.source]}"


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Measured profiles with the noise of every gene, and the gene weights that they are scored with."""

    real: Summary
    noise: np.ndarray
    control_noise: np.ndarray
    weights: Weights

    def take(self, perts: Sequence[str]) -> "Truth":
        """These perturbations, in this order."""
        from ._pair import take_perts

        row = {label: i for i, label in enumerate(self.real.perts)}
        index = np.array([row[label] for label in perts], int)
        return dataclasses.replace(
            self, real=take_perts(self.real, perts), noise=self.noise[index], weights=self.weights.take(perts)
        )


@dataclasses.dataclass(frozen=True)
class Profiling:
    """How cells become profiles, as the plan says."""

    space: Literal["lognorm", "bulk_lognorm"]
    target_sum: float | None
    max_entries: int


def weighted_truths(
    screen: Screen, real: Summary, weighting: Weighting, how: Profiling, context: str, train: Screen | None
) -> tuple[Truth, ...]:
    """One truth, or one for each half, of the perturbations for which weights can be made.

    **Raises:** `Refusal` for cells that cannot be split.
    """
    if weighting.source == "other-half":
        return _halves(screen, real, weighting, how, context)
    moments = _moments(screen, how, context)
    if weighting.source == "measured":
        weights = _of_measured(weighting, moments, screen, real)
    else:
        assert train is not None
        weights = _of_training(weighting, train, how, context)
    return (_truth(screen, real, moments, weights, how, context, whole=True),)


def _halves(screen: Screen, real: Summary, weighting: Weighting, how: Profiling, context: str) -> tuple[Truth, ...]:
    if how.space == "lognorm" and how.target_sum is None:
        screen = log_normalised(screen)  # a half must not be scaled to a median of its own
    first, second, _ = split_halves(one_context(screen, context), weighting.seed, min_cells=LEAST_CELLS)
    moments = [_moments(half, how, "") for half in (first, second)]
    kept = [label for label, n in zip(first.perts, moments[0].cells[:-1], strict=True) if n and label in real.perts]
    rows = _rows(first, kept)
    targets = dict(zip(real.perts, real.targets, strict=True))
    of_first, of_second = crossfit(
        weighting.recipe,
        *(part.to_moments(rows) for part in moments),
        controls=(moments[0].to_moments([-1]), moments[1].to_moments([-1])),
        targets=np.array([targets[label] for label in kept], np.int32),
        perts=kept,
    )
    return tuple(
        _truth(half, real, part, weights, how, "", whole=False).take(kept)
        for half, part, weights in zip((first, second), moments, (of_first, of_second), strict=True)
    )


def _truth(
    screen: Screen, real: Summary, moments: GeneMoments, weights: Weights, how: Profiling, context: str, *, whole: bool
) -> Truth:
    """The truth made of these cells; of all of them, its profiles are at hand."""
    noise = moments.noise
    if how.space == "bulk_lognorm":
        sums = {} if how.target_sum is None else {"target_sum": how.target_sum}
        noise = bulk_gene_noise(screen, context=context or None, max_entries=how.max_entries, **sums)
    order = _rows(screen, real.perts)
    if not whole:
        real = _profiles(screen, real, moments, how, order)
    return Truth(real, noise[order], noise[-1], weights)


def _profiles(half: Screen, real: Summary, moments: GeneMoments, how: Profiling, order: np.ndarray) -> Summary:
    """The profiles of a half, in the order of the measured side; its moments are that already in the space lognorm."""
    if how.space == "lognorm":
        mean, control = moments.mean[order], moments.mean[-1]
    else:
        summary = summarise(half, space=how.space, target_sum=how.target_sum, noise=False, max_entries=how.max_entries)
        assert summary.control is not None
        mean, control = summary.mean[order], summary.control
    cells = moments.cells.astype(real.cells.dtype)
    bare = {"noise": None, "control_noise": None, "de": None, "energy": None}
    return dataclasses.replace(
        real, mean=mean, control=control, cells=cells[order], control_cells=int(cells[-1]), **bare
    )


def _of_training(weighting: Weighting, train: Screen, how: Profiling, context: str) -> Weights:
    """The mean weights of training perturbations, for all evaluated ones alike."""
    moments = _moments(train, how, context)
    some = np.flatnonzero(moments.cells[:-1] > 1)
    column = {gene: i for i, gene in enumerate(train.genes)}
    made = weighting.recipe(
        moments.to_moments(some),
        control=moments.to_moments([-1]),
        targets=np.array([column.get(train.perts[i], -1) for i in some], np.int32),
        perts=[train.perts[i] for i in some],
        cells="train",
    )
    return shared_weights(made)


def _of_measured(weighting: Weighting, moments: GeneMoments, screen: Screen, real: Summary) -> Weights:
    """Weights made of the cells that are scored."""
    return weighting.recipe(
        moments.to_moments(_rows(screen, real.perts)),
        control=moments.to_moments([-1]),
        targets=np.asarray(real.targets, np.int32),
        perts=real.perts,
        cells="all",
    )


def _rows(screen: Screen, perts: Sequence[str]) -> np.ndarray:
    place = {label: i for i, label in enumerate(screen.perts)}
    return np.array([place[label] for label in perts], int)


def _moments(screen: Screen, how: Profiling, context: str) -> GeneMoments:
    return gene_moments(screen, target_sum=how.target_sum, context=context or None, max_entries=how.max_entries)
