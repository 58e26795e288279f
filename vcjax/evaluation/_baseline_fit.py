"""One fit of a baseline to a screen: what is left out of it, what it is given, and what there is to say about it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..baselines import Baseline, Features, PertData, Prediction
from ..io import read_target_map, Refusal, resolve_targets, Screen
from ..io._errors import listing
from ._baseline_data import by_context, configure, measure, metadata_of, refusal_of, Space, without
from ._sides import Reading


@dataclasses.dataclass
class BaselineFit:
    """One fit: the training screen without what is predicted, and what there is to say about it."""

    screen: Screen
    perts: tuple[str, ...]
    reading: Reading
    space: Space
    context: str
    seed: int

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        seen = [pert for pert in self.perts if pert in self.screen.perts]
        self.train = without(self.screen, seen)
        if seen:
            self.notes.append(f"{len(seen)} perturbations to predict are left out of the fit: {listing(seen)}")
        if np.count_nonzero(self.train.cell_counts()) < 2:
            raise Refusal(
                what=f"{np.count_nonzero(self.train.cell_counts())} perturbations are left to fit a baseline to.",
                where=f"{self.screen.name}, without the {len(seen)} to predict",
                why="What is predicted must not be fitted to, and a mean needs others.",
                fix="predict fewer (predict= / --perts, held_out= / --held-out), or give a larger training screen.",
            )

    def run(
        self,
        baseline: str | Baseline,
        options: Mapping[str, Any],
        external: Sequence[Screen],
        shown: Screen | None,
        features: Features | None = None,
    ) -> tuple[Baseline, PertData, Prediction]:
        """The baseline, what it was fitted to, and what it predicts."""
        target_map = read_target_map(self.reading.target_map)
        of = lambda one: resolve_targets(one.perts, one.genes, target_map)
        measured = measure(self.train, space=self.space, targets=of(self.train), context=self.context)
        others = [
            measure(part, space=self.space, targets=of(part), target_sum=measured.target_sum, context=name).data
            for name, part in self._elsewhere(external)
        ]
        self.external = [one.context for one in others]
        name = baseline if isinstance(baseline, str) else baseline.name
        if isinstance(baseline, str):
            metadata = metadata_of(self.train) | ({} if shown is None else metadata_of(shown))
            baseline = configure(
                *(baseline, options, self.train, measured.data),
                target_map=target_map,
                metadata=metadata,
                features=features,
                external=bool(others),
                seed=self.seed,
            )
        try:
            found = baseline.fit(measured.data, external=others, key=jax.random.key(self.seed)).predict(self.perts)
        except ValueError as error:
            raise refusal_of(error, name) from error
        self._check(found, name)
        return baseline, measured.data, found

    def _elsewhere(self, external: Sequence[Screen]) -> Iterator[tuple[str, Screen]]:
        """Every context of the external screens; what is predicted is left out of the one that it is predicted in."""
        for one in external:
            for name, part in by_context(one):
                same = bool(one.fingerprint) and one.fingerprint == self.screen.fingerprint
                yield name, without(part, self.perts) if name == self.context or (same and not self.context) else part

    def _check(self, found: Prediction, name: str) -> None:
        bad = np.flatnonzero(~np.isfinite(np.asarray(found.effect)).all(axis=1))
        if len(bad):
            raise Refusal(
                what=f"{len(bad)} predicted profiles are not finite.",
                where=f"baseline {name!r}, e.g. {listing(self.perts[i] for i in bad)}",
                why="NaN in a prediction would be scored as the worst, or not at all.",
                fix="use another baseline, or leave out what it cannot predict.",
            )
        bare = [pert for pert, covered in zip(self.perts, np.asarray(found.covered), strict=True) if not covered]
        if bare:
            number = f"{len(bare)} of {len(self.perts)} perturbations"
            self.notes.append(f"Warning: {number} are not covered and get the mean response: {listing(bare)}")
