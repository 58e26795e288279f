"""Controls of a measured screen: what its own control cells, means and halves would have predicted."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..calibration import ControlSet
from ..io import DESettings, log_normalised, Refusal, Screen, split_halves
from ..io._context import one_context
from ..io._errors import listing
from ._control_maker import ControlMaker
from ._weighting import LEAST_CELLS


Kind = Literal["control", "mean", "sparse_mean", "duplicate", "interpolated", "empirical_bayes", "bootstrap"]
KINDS: tuple[Kind, ...] = ("control", "mean", "sparse_mean", "duplicate", "interpolated", "empirical_bayes")
_ALL: tuple[Kind, ...] = (*KINDS, "bootstrap")


def make_controls(
    screen: Screen,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    space: Literal["lognorm", "bulk_lognorm"] = "lognorm",
    target_sum: float | None = None,
    context: str | None = None,
    train: Sequence[str] | None = None,
    weighting: Literal["pert", "cell"] = "pert",
    kinds: Sequence[Kind] = KINDS,
    versus: Literal["rest", "control"] = "rest",
    own_control: bool = False,
    targets: np.ndarray | None = None,
    de: DESettings | None = None,
    energy: bool = False,
    min_cells: int = LEAST_CELLS,
    order: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[ControlSet, ...]:
    """The controls of a screen, one set for each seed: what `vcjax.calibration.calibrate` compares a prediction with.

    For each seed the cells of every perturbation, and the control's, are split into halves. The first half is the
    truth, with its own control profile. Everything that predicts is made of the second half:

    - `control` (negative): the control profile of the truth, an effect of exactly zero. Its table of differential
        expression is that of control cells of the second half, as many as the perturbation has.
    - `loo_mean` (null), or `train_mean` if training perturbations are named: the mean of the other, or of those,
        perturbations. It has no cells, so no table.
    - `sparse_mean` (null): random cells of other (or the training) perturbations, as many as in a half. It has a table,
        and stands for the mean where a metric needs one.
    - `duplicate` (positive): the second half itself.
    - `interpolated` (positive): it where its own cells differ significantly, the mean elsewhere; `empirical_bayes`
        (positive): it shrunk towards the mean. Neither has cells, a table or noise.
    - `bootstrap` (positive, only if named in `kinds`): the truth's own cells drawn with repetition, which flatters.

    **Arguments:**

    - `space`, `target_sum`, `targets`: as of `vcjax.io.summarise`. Without a `target_sum`, counts are scaled to the
        median total of the whole screen, the same for both halves.
    - `context`: one context of a screen with several, and then needed.
    - `train`: labels of the training perturbations, which are not evaluated. `weighting`: whether perturbations or
        their cells weigh alike in the mean.
    - `versus`: what the interpolated duplicate is tested against (Welch's t with overestimated variance): the other
        perturbed cells, or the control cells of its half.
    - `own_control`: move what is made of the second half by the difference of the two controls, so that its effects
        are measured from its own control also by metrics that use the truth's for both sides. Otherwise the noise of
        the truth's control is in all effects alike, as it is in a model's.
    - `de`: conventions of the tables of differential expression, for metrics that compare them; `energy`: the same for
        energy distances. They test against the truth's control cells, or with `own_control` against each half's own.
    - `min_cells`: perturbations of fewer cells are left out, with a note. `order`: as of `split_halves`.
    - `progress`: called as `progress("controls", seeds done, seeds)`.

    **Returns:** sets of equal perturbations (in the order of `screen.perts`) and controls, as arrays of JAX's default
    float type. The truth has its sampling noise gene by gene. `moments` are those of its cells, which gene weights can
    be made of.

    **Raises:** `Refusal` for a screen of several contexts without `context`, for training labels that are unknown or
    leave nothing to evaluate, for a single perturbation without training ones, and as `split_halves` and `summarise`;
    `ValueError` for no seed or an unknown kind.
    """
    wrong = [kind for kind in kinds if kind not in _ALL]
    if wrong or not len(seeds):
        raise ValueError(f"`kinds` are of {', '.join(_ALL)} and `seeds` not empty, got {wrong or 'no seed'}.")
    screen = one_context(screen, context)
    normal = log_normalised(screen) if space == "lognorm" and target_sum is None else screen
    settings = de or DESettings()
    make = ControlMaker(
        screen=normal,
        cells=log_normalised(screen) if settings.target_sum is None else screen,
        space=space,
        target_sum=target_sum,
        training=_training(screen, train),
        weighting=weighting,
        kinds=tuple(kinds),
        versus=versus,
        own_control=own_control,
        targets=targets,
        de=settings,
        test={"table": de is not None, "energy": energy, "threads": threads},
    )
    sets = []
    for done, seed in enumerate(seeds):
        first, second, notes = split_halves(screen, seed, order=order, min_cells=max(min_cells, LEAST_CELLS))
        sets.append(make.controls(first.codes, second.codes, seed, notes))
        if progress is not None:
            progress("controls", done + 1, len(seeds))
    return tuple(sets)


def _training(screen: Screen, train: Sequence[str] | None) -> np.ndarray | None:
    """The codes of the training perturbations."""
    present = [label for label, n in zip(screen.perts, screen.cell_counts(), strict=True) if n]
    if train is None:
        if len(present) < 2:
            raise _nothing(screen, f"{len(present)} perturbations", "give a screen of more perturbations, or train=.")
        return None
    unknown = [label for label in train if label not in screen.perts]
    left = set(present) - set(train)
    if unknown or not left or not set(train) & set(present):
        told = f"unknown: {listing(unknown) or 'none'}; left to evaluate: {len(left)}"
        raise _nothing(screen, told, "name labels of the screen that leave others to evaluate: train= / --train.")
    return np.array(sorted(screen.perts.index(label) for label in set(train)))


def _nothing(screen: Screen, found: str, fix: str) -> Refusal:
    return Refusal(
        what="There is no mean of other perturbations.",
        where=f"{screen.name}: {found}",
        why="Whether a metric tells a replicate from the mean cannot be asked without one.",
        fix=fix,
    )
