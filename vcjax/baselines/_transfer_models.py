"""Rules of transfer that learn nothing from the training perturbations but the mean response: one a class."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ._leaves import optional
from ._transfer import Sources, Transfer
from ._transfer_rules import (
    compressed,
    similarity_weights,
    source_agreement,
    source_mean,
    source_median,
    Stack,
    times,
    with_norm,
)


Effect = Float[Array, "perts genes"]
Response = Float[Array, " genes"]


class DirectTransfer(Transfer):
    """The effect in one other context, as it is.

    **Fields:** `place`: which of `external`.
    """

    name: ClassVar[str] = "transfer_direct"
    summary: ClassVar[str] = "The same perturbation's effect in one other context, as it is."
    source: ClassVar[str] = "Direct transfer (Virtual Cell Challenge 2026 entries)"

    place: int = eqx.field(static=True, default=0)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        if not 0 <= self.place < len(stack):
            raise ValueError(f"`place` is one of {len(stack)} external screens, got {self.place}.")
        return stack[self.place]


class MeanTransfer(Transfer):
    """The mean effect over the other contexts that measure it, all alike."""

    name: ClassVar[str] = "transfer_mean"
    summary: ClassVar[str] = "Mean effect of the same perturbation over other contexts."
    source: ClassVar[str] = "Mean transfer (Virtual Cell Challenge 2026 entries)"

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        return source_mean(stack)


class MedianTransfer(Transfer):
    """The median effect, gene by gene, over the other contexts that measure it."""

    name: ClassVar[str] = "transfer_median"
    summary: ClassVar[str] = "Median effect of the same perturbation over other contexts."
    source: ClassVar[str] = "Median transfer (Virtual Cell Challenge 2026 entries)"

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        return source_median(stack)


class WeightedTransfer(Transfer):
    r"""The mean effect over other contexts, weighted by how much their control cells resemble those here:
    $\mathrm{softmax}_d(r_d/\tau + l_d)$, with the correlation r of control profiles.

    **Fields:** `log_temperature`, $\log\tau$; `logits`, $l$, one a source, 0 by default.
    """

    name: ClassVar[str] = "transfer_weighted"
    summary: ClassVar[str] = "Mean effect over other contexts, weighted by the similarity of their control cells."
    source: ClassVar[str] = "Weighted transfer (Virtual Cell Challenge 2026 entries)"

    log_temperature: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.05))
    logits: Float[ArrayLike, " sources"] | None = eqx.field(converter=optional, default=None)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        prior = None if self.logits is None else jnp.exp(jnp.asarray(self.logits)).astype(stack.dtype)
        return source_mean(stack, similarity_weights(prepared.similarity, jnp.asarray(self.log_temperature), prior))


class NormRestoredTransfer(Transfer):
    r"""The direction of `WeightedTransfer` at the size that the effect has in the sources, on average, times a number.

    The mean of several noisy effects is shorter than each of them; see `with_norm`.

    **Fields:** `log_temperature`, $\log\tau$, as in `WeightedTransfer`; `log_amplitude`, the logarithm of the number.
    """

    name: ClassVar[str] = "transfer_norm_restored"
    summary: ClassVar[str] = "Weighted mean effect over other contexts, at the size that it has in each."
    source: ClassVar[str] = "Norm-restored transfer (Virtual Cell Challenge 2026 entries)"

    log_temperature: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.05))
    log_amplitude: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        weights = similarity_weights(prepared.similarity, jnp.asarray(self.log_temperature))
        amplitude = jnp.exp(jnp.asarray(self.log_amplitude)).astype(stack.dtype)
        return times(with_norm(source_mean(stack, weights), stack, weights), amplitude)


class AgreementTransfer(Transfer):
    r"""The mean effect over other contexts, each perturbation at an amplitude that its sources' agreement allows:
    $a\, r_p^\gamma\, \bar L_p$.

    r is the reliability of a mean over as many sources, see `source_agreement`.

    **Fields:** `log_amplitude`, $\log a$; `power`, $\gamma$; `alone`, the r of a perturbation that a single source
    measures.
    """

    name: ClassVar[str] = "transfer_agreement"
    summary: ClassVar[str] = "Mean effect over other contexts, smaller where these disagree."
    source: ClassVar[str] = "yashnil (Virtual Cell Challenge 2026, amplitude by source agreement)"

    log_amplitude: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)
    power: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    alone: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.5)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        cast = lambda x: jnp.asarray(x).astype(stack.dtype)
        agreement = source_agreement(stack)
        agreement = jnp.where(jnp.isnan(agreement), cast(self.alone), agreement)
        scale = jnp.exp(cast(self.log_amplitude)) * compressed(agreement, cast(self.power))
        return times(source_mean(stack), scale[:, None])


class CompressedTransfer(Transfer):
    r"""$f\,\mathrm{sign}(\bar L)|\bar L|^\gamma$, with $\bar L$ weighted by
    $\mathrm{softmax}_d(r_d/\tau)\,n_d/(n_d + s)$ and the number f that brings the mean size of an effect on a
    gene to a given level.

    r is the correlation of control profiles and n the mean number of cells of a perturbation in a source (all sources
    count fully where it is not known). The level is that of all perturbations of the sources together.

    **Fields:** `log_temperature`, $\log\tau$; `log_shrinkage`, $\log s$; `power`, $\gamma$; `log_level`, that of the
    level.
    """

    name: ClassVar[str] = "transfer_compressed"
    summary: ClassVar[str] = "Weighted mean effect over other contexts, compressed by a power, at a given mean size."
    source: ClassVar[str] = "TransPert (Virtual Cell Challenge 2026, as re-implemented by wukonglin)"

    log_temperature: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.05))
    log_shrinkage: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(50.0))
    power: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.5)
    log_level: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=np.log(0.0898))

    def prepare(self, sources: Sources) -> Any:
        names = tuple(dict.fromkeys(name for names in sources.names for name in names))
        size = jnp.abs(self._shape(sources.of(names), sources))
        known = ~jnp.isnan(size)
        count = jnp.sum(known, dtype=jnp.int32).astype(size.dtype)
        mean = safe_divide(jnp.sum(jnp.where(known, size, 0)), count, otherwise=0.0)
        level = jnp.exp(jnp.asarray(self.log_level)).astype(size.dtype)
        return sources, safe_divide(level, mean, otherwise=0.0)

    def combine(self, stack: Stack, prepared: Any, learnt: Any, response: Response) -> Effect:
        sources, factor = prepared
        return times(self._shape(stack, sources), factor)

    def _shape(self, stack: Stack, sources: Sources) -> Effect:
        shrinkage = jnp.exp(jnp.asarray(self.log_shrinkage)).astype(stack.dtype)
        trust = jnp.where(jnp.isnan(sources.depth), 1, sources.depth / (sources.depth + shrinkage))
        weights = similarity_weights(sources.similarity, jnp.asarray(self.log_temperature), trust)
        mean = source_mean(stack, weights)
        known = ~jnp.isnan(mean)
        return jnp.where(known, compressed(jnp.where(known, mean, 0), jnp.asarray(self.power)), jnp.nan)
