"""Baselines whose predictions are weighted sums of training effects, with weights that do not depend on the gene."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from ._fitted import FittedToData
from ._interface import Prediction
from ._krr import smooth


class FittedSmoother(FittedToData):
    r"""$\hat Y = W Y$: what a subclass gives is the weight of every training effect in every prediction."""

    def weights(self, perts: Sequence[str]) -> tuple[Float[Array, "new perts"], np.ndarray]:
        """The weights for these perturbations, and which of them are covered; other rows are not used."""
        raise NotImplementedError

    def held_out_weights(self) -> tuple[Float[Array, "perts perts"], np.ndarray]:
        """The weights that a refit without each training perturbation would predict it with, and what is covered."""
        raise NotImplementedError

    def predict(self, perts: Sequence[str]) -> Prediction:
        weights, covered = self.weights(perts)
        return self.prediction(perts, smooth(weights, self.data.effects), covered)

    def leave_one_out(self) -> Prediction:
        weights, covered = self.held_out_weights()
        return self.prediction(self.data.perts, smooth(weights, self.data.effects), covered, left_out=True)
