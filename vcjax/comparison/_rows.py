"""One function over many rows: at once where that fits into memory, in batches where it does not."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array


_MOST_ENTRIES = 2**22  # held at once; 9,999 permutations of 400 perturbations


def over_rows(function: Callable[..., Array], rows: Any, entries: int) -> Array:
    """`function` of every row along the first axis of `rows`, whose work on one row holds about `entries` numbers.

    A loop on the device is compiled anew for each call outside `jit`, so that small work is better done at once.
    """
    number = jax.tree.leaves(rows)[0].shape[0]
    if number * entries <= _MOST_ENTRIES:
        return jax.vmap(function)(rows)
    return lax.map(function, rows, batch_size=max(1, math.floor(_MOST_ENTRIES / entries)))
