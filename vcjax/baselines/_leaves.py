"""Hyper-parameters as leaves of a pytree."""

from typing import Any

import jax.numpy as jnp


def optional(value: Any) -> Any:
    """An array, so that it can be tuned by gradient; or nothing."""
    return None if value is None else jnp.asarray(value)
