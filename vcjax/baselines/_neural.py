"""Small neural baselines on profiles, which start exactly at the mean response."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ._features import all_named, Features
from ._fitted import FittedToData, need
from ._interface import Baseline, Fairness, mean_response, PertData, Prediction
from ._members import members
from ._neural_fit import added, train, Training
from ._neural_nets import AbstractNetwork, Additive, Direct, Latent, Perceptron, SumOfMembers


class AbstractEncoding(eqx.Module):
    """What a network is told of a perturbation."""

    @abc.abstractmethod
    def of(self, perts: Sequence[str], dtype: Any) -> tuple[Any, np.ndarray]:
        """Arrays with the axis of perturbations first, and which labels are covered."""


class MultiHot(AbstractEncoding):
    """Which of the training perturbations a label joins; it is covered if all of them are known."""

    names: tuple[str, ...] = eqx.field(static=True)

    @classmethod
    def of_training(cls, perts: Sequence[str]) -> "MultiHot":
        """The members of all training labels."""
        known = set(perts)
        return cls(tuple(dict.fromkeys(part for pert in perts for part in members(pert, known))))

    def of(self, perts: Sequence[str], dtype: Any) -> tuple[Any, np.ndarray]:
        place = {name: i for i, name in enumerate(self.names)}
        table, covered = np.zeros((len(perts), len(self.names))), np.zeros(len(perts), bool)
        for row, pert in enumerate(perts):
            parts = members(pert, place)
            covered[row] = len(parts) > 0 and all(part in place for part in parts)
            for part in parts if covered[row] else ():
                table[row, place[part]] += 1
        return jnp.asarray(table, dtype), covered


class MemberFeatures(AbstractEncoding):
    """The features of each member of a label, padded to the most that a label has; covered if all members have them."""

    features: Features

    def of(self, perts: Sequence[str], dtype: Any) -> tuple[Any, np.ndarray]:
        rows, used = self.features.member_rows(perts)
        return (self.features.values[np.maximum(rows, 0)].astype(dtype), jnp.asarray(used)), all_named(rows, used)


class NeuralBaseline(Baseline):
    """What the small networks share: the mean response plus what a network adds, trained on effects.

    The last layer starts at zero: without training the prediction is the mean response, bit for bit, so every gain is
    one over it. A label that the encoding does not cover has the mean response. Leaving one out has no closed form.

    **Fields:** `training`: loss, steps and optimiser.
    """

    training: Training = eqx.field(default_factory=Training, kw_only=True)

    @abc.abstractmethod
    def encoding(self, data: PertData) -> AbstractEncoding:
        """How perturbations are told to the network."""

    @abc.abstractmethod
    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        """An untrained network for inputs like these."""

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> "FittedNetwork":
        """**Raises:** `ValueError` without a key, and where no training perturbation is covered."""
        need(key, "key", "weights and batches are drawn at random", self.name)
        assert key is not None
        encoding, dtype = self.encoding(data), data.effects.dtype
        inputs, covered = encoding.of(data.perts, dtype)
        if not covered.any():
            raise ValueError(f"None of {len(covered)} training perturbations is known to the baseline {self.name!r}.")
        rows = np.flatnonzero(covered)
        made, steps = jax.random.split(key)
        network = self.network(inputs, data.effects.shape[1], dtype, made)
        given = lax.stop_gradient((jax.tree.map(lambda x: x[rows], inputs), data.control, mean_response(data)))
        network, history = train(network, *given, lax.stop_gradient(data.effects[rows]), self.training, steps)
        return FittedNetwork(data, self.name, self.fairness, encoding, network, history)


class FittedNetwork(FittedToData):
    """A trained network and the `history` of its loss."""

    encoding: AbstractEncoding
    network: AbstractNetwork
    history: Float[Array, " steps"]

    def predict(self, perts: Sequence[str]) -> Prediction:
        inputs, covered = self.encoding.of(perts, self.data.effects.dtype)
        effect = mean_response(self.data)[None, :] + added(self.network, inputs, self.data.control)
        return self.prediction(perts, effect, covered, steps=len(self.history))


class _OfMembers(NeuralBaseline):
    """A network that is told which perturbations a label joins: for combinations of training perturbations."""

    fairness: ClassVar[Fairness] = "inductive"
    needs: ClassVar[tuple[str, ...]] = ("combinations",)

    def encoding(self, data: PertData) -> AbstractEncoding:
        return MultiHot.of_training(data.perts)


class LinearAdditive(_OfMembers):
    r"""One trained effect a perturbation, $\mu + \sum_{a \in p} W_a$."""

    name: ClassVar[str] = "linear_additive"
    summary: ClassVar[str] = "One trained effect a perturbation, summed over the members of a combination."
    source: ClassVar[str] = "PerturBench (LinearAdditive; here on profiles, without softplus)"

    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        return Additive(jnp.zeros((inputs.shape[1], genes), dtype))


class LatentAdditive(_OfMembers):
    r"""$\mu + \mathrm{dec}(\mathrm{enc}_c(c) + \mathrm{enc}_p(p))$: control and perturbation add in a latent space.

    Each part is a perceptron with normalised layers and rectifiers.

    **Fields:** `layers`, of each part; `width`, of a layer; `latent`, dimensions of the latent space; `dropout`.
    """

    name: ClassVar[str] = "latent_additive"
    summary: ClassVar[str] = "Perturbations add in a latent space, which a perceptron decodes."
    source: ClassVar[str] = "PerturBench (LatentAdditive; here on profiles, without softplus)"

    layers: int = eqx.field(static=True, default=1)
    width: int = eqx.field(static=True, default=512)
    latent: int = eqx.field(static=True, default=64)
    dropout: float = eqx.field(static=True, default=0.1)

    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        options = {"dtype": dtype, "normalised": True, "dropout": self.dropout}
        return _latent(self, inputs.shape[1], genes, self.latent, key, options)


class EmbedSum(_OfMembers):
    r"""$\mu + \mathrm{dec}(\mathrm{enc}_c(c) + \mathrm{enc}_p(p))$ with layers of one width and Gaussian error units.

    **Fields:** `layers`, of each part; `width`; `dropout`.
    """

    name: ClassVar[str] = "embed_sum"
    summary: ClassVar[str] = "Embeddings of control profile and perturbation, summed and decoded."
    source: ClassVar[str] = "State (EmbedSumPerturbationModel; here on profiles)"

    layers: int = eqx.field(static=True, default=1)
    width: int = eqx.field(static=True, default=256)
    dropout: float = eqx.field(static=True, default=0.1)

    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        options = {"dtype": dtype, "activation": jax.nn.gelu, "dropout": self.dropout}
        return _latent(self, inputs.shape[1], genes, self.width, key, options)


class DecoderOnly(_OfMembers):
    """A perceptron on the perturbation alone.

    A `blind` one is not told the perturbation: what it reaches is what a model can reach that has collapsed to one
    answer for all.

    **Fields:** `blind`; `layers`; `width`; `dropout`.
    """

    name: ClassVar[str] = "decoder_only"
    summary: ClassVar[str] = "A perceptron on the perturbation alone; blind to it, the control for collapse."
    source: ClassVar[str] = "PerturBench (DecoderOnly; here on profiles, without softplus)"

    blind: bool = eqx.field(static=True, default=False)
    layers: int = eqx.field(static=True, default=1)
    width: int = eqx.field(static=True, default=512)
    dropout: float = eqx.field(static=True, default=0.0)

    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        sizes = (1 if self.blind else inputs.shape[1], *(self.width,) * self.layers, genes)
        decoder = Perceptron(sizes, key=key, dtype=dtype, normalised=True, dropout=self.dropout, zero=True)
        return Direct(decoder, self.blind)


class FeatureMLP(NeuralBaseline):
    r"""$\mu + \rho\big(\sum_{a \in p} \varphi(f_a)\big)$: features of each perturbed gene, encoded, summed and decoded.

    The only network here that has something to say of a perturbation that it was not trained on.

    **Fields:** `features`, of genes or perturbations by name; `layers`, of either part; `width`, of a layer; `latent`,
    dimensions between the two; `dropout`.
    """

    name: ClassVar[str] = "fmlp"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "A perceptron on features of the perturbed genes, summed over a combination."
    source: ClassVar[str] = "Miller et al. 2025 (fMLP; here added to the mean response)"
    needs: ClassVar[tuple[str, ...]] = ("features",)

    features: Features | None = None
    layers: int = eqx.field(static=True, default=2)
    width: int = eqx.field(static=True, default=512)
    latent: int = eqx.field(static=True, default=128)
    dropout: float = eqx.field(static=True, default=0.0)

    def encoding(self, data: PertData) -> AbstractEncoding:
        need(self.features, "features", "vectors of the perturbations or of the genes they target", self.name)
        assert self.features is not None
        return MemberFeatures(self.features)

    def network(self, inputs: Any, genes: int, dtype: Any, key: Array) -> AbstractNetwork:
        first, second = jax.random.split(key)
        options = {"dtype": dtype, "activation": _leaky, "dropout": self.dropout}
        hidden = (self.width,) * self.layers
        encoder = Perceptron((inputs[0].shape[2], *hidden, self.latent), key=first, **options)
        return SumOfMembers(encoder, Perceptron((self.latent, *hidden, genes), key=second, zero=True, **options))


def _latent(model: Any, inputs: int, genes: int, latent: int, key: Array, options: dict[str, Any]) -> Latent:
    first, second, third = jax.random.split(key, 3)
    hidden = (model.width,) * model.layers
    return Latent(
        Perceptron((genes, *hidden, latent), key=first, **options),
        Perceptron((inputs, *hidden, latent), key=second, **options),
        Perceptron((latent, *hidden, genes), key=third, zero=True, **options),
    )


def _leaky(x: Array) -> Array:
    return jax.nn.leaky_relu(x, 0.2)
