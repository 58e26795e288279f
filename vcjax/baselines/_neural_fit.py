"""A short training loop for networks that add to the mean response."""

import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ._neural_nets import AbstractNetwork


Loss = Callable[[Any, Any], Float[Array, ""]]


class Training(eqx.Module):
    """How a network is trained: Adam with decoupled weight decay, on all perturbations or on a random few each step.

    **Fields:**

    - `loss`: of predicted and measured effects, (perts, genes) each, such as `vcjax.as_loss(metric)`; the mean squared
        error by default.
    - `steps`; `learning_rate`; `weight_decay`.
    - `batch`: perturbations a step, all by default. A metric of discrimination ranks within the batch.
    """

    loss: Loss | None = eqx.field(static=True, default=None)
    steps: int = eqx.field(static=True, default=500)
    learning_rate: float = eqx.field(static=True, default=1e-3)
    weight_decay: float = eqx.field(static=True, default=0.0)
    batch: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if (
            self.steps < 0
            or self.learning_rate <= 0
            or self.weight_decay < 0
            or (self.batch is not None and self.batch < 1)
        ):
            raise ValueError(
                f"Steps and decay of 0 or more, a positive rate and a batch of 1 or more are needed, got {self}."
            )


def train(
    network: AbstractNetwork,
    inputs: Any,
    control: Float[Array, " genes"],
    response: Float[Array, " genes"],
    effects: Float[Array, "perts genes"],
    training: Training,
    key: Array,
) -> tuple[AbstractNetwork, Float[Array, " steps"]]:
    """The network after training, without dropout, and the loss before every step. The same key gives the same network.

    **Arguments:** `inputs`: encodings of the perturbations, arrays with the axis of perturbations first; `response`:
    what the network adds to.
    """
    optimiser = _optimiser(training.learning_rate, training.weight_decay)
    loss = mean_squared_error if training.loss is None else training.loss
    state = optimiser.init(eqx.filter(network, eqx.is_inexact_array))
    batch = None if training.batch is None or training.batch >= len(effects) else training.batch
    history = []
    for step in range(training.steps):
        draw = jax.random.fold_in(key, step)
        network, state, value = _step(
            network, state, optimiser, loss, batch, (inputs, effects), (control, response), draw
        )
        history.append(value)
    values = jnp.stack(history) if history else jnp.zeros(0, effects.dtype)
    return eqx.nn.inference_mode(network), values


def added(network: AbstractNetwork, inputs: Any, control: Float[Array, " genes"]) -> Float[Array, "perts genes"]:
    """What a network adds to the mean response of each perturbation, without dropout."""
    return jax.vmap(lambda x: eqx.nn.inference_mode(network)(x, control, None))(inputs)


def mean_squared_error(pred: Float[Array, "perts genes"], real: Float[Array, "perts genes"]) -> Float[Array, ""]:
    """The mean over perturbations and genes."""
    return jnp.mean((pred - real) ** 2)


@eqx.filter_jit
def _step(network, state, optimiser, loss, batch, data, constants, key):
    chosen, dropped = jax.random.split(key)
    inputs, effects = data
    if batch is not None:
        rows = jax.random.permutation(chosen, len(effects))[:batch]
        inputs, effects = jax.tree.map(lambda x: x[rows], (inputs, effects))
    control, response = constants

    def objective(network):
        keys = jax.random.split(dropped, len(effects))
        delta = jax.vmap(lambda x, k: network(x, control, k))(inputs, keys)
        return loss(response[None, :] + delta, effects)

    value, gradient = eqx.filter_value_and_grad(objective)(network)
    # The optimiser raises floats to integer powers, which strict promotion of the caller's would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimiser.update(gradient, state, eqx.filter(network, eqx.is_inexact_array))
    return eqx.apply_updates(network, updates), state, value


@ft.cache
def _optimiser(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    # One object for one setting, or every fit would compile its step anew.
    return optax.adamw(learning_rate, weight_decay=weight_decay)
