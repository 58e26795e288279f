"""What every baseline is given, and what it gives: measured effects in, predicted effects out, by name."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._profiles import Profiles


Fairness = Literal["inductive", "external", "transductive", "oracle"]
"""What a prediction was allowed to see.

- `inductive`: training perturbations of the context that is predicted, and its control cells.
- `external`: also other contexts or screens, or prior knowledge of genes.
- `transductive`: also an aggregate of the perturbations that are scored.
- `oracle`: also cells of the perturbation itself. It places a metric's scale and is never a competitor.
"""


def rows_of(wanted: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Where each wanted name stands among the names, -1 for one that is not among them."""
    place = {name: row for row, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in wanted], np.int32)


class PertData(eqx.Module):
    r"""Measured effects of perturbations in one context: what a baseline is fitted to.

    **Fields:**

    - `effects`: profile minus control profile, $y_p = x_p - c$.
    - `control`: the control profile $c$.
    - `cells`: cells behind each profile; `noise`: their sampling noise, see `vcjax.Profiles`.
    - `targets`: index of the gene that each perturbation targets, -1 for none.
    - `perts`, `genes`: names, in the order of the rows and columns; `context`: a name for messages; `space`: see
        `vcjax.Profiles`.
    """

    effects: Float[Array, "perts genes"]
    control: Float[Array, " genes"]
    cells: Float[Array, " perts"] | None = None
    noise: Float[Array, " perts"] | Float[Array, "perts genes"] | None = None
    targets: Int[Array, " perts"] | None = None
    perts: tuple[str, ...] = eqx.field(static=True, default=())
    genes: tuple[str, ...] = eqx.field(static=True, default=())
    context: str = eqx.field(static=True, default="")
    space: str = eqx.field(static=True, default="lognorm")

    def __check_init__(self):
        perts, genes = np.shape(self.effects)
        if len(self.perts) != perts:
            raise ValueError(f"`perts` must name the {perts} rows of `effects`, got {len(self.perts)} names.")
        if len(set(self.perts)) != perts:
            raise ValueError("`perts` names a perturbation twice.")
        if self.genes and len(self.genes) != genes:
            raise ValueError(f"`genes` must name the {genes} columns of `effects`, got {len(self.genes)} names.")

    @classmethod
    def of(cls, profiles: Profiles, perts: Sequence[str], genes: Sequence[str] = (), context: str = "") -> "PertData":
        """The effects of profiles against their own control."""
        return cls(
            profiles.mean - profiles.control[None, :],
            profiles.control,
            cells=profiles.cells,
            noise=profiles.noise,
            targets=profiles.targets,
            perts=tuple(perts),
            genes=tuple(genes),
            context=context,
            space=profiles.space,
        )

    def rows(self, perts: Sequence[str]) -> np.ndarray:
        """The rows of these perturbations, -1 for one that is not measured."""
        return rows_of(perts, self.perts)

    def take(self, perts: Sequence[str]) -> "PertData":
        """These perturbations, in this order.

        **Raises:** `ValueError` for one that is not measured.
        """
        rows = self.rows(perts)
        if (rows < 0).any():
            absent = [name for name, row in zip(perts, rows, strict=True) if row < 0]
            raise ValueError(f"{len(absent)} perturbations are not measured: {', '.join(absent[:3])}.")
        cut = lambda x: None if x is None else x[rows]
        return dataclasses.replace(
            self,
            effects=self.effects[rows],
            cells=cut(self.cells),
            noise=cut(self.noise),
            targets=cut(self.targets),
            perts=tuple(perts),
        )


class Prediction(eqx.Module):
    """Predicted effects, and what they are worth knowing of.

    **Fields:**

    - `effect`: predicted profile minus control profile.
    - `control`: the control profile that the effect is to be added to.
    - `covered`: whether the baseline had something specific to say; elsewhere it gives the mean response of the
        training perturbations. Report scores of all and of covered perturbations.
    - `variance`: of the prediction of each gene, if the baseline knows it.
    - `perts`: names of the rows; `baseline`, `fairness`: of what; `provenance`: what it was made of, for a report.
    """

    effect: Float[Array, "perts genes"]
    control: Float[Array, " genes"]
    covered: Bool[Array, " perts"]
    variance: Float[Array, "perts genes"] | None = None
    perts: tuple[str, ...] = eqx.field(static=True, default=())
    baseline: str = eqx.field(static=True, default="")
    fairness: Fairness = eqx.field(static=True, default="inductive")
    provenance: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    @property
    def profile(self) -> Float[Array, "perts genes"]:
        """The predicted profile: control plus effect."""
        return self.control[None, :] + self.effect

    def as_profiles(self, real: Profiles) -> Profiles:
        """Profiles that stand beside the measured ones, whose rows must be in the same order."""
        return real.with_mean(self.profile)


class Fitted(eqx.Module):
    """A baseline after the fit: a pytree whose leaves carry gradients back to data and hyper-parameters."""

    def predict(self, perts: Sequence[str]) -> Prediction:
        """The predicted effects of these perturbations, by name."""
        raise NotImplementedError

    def leave_one_out(self) -> Prediction | None:
        """Each training perturbation predicted from the others, exactly as by a refit; `None` without a closed form."""
        return None


class Baseline(eqx.Module):
    """A recipe with its hyper-parameters as leaves, so that they can be tuned by gradient.

    Class attributes tell `vcjax baseline --list` what it is: `name`, `fairness`, `summary` (one line), `source` (paper
    or package and version) and `needs`, the words of what a fit requires beyond `PertData`: `"external"` (other
    contexts), `"features"`, `"similarity"`, `"combinations"`, `"targets"`, `"cells"`.
    """

    name: eqx.AbstractClassVar[str]
    fairness: eqx.AbstractClassVar[Fairness]
    summary: eqx.AbstractClassVar[str]
    source: eqx.AbstractClassVar[str]
    needs: eqx.AbstractClassVar[tuple[str, ...]]

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> Fitted:
        """Fits to training perturbations.

        **Arguments:** `data`, training perturbations of the context to predict; `external`, other contexts or screens;
        `key`, for what is random.
        """
        raise NotImplementedError


def mean_response(data: PertData) -> Float[Array, " genes"]:
    """The mean effect of the training perturbations, each counting alike: what every baseline falls back to."""
    return jnp.mean(data.effects, axis=0)
