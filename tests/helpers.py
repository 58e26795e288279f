"""What several test files share."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest


ROOT = pathlib.Path(__file__).resolve().parents[1]


def shared_path(name: str) -> pathlib.Path:
    """A file or folder of reference values or real data, which the repository does not carry; skips where it is
    absent.
    """
    path = pathlib.Path(os.environ.get("VCJAX_SHARED", ROOT.parent / "shared")) / name
    if not path.exists():
        pytest.skip(f"needs {name} (set VCJAX_SHARED to the folder that holds it)")
    return path


def finite_difference(f, x, direction, step=1e-6):
    """Central difference of the scalar function `f` at `x` along `direction`."""
    x, direction = np.asarray(x, np.float64), np.asarray(direction, np.float64)
    return (float(f(jnp.asarray(x + step * direction))) - float(f(jnp.asarray(x - step * direction)))) / (2 * step)


def directional(f, x, direction):
    """The derivative of the scalar function `f` at `x` along `direction`, from its gradient."""
    return float(jnp.sum(jax.grad(f)(jnp.asarray(x)) * jnp.asarray(direction)))
