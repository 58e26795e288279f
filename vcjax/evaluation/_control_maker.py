"""The controls of one division of a screen's cells into halves."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..calibration import (
    Control,
    control_mean,
    ControlSet,
    empirical_bayes_duplicate,
    interpolated_duplicate,
    leave_one_out_mean,
    train_mean,
)
from ..de import benjamini_hochberg, rest_of, welch_test
from ..io import DESettings, differential_expression, Screen, summarise, Summary
from ..io._gene_moments import bulk_gene_noise, gene_moments, GeneMoments
from ..io._picked import bootstrap_screen, control_as_prediction, others_as_prediction
from ..io._summarise import BULK_TARGET_SUM
from ._pair import take_perts


@dataclasses.dataclass(frozen=True)
class ControlMaker:
    """What all divisions of one screen have in common: the options of `make_controls`.

    `screen` is what profiles are made of, `cells` the same cells as tables are made of; `training` are codes.
    """

    screen: Screen
    cells: Screen
    space: Literal["lognorm", "bulk_lognorm"]
    target_sum: float | None
    training: np.ndarray | None
    weighting: str
    kinds: tuple[str, ...]
    versus: str
    own_control: bool
    targets: np.ndarray | None
    de: DESettings
    test: dict[str, Any]

    def controls(self, first: np.ndarray, second: np.ndarray, seed: int, notes: tuple[str, ...]) -> ControlSet:
        """The controls of one division of the cells, given as the codes of both halves."""
        halves = _Halves(self, first, second, seed)
        made = dict(_MAKERS[kind](halves) for kind in _MAKERS if kind in self.kinds)
        moments = gene_moments(halves.first(self.screen), target_sum=self.target_sum)
        noise = self.gene_noise(halves.first(self.screen), moments)
        return ControlSet(
            _with_gene_noise(halves.truth, noise[halves.rows], noise[-1]),
            made,
            moments=moments.to_moments(halves.rows),
            control_moments=moments.to_moments(np.array([-1])),
            perts=tuple(halves.perts),
            notes=notes,
        )

    def summary(self, view: Callable[[Screen], Screen], reference: Screen | None) -> Summary:
        """The profiles of some cells, and what comparing them with the reference's control cells finds."""
        summary = summarise(
            view(self.screen), space=self.space, target_sum=self.target_sum, targets=self.targets, noise=True
        )
        if not self.tests:
            return summary
        reference = None if self.own_control else reference
        found = differential_expression(view(self.cells), self.de, control_of=reference, **self.test)
        return dataclasses.replace(summary, de=found.table, energy=found.energy)

    def gene_noise(self, half: Screen, moments: GeneMoments) -> np.ndarray:
        """The sampling variance of every gene of the profiles of some cells, the control last."""
        if self.space == "lognorm":
            return moments.noise
        return bulk_gene_noise(half, target_sum=BULK_TARGET_SUM if self.target_sum is None else self.target_sum)

    @property
    def tests(self) -> bool:
        """Whether anything is to be compared cell by cell."""
        return self.test["table"] or self.test["energy"]


class _Halves:
    """One division: both halves summarised, and what more than one control is made of."""

    def __init__(self, maker: ControlMaker, first: np.ndarray, second: np.ndarray, seed: int) -> None:
        self.maker = maker
        self.first = lambda screen: dataclasses.replace(screen, codes=first)
        self.second = lambda screen: dataclasses.replace(screen, codes=second)
        self.seed, self.reference = seed, self.first(maker.cells)
        measured, self.copy = maker.summary(self.first, None), maker.summary(self.second, self.reference)
        train = set() if maker.training is None else set(maker.training.tolist())
        self.rows = np.array([i for i, n in enumerate(measured.cells) if n and i not in train])
        self.perts = [measured.perts[i] for i in self.rows]
        self.truth = take_perts(measured, self.perts).to_profiles()
        self.dtype = self.truth.mean.dtype
        self.duplicate = jnp.asarray(self.copy.mean[self.rows], self.dtype)
        self.mean = self._mean(measured)
        self.moments = gene_moments(self.second(maker.screen), target_sum=maker.target_sum)

    def rng(self, word: int) -> np.random.Generator:
        """Draws of one control: the same for its profile and its table, and apart from those of the halves."""
        return np.random.default_rng([self.seed, word])

    def kept(self, summary: Summary) -> Profiles:
        """The evaluated perturbations of a summary, as a prediction."""
        return self._moved(take_perts(summary, self.perts).to_profiles())

    def bare(self, mean: Any) -> Profiles:
        """A prediction without cells: no noise of its own is credited to it, and it has no table."""
        assert self.copy.control is not None
        control_noise = self.copy.control_noise
        profiles = Profiles(
            mean,
            jnp.asarray(self.copy.control, self.dtype),
            noise=jnp.zeros_like(mean[:, 0]),
            control_noise=None if control_noise is None else jnp.asarray(control_noise, self.dtype),
            targets=self.truth.targets,
            target_sum=self.truth.target_sum,
            space=self.truth.space,
        )
        return self._moved(profiles)

    def _moved(self, profiles: Profiles) -> Profiles:
        if not self.maker.own_control:
            return profiles
        shift = self.truth.control - profiles.control
        return dataclasses.replace(profiles, mean=profiles.mean + shift[None, :], control=self.truth.control)

    def _mean(self, measured: Summary) -> Any:
        """The null control, of the second half; of both halves for training perturbations, which nobody evaluates."""
        train, by_cell = self.maker.training, self.maker.weighting == "cell"
        weights = lambda rows: jnp.asarray(self.copy.cells[rows], self.dtype) if by_cell else None
        if train is None:
            return leave_one_out_mean(self.duplicate, weights(self.rows))
        train = train[self.copy.cells[train] > 0]
        both = 0.5 * (measured.mean[train] + self.copy.mean[train])
        mean = train_mean(jnp.asarray(both, self.dtype), weights(train))
        return jnp.broadcast_to(mean[None, :], self.duplicate.shape)


def _control(halves: _Halves) -> tuple[str, Control]:
    maker, profiles = halves.maker, control_mean(halves.truth)
    if maker.tests:
        cells = control_as_prediction(halves.second(maker.cells), halves.rng(1))
        reference = None if maker.own_control else halves.reference
        found = differential_expression(cells, maker.de, control_of=reference, **maker.test)
        profiles = dataclasses.replace(
            profiles,
            de=None if found.table is None else found.table.take(halves.rows).to_device(cells.genes),
            energy=None if found.energy is None else jnp.asarray(found.energy[halves.rows], halves.dtype),
        )
    return "control", Control(profiles, "negative")


def _mean(halves: _Halves) -> tuple[str, Control]:
    name = "loo_mean" if halves.maker.training is None else "train_mean"
    return name, Control(halves.bare(halves.mean), "null")


def _sparse_mean(halves: _Halves) -> tuple[str, Control]:
    maker = halves.maker
    drawn = lambda screen: others_as_prediction(halves.second(screen), halves.rng(2), maker.training)
    return "sparse_mean", Control(halves.kept(maker.summary(drawn, halves.reference)), "null")


def _duplicate(halves: _Halves) -> tuple[str, Control]:
    return "duplicate", Control(halves.kept(halves.copy), "positive")


def _interpolated(halves: _Halves) -> tuple[str, Control]:
    groups, control = halves.moments.to_moments(slice(-1)), halves.moments.to_moments(slice(-1, None))
    reference = control if halves.maker.versus == "control" else rest_of(groups)
    log_padj = benjamini_hochberg(welch_test(groups, reference, overestimate=True).log_pvalue)[halves.rows]
    found = interpolated_duplicate(halves.duplicate, halves.mean, log_padj)
    return "interpolated", Control(halves.bare(found), "positive")


def _empirical_bayes(halves: _Halves) -> tuple[str, Control]:
    noise = halves.maker.gene_noise(halves.second(halves.maker.screen), halves.moments)
    noise = jnp.asarray(noise[halves.rows], halves.dtype)
    shrunk = empirical_bayes_duplicate(halves.duplicate, halves.mean, noise)
    return "empirical_bayes", Control(halves.bare(shrunk), "positive")


def _bootstrap(halves: _Halves) -> tuple[str, Control]:
    again = lambda screen: bootstrap_screen(halves.first(screen), halves.rng(3))
    summary = halves.maker.summary(again, halves.reference)
    return "bootstrap", Control(take_perts(summary, halves.perts).to_profiles(), "positive")


_MAKERS: dict[str, Callable[[_Halves], tuple[str, Control]]] = {
    "control": _control,
    "mean": _mean,
    "sparse_mean": _sparse_mean,
    "duplicate": _duplicate,
    "interpolated": _interpolated,
    "empirical_bayes": _empirical_bayes,
    "bootstrap": _bootstrap,
}


def _with_gene_noise(truth: Profiles, noise: np.ndarray, control_noise: np.ndarray) -> Profiles:
    """The truth with its noise gene by gene, in the proportions given and of the sum that it has."""

    def divided(total: Any, parts: Any) -> Any:
        parts, whole = jnp.asarray(parts, truth.mean.dtype), jnp.asarray(parts.sum(axis=-1), truth.mean.dtype)
        some = whole > 0
        return parts * jnp.where(some, total / jnp.where(some, whole, 1), 1)[..., None]

    return dataclasses.replace(
        truth, noise=divided(truth.noise, noise), control_noise=divided(truth.control_noise, control_noise)
    )
