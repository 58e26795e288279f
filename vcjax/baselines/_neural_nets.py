"""The networks of the small neural baselines: from a perturbation and the control profile to what is added to the mean.

The last layer of each starts at zero, so that an untrained network adds exactly nothing.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


Activation = Callable[[Array], Array]


class Perceptron(eqx.Module):
    """Layers of a linear map, normalisation (without parameters, if any), activation and dropout; the last is linear.

    **Fields:** `layers`; `dropout`; `activation`; `normalised`.
    """

    layers: tuple[eqx.nn.Linear, ...]
    dropout: eqx.nn.Dropout
    activation: Activation = eqx.field(static=True)
    normalised: bool = eqx.field(static=True)

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        key: Array,
        dtype: Any,
        activation: Activation = jax.nn.relu,
        normalised: bool = False,
        dropout: float = 0.0,
        zero: bool = False,
    ):
        """**Arguments:** `sizes` of the input, the hidden layers and the output; `zero`: the last layer starts at 0."""
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        keys = jax.random.split(key, len(pairs))
        layers = [eqx.nn.Linear(*pair, dtype=dtype, key=k) for pair, k in zip(pairs, keys, strict=True)]
        if zero:
            layers[-1] = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else x, layers[-1])
        self.layers, self.dropout = tuple(layers), eqx.nn.Dropout(dropout)
        self.activation, self.normalised = activation, normalised

    def __call__(self, x: Float[Array, " inputs"], key: Array | None) -> Float[Array, " outputs"]:
        keys = [None] * len(self.layers) if key is None else list(jax.random.split(key, len(self.layers)))
        for layer, draw in zip(self.layers[:-1], keys[:-1], strict=True):
            x = layer(x)
            x = self.activation(_normalised(x) if self.normalised else x)
            x = self.dropout(x, key=draw)
        return self.layers[-1](x)


def _normalised(x: Float[Array, " n"]) -> Float[Array, " n"]:
    gap = x - jnp.mean(x)
    return gap * lax.rsqrt(jnp.mean(gap * gap) + 1e-5)


class AbstractNetwork(eqx.Module):
    """What is added to the mean response of one perturbation."""

    @abc.abstractmethod
    def __call__(self, inputs: Any, control: Float[Array, " genes"], key: Array | None) -> Float[Array, " genes"]:
        """The addition for the encoding of one perturbation; `key` for dropout, `None` for none."""


class Additive(AbstractNetwork):
    """One effect a perturbation, summed over the members of a combination."""

    weight: Float[Array, "members genes"]

    def __call__(self, inputs: Any, control: Float[Array, " genes"], key: Array | None) -> Float[Array, " genes"]:
        return inputs @ self.weight


class Direct(AbstractNetwork):
    """A perceptron on the perturbation alone; a `blind` one does not see it, and says the same of all."""

    decoder: Perceptron
    blind: bool = eqx.field(static=True)

    def __call__(self, inputs: Any, control: Float[Array, " genes"], key: Array | None) -> Float[Array, " genes"]:
        return self.decoder(jnp.ones_like(inputs[:1]) if self.blind else inputs, key)


class Latent(AbstractNetwork):
    """The latent vectors of control profile and perturbation, added and decoded."""

    control_encoder: Perceptron
    encoder: Perceptron
    decoder: Perceptron

    def __call__(self, inputs: Any, control: Float[Array, " genes"], key: Array | None) -> Float[Array, " genes"]:
        first, second, third = (None,) * 3 if key is None else jax.random.split(key, 3)
        return self.decoder(self.control_encoder(control, first) + self.encoder(inputs, second), third)


class SumOfMembers(AbstractNetwork):
    """The latent vectors of the members of a combination, each from its features, summed and decoded."""

    encoder: Perceptron
    decoder: Perceptron

    def __call__(self, inputs: Any, control: Float[Array, " genes"], key: Array | None) -> Float[Array, " genes"]:
        members, used = inputs
        first, second = (None,) * 2 if key is None else jax.random.split(key)
        encoded = jax.vmap(lambda x: self.encoder(x, first))(members)
        return self.decoder(jnp.sum(jnp.where(used[:, None], encoded, 0), axis=0), second)
