"""Rules of transfer whose amplitudes or weights are learnt, in closed form: one a class."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._stats import safe_divide
from ._leaves import optional
from ._transfer import Sources, Transfer
from ._transfer_rules import gene_scales, nonnegative_weights, scale_products, source_mean, Stack, times


Effect = Float[Array, "perts genes"]
Response = Float[Array, " genes"]


class ScaledTransfer(Transfer):
    r"""The mean effect over other contexts times one number, $a \cdot \bar L$.

    **Fields:** `amplitude`, a; without one, that of the least squared error on training perturbations that are measured
    elsewhere too, $\langle \bar L, y \rangle / \langle \bar L, \bar L \rangle$; without any of these, on those of each
    source predicted from the others.
    """

    name: ClassVar[str] = "transfer_scaled"
    summary: ClassVar[str] = "Mean effect over other contexts, at the amplitude of least squared error."
    source: ClassVar[str] = "Scaled transfer (Virtual Cell Challenge 2026 entries)"

    amplitude: Float[ArrayLike, ""] | None = eqx.field(converter=optional, default=None)

    @property
    def learns(self) -> bool:
        return self.amplitude is None

    def statistics(self, stack: Stack, real: Effect, sources: Sources) -> Any:
        product, square = scale_products(source_mean(stack), real)
        return jnp.sum(product, axis=1), jnp.sum(square, axis=1)

    def solve(self, totals: Any, response: Response) -> Any:
        return safe_divide(*totals) if self.amplitude is None else jnp.asarray(self.amplitude)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        return times(source_mean(stack), learnt)


class GeneScaledTransfer(Transfer):
    r"""The mean effect over other contexts, each gene times a number of its own, $a_g \bar L_g$.

    The numbers are found by ridge regression towards that of all genes, see `gene_scales`, on the perturbations that
    `ScaledTransfer` uses.

    **Fields:** `log_ridge`, $\log\lambda$, in units of the mean sum of squares of a gene.
    """

    name: ClassVar[str] = "transfer_gene_scaled"
    summary: ClassVar[str] = "Mean effect over other contexts, at an amplitude of each gene."
    source: ClassVar[str] = "Gene-wise calibrated transfer (Virtual Cell Challenge 2026 entries)"

    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    @property
    def learns(self) -> bool:
        return True

    def statistics(self, stack: Stack, real: Effect, sources: Sources) -> Any:
        return scale_products(source_mean(stack), real)

    def solve(self, totals: Any, response: Response) -> Any:
        product, square = totals
        return gene_scales(product, square, jnp.asarray(self.log_ridge))

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        return times(source_mean(stack), learnt[None, :])


class SpecificTransfer(Transfer):
    r"""The mean response here, and what is specific to the perturbation elsewhere:
    $\mu + a\,\overline{(L_d - \mu_d)}$, each context less its own mean response.

    **Fields:** `amplitude`, a; without one, that of the least squared error, as in `ScaledTransfer`.
    """

    name: ClassVar[str] = "transfer_specific"
    summary: ClassVar[str] = "The mean response here plus what is specific to the perturbation in other contexts."
    source: ClassVar[str] = "Generic and specific response (Virtual Cell Challenge 2026 entries)"

    amplitude: Float[ArrayLike, ""] | None = eqx.field(converter=optional, default=None)

    @property
    def learns(self) -> bool:
        return self.amplitude is None

    def statistics(self, stack: Stack, real: Effect, sources: Sources) -> Any:
        specific = source_mean(stack - sources.generic[:, None, :])
        product, square = scale_products(specific, real)
        known = ~(jnp.isnan(specific) | jnp.isnan(real))
        return jnp.sum(product, axis=1), jnp.where(known, specific, 0), jnp.sum(square, axis=1)

    def as_target(self, table: Effect, generic: Response, response: Response) -> Effect:
        return table - (generic - response)[None, :]

    def solve(self, totals: Any, response: Response) -> Any:
        if self.amplitude is not None:
            return jnp.asarray(self.amplitude)
        product, specific, square = totals
        shared = jnp.sum(specific * jnp.where(jnp.isnan(response), 0, response))
        return safe_divide(product - shared, square)

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        specific = source_mean(stack - prepared.generic[:, None, :])
        return response[None, :] + times(specific, learnt)


class StackedTransfer(Transfer):
    r"""$\sum_d w_d L_d + w_0 \mu$ with non-negative weights of the sources and of the mean response here.

    The weights have the least squared error on training perturbations that are measured elsewhere too. What a source
    does not measure is taken as the mean over those that do.

    **Fields:** `log_ridge`: $\log\lambda$ of $\lambda|w|^2$, in units of the mean sum of squares of a component; none
    by default.
    """

    name: ClassVar[str] = "transfer_nnls"
    summary: ClassVar[str] = "Non-negative combination of other contexts and the mean response here."
    source: ClassVar[str] = "Non-negative stacking (Virtual Cell Challenge 2026 entries)"

    log_ridge: Float[ArrayLike, ""] | None = eqx.field(converter=optional, default=None)

    @property
    def learns(self) -> bool:
        return True

    @property
    def learns_from_sources(self) -> bool:
        return False

    def statistics(self, stack: Stack, real: Effect, sources: Sources) -> Any:
        filled, known = _filled(stack)
        known = known & ~jnp.isnan(real)
        parts, real = jnp.where(known[None], filled, 0), jnp.where(known, real, 0)
        products = jnp.einsum("dpg,epg->pde", parts, parts, precision="highest")
        aims = jnp.einsum("dpg,pg->pd", parts, real, precision="highest")
        return products, aims, jnp.moveaxis(parts, 1, 0), real, known.astype(real.dtype)

    def solve(self, totals: Any, response: Response) -> Any:
        products, aims, parts, real, known = totals
        column = parts @ response
        own, aim = jnp.sum(known * response * response), jnp.sum(real * response)
        matrix = jnp.block([[products, column[:, None]], [column[None, :], own[None, None]]])
        if self.log_ridge is not None:
            ridge = jnp.exp(jnp.asarray(self.log_ridge)).astype(matrix.dtype) * jnp.mean(jnp.diagonal(matrix))
            matrix = matrix + ridge * jnp.eye(len(matrix), dtype=matrix.dtype)
        return nonnegative_weights(matrix, jnp.concatenate([aims, aim[None]]))

    def combine(self, stack: Stack, prepared: Sources, learnt: Any, response: Response) -> Effect:
        filled, known = _filled(stack)
        total = jnp.einsum("d,dpg->pg", learnt[:-1], filled, precision="highest") + learnt[-1] * response[None, :]
        return jnp.where(known, total, jnp.nan)


def _filled(stack: Stack) -> tuple[Stack, Bool[Array, "perts genes"]]:
    """Effects with the mean over sources in the place of what a source does not measure; and what any measures."""
    mean = source_mean(stack)
    known = ~jnp.isnan(mean)
    return jnp.where(jnp.isnan(stack), jnp.where(known, mean, 0)[None], stack), known
