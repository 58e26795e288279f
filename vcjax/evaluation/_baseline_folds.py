"""Held-out predictions of baselines: by folds of perturbations, or each perturbation from all others."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._profiles import Profiles
from ..baselines import Baseline, Features, PertData, Prediction
from ..io import Refusal, Screen
from ._baseline_data import configure, metadata_of, random_cells


Folds = int | Literal["loo"]


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Effects predicted without the perturbation itself, a row each, where there is something specific to say."""

    effect: np.ndarray
    covered: np.ndarray
    fairness: str
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class FoldSetup:
    """What the folds of all baselines share: a measured screen, the perturbations to hold out, and other screens.

    `external` are pairs of a screen and whether it is of the context that is predicted, where what is held out must be
    left out as well. `features` are what is known of perturbations beforehand.
    """

    screen: Screen
    data: PertData
    scored: tuple[str, ...]
    external: tuple[tuple[PertData, bool], ...]
    target_map: Mapping[str, str | None]
    folds: Folds
    seed: int
    features: Features | None = None

    @functools.cached_property
    def metadata(self) -> dict[str, tuple[float, float]]:
        return metadata_of(self.screen)

    @functools.cached_property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Random cells and the row of the data of each."""
        return random_cells(self.screen, self.data, self.seed)

    def parts(self) -> list[tuple[str, ...]]:
        """The perturbations that are held out together."""
        count = len(self.scored) if self.folds == "loo" else min(self.folds, len(self.scored))
        order = np.random.default_rng(self.seed).permutation(len(self.scored))
        return [tuple(self.scored[i] for i in np.sort(part)) for part in np.array_split(order, count)]

    def without(self, hidden: Sequence[str]) -> tuple[PertData, list[PertData]]:
        """The training perturbations and external screens that are left."""
        rest = lambda data: data.take([pert for pert in data.perts if pert not in set(hidden)])
        return rest(self.data), [rest(other) if same else other for other, same in self.external]

    def make(self, baseline: str | Baseline, train: PertData) -> Baseline:
        """A baseline by name, with what it needs of the training perturbations."""
        if isinstance(baseline, Baseline):
            return baseline
        options: dict[str, Any] = {}
        last = baseline.rpartition(":")[2]
        if last == "sparse_mean":
            cells, groups = self.cells
            table = np.append(train.rows(self.data.perts), -1)
            options = {"cells": cells, "groups": table[groups]}
        if last in ("oracle_scaled", "best_linear_span"):
            options = {"truth": self.data}
        return configure(
            *(baseline, options, self.screen, train),
            target_map=self.target_map,
            metadata=self.metadata,
            features=self.features,
            external=bool(self.external),
            seed=self.seed,
        )


def held_out(setup: FoldSetup, baseline: str | Baseline) -> HeldOut:
    """The held-out predictions of one baseline.

    **Raises:** `ValueError` (and `Refusal`) as the baseline's own fit.
    """
    parts = setup.parts()
    if setup.folds == "loo":
        found = _closed_form(setup, baseline)
        if found is not None:
            return found
    rows: dict[str, tuple[Any, bool]] = {}
    found = None
    for part in parts:
        train, external = setup.without(part)
        found = setup.make(baseline, train).fit(train, external=external, key=jax.random.key(setup.seed)).predict(part)
        effect, covered = np.asarray(found.effect), np.asarray(found.covered)
        rows |= {pert: (effect[i], bool(covered[i])) for i, pert in enumerate(part)}
    assert found is not None
    return HeldOut(
        np.stack([rows[pert][0] for pert in setup.scored]),
        np.array([rows[pert][1] for pert in setup.scored]),
        found.fairness,
        found.baseline,
    )


def _closed_form(setup: FoldSetup, baseline: str | Baseline) -> HeldOut | None:
    """All perturbations, each from all others, where the baseline can tell without a refit."""
    if any(same for _, same in setup.external):
        return None  # what is held out would have to be left out of these as well
    fitted = setup.make(baseline, setup.data).fit(
        setup.data, external=[other for other, _ in setup.external], key=jax.random.key(setup.seed)
    )
    found: Prediction | None = fitted.leave_one_out()
    if found is None:
        return None
    rows = setup.data.rows(setup.scored)
    return HeldOut(np.asarray(found.effect)[rows], np.asarray(found.covered)[rows], found.fairness, found.baseline)


def check_scored(data: PertData, scored: Sequence[str], folds: Folds) -> None:
    """Refuses what cannot be held out.

    **Raises:** `Refusal` for too few perturbations; `ValueError` for fewer than two folds.
    """
    if folds != "loo" and folds < 2:
        raise ValueError(f'`folds` is "loo" or a number from 2 on, got {folds}.')
    if len(scored) < 2 or len(data.perts) < 3:
        raise Refusal(
            what=f"{len(scored)} of {len(data.perts)} perturbations can be held out.",
            where="the screen, and held_out= if it is given",
            why="A baseline needs others to be fitted to, and an interval needs several to be held out.",
            fix="give a screen of more perturbations.",
        )


def as_profiles(effect: np.ndarray, real: Profiles) -> Profiles:
    """Effects as profiles beside the measured ones, without sampling noise: what a prediction is off by is its error,
    and none of it is the fault of cells that it was drawn from.
    """
    made = real.with_mean(real.control[None, :] + jnp.asarray(effect, real.control.dtype))
    return dataclasses.replace(made, noise=jnp.zeros_like(made.mean[:, 0]))
