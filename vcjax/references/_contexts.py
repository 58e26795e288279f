"""A reference for each context of a panel."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Real

from .._checks import as_float_matrix
from ._reference import Reference


def per_context(
    build: Callable[..., Reference],
    profiles: Real[ArrayLike, "perts genes"],
    contexts: Sequence[str],
    *,
    perts: Sequence[str],
    **options: Any,
) -> Reference:
    """One reference row for each row of a panel, made within the row's own context (cell line, cell type, batch).

    **Arguments:**

    - `build`: `train_mean`, `loo_mean` or `all_mean`.
    - `contexts`: the context of each row; `perts`: its name, which may occur once in every context.
    - `options`: those of `build`. `train` and `cells` are split along with the rows; a dictionary gives each context
        its own value (`control={"K562": …}`).

    **Returns:** a `Reference` with one row a row of `profiles`; its `context` lists them all.

    **Raises:** `ValueError` for numbers of rows that differ, and what `build` raises.
    """
    profiles = as_float_matrix(profiles, "profiles")
    if not len(contexts) == len(perts) == profiles.shape[0]:
        raise ValueError(
            f"One context and one name a row are expected: {profiles.shape[0]} rows, {len(contexts)} contexts, "
            f"{len(perts)} names."
        )
    labels = np.asarray(contexts)
    values, made_of, part = jnp.zeros_like(profiles), {}, None
    for context in dict.fromkeys(contexts):
        rows = np.flatnonzero(labels == context)
        own = {name: _own(name, value, context, rows) for name, value in options.items()}
        part = build(profiles[rows], perts=[perts[i] for i in rows.tolist()], context=context, **own)
        values = values.at[rows].set(part.values if part.values.ndim == 2 else part.values[None, :])
        made_of |= dict.fromkeys(part.perts)
    if part is None:
        raise ValueError("A panel without rows has no reference.")
    return dataclasses.replace(part, values=values, perts=tuple(made_of), context=", ".join(dict.fromkeys(contexts)))


def _own(name: str, value: Any, context: str, rows: np.ndarray) -> Any:
    """The part of an option that belongs to a context."""
    if isinstance(value, dict):
        return value[context]
    return value[rows] if name in ("train", "cells") and value is not None else value
