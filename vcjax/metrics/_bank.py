"""More candidates than predictions: what a batch is ranked among while a model is trained."""

import equinox as eqx
from jaxtyping import Array, Int

from .._profiles import Profiles


class Bank(eqx.Module):
    """The measured perturbations that predictions are ranked among, where they are not those of the batch itself.

    A rank depends on the set that it is taken in: a batch of 16 is easier than a screen of 1,000. With the profiles of
    *other cells* of the same perturbations a model cannot find its own by the noise that it was trained on.

    **Fields:**

    - `real`: the candidates, (candidates, genes), with a control and targets of their own.
    - `own`: the row in it of each prediction's own perturbation.
    """

    real: Profiles
    own: Int[Array, " perts"]
