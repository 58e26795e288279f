"""Weights that share no cell with the truth they weigh."""

from collections.abc import Sequence

from jaxtyping import ArrayLike, Int

from ..de import Moments
from ._recipe import WeightRecipe
from ._weights import Weights


def crossfit(
    recipe: WeightRecipe,
    first: Moments,
    second: Moments,
    *,
    controls: tuple[Moments, Moments] | None = None,
    targets: Int[ArrayLike, " perts"] | None = None,
    perts: Sequence[str] = (),
) -> tuple[Weights, Weights]:
    r"""`(for the first half as the truth, for the second half)`: each made of the cells of the other half.

    A gene that looks changed in one half by chance has no larger weight where that half is the truth. Score a model
    against each half with its weights, and average.

    A technical duplicate is another matter: it *is* the other half, so that genes in which it is off by chance have
    the larger weights, and its score suffers for it. Weigh duplicates with the cells of the truth itself, which
    neither they nor a model have seen, or with a third part of the cells.

    **Arguments:**

    - `first`, `second`: moments of the two halves of the cells, the same perturbations in the same order.
    - `controls`: those of the control cells of each half, for a recipe that tests against the control.
    - `targets`, `perts`: as for the recipe.

    **Raises:** `ValueError` for shapes that differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"Both halves need one shape (perts, genes), got {first.mean.shape} and {second.mean.shape}.")
    one, other = (None, None) if controls is None else controls
    of_first = recipe(first, control=one, targets=targets, perts=perts, cells="crossfit")
    of_second = recipe(second, control=other, targets=targets, perts=perts, cells="crossfit")
    return of_second, of_first
