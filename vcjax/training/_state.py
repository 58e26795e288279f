"""Where a training is: everything that the next step depends on, and the file that holds it."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._files import replacing


M = TypeVar("M")


class State(eqx.Module, Generic[M]):
    """A training after `step` steps.

    **Fields:** `model`; `optimiser`, its state; `step`; `failed`: whether a step was not finite, after which nothing
    moves; `best`, the model of the best validation so far, its `score` (less is better) and the step it was `found` at.
    """

    model: M
    optimiser: PyTree
    step: Int[Array, ""]
    failed: Bool[Array, ""]
    best: M
    score: Float[Array, ""]
    found: Int[Array, ""]


def save(path: pathlib.Path, state: State, about: Mapping[str, Any]) -> None:
    """Writes a checkpoint in the place of the last one: never half of one."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write((json.dumps(about) + "\n").encode())
        eqx.tree_serialise_leaves(file, state)
        file.flush()
        os.fsync(file.fileno())


def load(path: pathlib.Path, like: State[M]) -> State[M]:
    """The state in a checkpoint; `like` is one of the same model and optimiser."""
    with path.open("rb") as file:
        file.readline()  # what it says about itself, see `read_about`
        return eqx.tree_deserialise_leaves(file, like)


def read_about(path: pathlib.Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    **Raises:** `ValueError` for a file that is no checkpoint.
    """
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
        return {"settings": about["settings"], "history": about["history"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of vcjax, and is left as it is: name another file for this training."
        ) from error


def fingerprint(tree: PyTree) -> str:
    """A digest of every array, to tell one data set from another."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def start(model: M, optimiser_state: PyTree) -> State[M]:
    """The state before the first step."""
    never = jnp.asarray(jnp.inf)
    zero = jnp.asarray(0, jnp.int32)
    return State(model, optimiser_state, zero, jnp.asarray(False), model, never, zero)
