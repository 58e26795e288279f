"""References: the profile that an effect is measured from, and what it was made of."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._checks import as_float, as_float_matrix
from ._means import mean_of, means_of_others


Kind = Literal["control", "train_mean", "loo_mean", "external", "all_mean"]
Weighting = Literal["pert", "cell"]
PertsGenes = Real[ArrayLike, "perts genes"]
Mask = Bool[ArrayLike, " perts"] | None
Cells = Real[ArrayLike, " perts"] | None


class Reference(eqx.Module):
    """A reference profile for all perturbations, or one for each. Metrics take its `values` as `reference=`.

    **Fields:**

    - `values`: (genes,) or (perts, genes); a constant of every differentiation.
    - `kind`: `"control"`; `"train_mean"`, the mean of training perturbations; `"loo_mean"`, the mean of all others;
        `"external"`, made of other data; `"all_mean"`, the mean of all perturbations, evaluated ones among them.
    - `weighting`: whether each perturbation counts alike, or each cell.
    - `perts`: the perturbations it was made of.
    - `with_control`: whether the control counts among them.
    - `context`: cell line, cell type or batch.
    """

    values: Float[Array, " genes"] | Float[Array, "perts genes"]
    kind: Kind = eqx.field(static=True)
    weighting: Weighting = eqx.field(static=True, default="pert")
    perts: tuple[str, ...] = eqx.field(static=True, default=())
    with_control: bool = eqx.field(static=True, default=False)
    context: str = eqx.field(static=True, default="")

    def provenance(self) -> dict[str, Any]:
        """All fields but the values, for a report."""
        names = ("kind", "weighting", "perts", "with_control", "context")
        return {name: getattr(self, name) for name in names}


def control_reference(control: Real[ArrayLike, " genes"] | PertsGenes, *, context: str = "") -> Reference:
    """The mean of the control cells; one row for each perturbation where their contexts or batches differ."""
    return Reference(lax.stop_gradient(as_float(control, "control")), "control", "cell", context=context)


def external(
    values: Real[ArrayLike, " genes"] | PertsGenes,
    *,
    perts: Sequence[str] = (),
    weighting: Weighting = "pert",
    context: str = "",
) -> Reference:
    """A profile made of other data: another data set, another cell line.

    The perturbations it was made of are recorded, but bear no relation to those that are evaluated: the same label in
    other data is no leak.
    """
    return Reference(lax.stop_gradient(as_float(values, "values")), "external", weighting, tuple(perts), False, context)


def train_mean(
    profiles: PertsGenes,
    *,
    perts: Sequence[str],
    train: Mask = None,
    cells: Cells = None,
    weighting: Weighting = "pert",
    control: Real[ArrayLike, " genes"] | None = None,
    control_cells: Real[ArrayLike, ""] | None = None,
    context: str = "",
) -> Reference:
    r"""The mean of the training perturbations, $\mu = \sum_{p \in \mathrm{train}} a_p x_p / \sum_{p \in \mathrm{train}}
    a_p$.

    The default reference: what all perturbations have in common is not counted as skill, and nothing of an evaluated
    perturbation enters, not even by rounding.

    **Arguments:**

    - `profiles`: pseudobulk, (perts, genes); `perts`: their names.
    - `train`: which of them are training perturbations; all by default.
    - `cells`: number of cells of each, for `weighting="cell"`, where $a_p$ is that number; it is 1 otherwise.
    - `control`: a profile that counts as one more perturbation (of `control_cells` cells), as in some published means.

    **Raises:** `ValueError` for shapes that differ, no training perturbation, and cell weights without cells.

    Source: Systema (cell-weighted, and perturbation-weighted as the reference), Miller et al. 2025.
    """
    rows, amount, made_of = _rows(profiles, perts, train, cells, weighting, control, control_cells)
    return Reference(
        lax.stop_gradient(mean_of(rows, amount)), "train_mean", weighting, made_of, control is not None, context
    )


def all_mean(
    profiles: PertsGenes,
    *,
    perts: Sequence[str],
    cells: Cells = None,
    weighting: Weighting = "pert",
    control: Real[ArrayLike, " genes"] | None = None,
    control_cells: Real[ArrayLike, ""] | None = None,
    context: str = "",
) -> Reference:
    r"""The mean of all perturbations, evaluated ones among them: a leak, kept for the numbers published with it.

    Every effect then holds a part of its own truth with the wrong sign, $x_p - \mu = (1 - 1/P)(x_p - \mu_{-p})$ and
    $\mu_{-p} - \mu = -(x_p - \mu_{-p})/P$: the mean of the others, an honest prediction without skill, has a Pearson
    correlation of exactly -1, and the mean of the training perturbations a negative one.

    Arguments and errors as for `train_mean`. Source: Mejia et al., *Diversity by Design* (`control=` too).
    """
    rows, amount, made_of = _rows(profiles, perts, None, cells, weighting, control, control_cells)
    return Reference(
        lax.stop_gradient(mean_of(rows, amount)), "all_mean", weighting, made_of, control is not None, context
    )


def loo_mean(
    profiles: PertsGenes,
    *,
    perts: Sequence[str],
    train: Mask = None,
    cells: Cells = None,
    weighting: Weighting = "pert",
    context: str = "",
) -> Reference:
    r"""For each perturbation the mean of the others, $\mu_{-p} = \sum_{q \neq p} a_q x_q / \sum_{q \neq p} a_q$.

    With `train`, the others are training perturbations, and one that is not gets the mean of all of these: the
    reference of a training loop, in which no perturbation sees its own target. Without, they are all others of the
    panel, which tells a model nothing of the perturbation itself, but something of the others that are evaluated: fit
    for the study of a metric, or where there are no training data.

    Arguments and errors as for `train_mean`; one perturbation has no others.

    Source: scPertEval 0.2 (cell-weighted).
    """
    rows, amount, made_of = _rows(profiles, perts, train, cells, weighting, None, None)
    if len(made_of) < 2:
        raise ValueError("A leave-one-out mean needs at least two perturbations.")
    return Reference(lax.stop_gradient(means_of_others(rows, amount)), "loo_mean", weighting, made_of, False, context)


def _rows(profiles, perts, train, cells, weighting, control, control_cells):
    """Profiles with how much each counts, and the names of those that do."""
    profiles = as_float_matrix(profiles, "profiles")
    count = profiles.shape[0]
    if len(perts) != count:
        raise ValueError(f"`perts` must name the {count} rows of `profiles`, got {len(perts)} names.")
    chosen = np.ones(count, bool) if train is None else np.asarray(train)
    if chosen.shape != (count,):
        raise ValueError(f"`train` must have shape {(count,)}, got {chosen.shape}.")
    if not chosen.any():
        raise ValueError("No perturbation is a training perturbation, so there is nothing to take the mean of.")
    amount = jnp.asarray(chosen).astype(profiles.dtype)
    if weighting == "cell":
        if cells is None or (control is not None and control_cells is None):
            missing = "cells" if cells is None else "control_cells"
            raise ValueError(f'`weighting="cell"` needs `{missing}`.')
        cells = as_float(cells, "cells").astype(profiles.dtype)
        if cells.shape != (count,):
            raise ValueError(f"`cells` must have shape {(count,)}, got {cells.shape}.")
        amount = amount * cells
    elif weighting != "pert":
        raise ValueError(f'`weighting` is "pert" or "cell", got {weighting!r}.')
    if control is not None:
        control = as_float(control, "control").astype(profiles.dtype)
        profiles = jnp.concatenate([profiles, control[None, :]])
        extra = as_float(1.0 if weighting == "pert" else control_cells, "control_cells").astype(profiles.dtype)
        amount = jnp.concatenate([amount, extra[None]])
    made_of = tuple(name for name, counts in zip(perts, chosen, strict=True) if counts)
    return profiles, amount, made_of
