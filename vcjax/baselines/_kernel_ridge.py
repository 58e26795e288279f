"""Kernel ridge regression with relatedness transfer: other screens tell which perturbations resemble each other."""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from ._fitted import FittedToData, need
from ._interface import Baseline, Fairness, PertData, Prediction
from ._jackknife import jackknife_bands
from ._kernel_combine import combine_kernels, with_unit_diagonal
from ._krr import Groups, held_out_smoother, Intercept, inverse_of, regularised, same_group, smooth, smoother
from ._relatedness import Drop, Kind, NamedKernel, relate, Relatives


Source: TypeAlias = PertData | Relatives | NamedKernel
"""Where similarities come from: another screen, what is left of one after `relate`, or a kernel known otherwise."""

_LEAST_NOISE = 1e-3  # of the mean: a perturbation measured without noise would have to be fitted exactly


class KernelRidge(Baseline):
    r"""Kernel ridge regression on the effects of the context to predict, with a kernel made of other screens.

    $\hat y_u = \mu + k_u' (K + \lambda\,\mathrm{diag}(v))^{-1} (Y - 1\mu')$. Effects come from the training
    perturbations alone; the other screens say only how much perturbations resemble each other, so they need neither the
    same genes nor the same units. A perturbation that no screen has gets the mean response.

    **Fields:**

    - `log_ridge`: $\log\lambda$, against similarities of 1 on the diagonal.
    - `logits`: the softmax of these weighs the sources; `None` weighs all alike.
    - `centre`: share of each screen's mean response that is taken off before effects are compared.
    - `shrinkage`: exponent of the reliability of similarities, see `Relatives.kernel`; for screens with `noise`.
    - `noise_exponent`: $a$ of $v_p = (C_p / \bar C)^a$, with $C_p$ the sampling noise of the training effects, or one
        over their cells; 0 is the same ridge for all.
    - `log_length_scale`: of the kinds that have one.
    - `kind`, `drop`, `components`: of similarities, see `relate`.
    - `intercept`: what is not penalised, see `Intercept`.

    What a perturbation does not share with others is its own: every similarity to itself is 1, which keeps the kernel
    positive semi-definite.

    Source: N. LaPierre, relatedness transfer (GRAFT; Virtual Cell Challenge 2025), there with $\lambda = 0.01$, no
    centring and no intercept.
    """

    name: ClassVar[str] = "kernel_ridge"
    fairness: ClassVar[Fairness] = "external"
    summary: ClassVar[str] = "Kernel ridge regression, with the similarities of perturbations in other screens."
    source: ClassVar[str] = "LaPierre (GRAFT, relatedness transfer)"
    needs: ClassVar[tuple[str, ...]] = ("external",)

    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)
    logits: Float[ArrayLike, " sources"] | None = eqx.field(
        converter=lambda x: None if x is None else jnp.asarray(x), default=None
    )
    centre: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    shrinkage: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    noise_exponent: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    log_length_scale: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)
    kind: Kind = eqx.field(static=True, default="pearson")
    drop: Drop = eqx.field(static=True, default="own")
    components: int = eqx.field(static=True, default=50)
    intercept: Intercept = eqx.field(static=True, default="mean")

    def prepare(self, external: Sequence[Source]) -> tuple[Relatives | NamedKernel, ...]:
        """What a fit needs of other screens, which no hyper-parameter changes: `external` of many fits.

        **Raises:** `ValueError` for a kernel with more than 1 on its diagonal.
        """
        make = lambda data: relate(data, kind=self.kind, drop=self.drop, components=self.components)
        _check_diagonals(external)
        return tuple(make(source) if isinstance(source, PertData) else source for source in external)

    def fit(self, data: PertData, *, external: Sequence[Source] = (), key: Array | None = None) -> "FittedKernelRidge":
        """Fits to training perturbations, with `external` screens (or kernels) for their similarities.

        Cut screens to the perturbations in question (`PertData.take`): the similarities of all pairs are kept.

        **Raises:** `ValueError` without external screens, for logits of another number, and for a kernel with more than
        1 on its diagonal.
        """
        need(external, "external", "other screens, or kernels, that tell which perturbations are alike", self.name)
        sources = self.prepare(external)
        kernel = with_unit_diagonal(_similarities(self, sources, data.perts, data.perts))
        ridge = jnp.exp(jnp.asarray(self.log_ridge).astype(kernel.dtype))
        matrix = regularised(kernel, ridge, _relative_noise(data, self.noise_exponent))
        return FittedKernelRidge(data, self.name, self.fairness, self, sources, kernel, matrix, inverse_of(matrix))


def _check_diagonals(sources: Sequence[Source]) -> None:
    """Refuses kernels that a unit diagonal would make indefinite, where their values are known."""
    for source in sources:
        if isinstance(source, NamedKernel) and not isinstance(source.values, Tracer):
            largest = np.max(np.diagonal(source.values), initial=0)
            if largest > 1 + 1e-6:
                raise ValueError(
                    f"A kernel has {largest:.4g} on its diagonal, where 1 is the most: divide its rows and columns by "
                    "the roots of its diagonal, as `feature_kernel` does."
                )


class FittedKernelRidge(FittedToData):
    r"""A kernel ridge regression after the fit.

    **Fields:** `model`, the recipe; `sources`; `kernel` of the training perturbations; `matrix`, it plus the ridge;
    `inverse` of that, $Q$.
    """

    model: KernelRidge
    sources: tuple[Relatives | NamedKernel, ...]
    kernel: Float[Array, "perts perts"]
    matrix: Float[Array, "perts perts"]
    inverse: Float[Array, "perts perts"]

    def cross(self, perts: Sequence[str]) -> Float[Array, "new perts"]:
        """The similarity of these perturbations to those trained on; 1 to itself."""
        same = self.data.rows(perts)[:, None] == np.arange(len(self.data.perts), dtype=np.int32)[None, :]
        return jnp.where(jnp.asarray(same), 1, _similarities(self.model, self.sources, perts, self.data.perts))

    def covered(self, perts: Sequence[str], groups: Groups = None) -> Bool[np.ndarray, " perts"]:
        """Whether any source has the perturbation and one that is trained on, outside its own group if given."""
        trained = [source.rows(self.data.perts) >= 0 for source in self.sources]
        if groups is None:
            others = np.array([mask.any() for mask in trained])[:, None]
        else:
            others = np.stack([(~same_group(groups, len(perts)) & mask[None, :]).any(axis=1) for mask in trained])
        here = np.stack([source.rows(perts) >= 0 for source in self.sources])
        known = self.data.rows(perts) >= 0
        return (here & others).any(axis=0) | (known & (groups is None))

    def predict(self, perts: Sequence[str]) -> Prediction:
        """Predictions by name; for a perturbation that was trained on, the smoothed effect."""
        weights = smoother(self.inverse, self.cross(perts), self.model.intercept)
        return self.prediction(perts, smooth(weights, self.data.effects), self.covered(perts), **self._provenance())

    def leave_one_out(self) -> Prediction:
        """Each training perturbation from the refit without it, in closed form. Similarities are not refitted: they
        hold nothing of the training effects.
        """
        return self.leave_group_out(None)

    def leave_group_out(self, groups: Groups) -> Prediction:
        """Each training perturbation from the refit without its whole group: folds, gene families, guides of a gene.

        **Raises:** `ValueError` for another number of labels, and for a single group.
        """
        weights = held_out_smoother(self.inverse, self.model.intercept, groups)
        alone = np.arange(len(self.data.perts)) if groups is None else groups
        covered = self.covered(self.data.perts, alone)
        effect = smooth(weights, self.data.effects)
        if not covered.all():
            others = jnp.asarray(~same_group(alone, len(self.data.perts))).astype(effect.dtype)
            means = smooth(others / jnp.sum(others, axis=1, keepdims=True), self.data.effects)
            effect = jnp.where(jnp.asarray(covered)[:, None], effect, means)
        made = self.prediction(self.data.perts, effect, left_out=True, **self._provenance())
        return eqx.tree_at(lambda p: p.covered, made, jnp.asarray(covered))

    def bands(
        self, perts: Sequence[str], *, coverage: float = 0.9
    ) -> tuple[Float[Array, "perts genes"], Float[Array, "perts genes"]]:
        """Lower and upper bounds of the measured effects by the jackknife+, see `jackknife_bands`."""
        options = {"coverage": coverage, "intercept": self.model.intercept}
        return jackknife_bands(self.inverse, self.cross(perts), self.data.effects, **options)

    def _provenance(self) -> dict[str, Any]:
        model = self.model
        contexts = tuple(source.context for source in self.sources)
        return {"sources": contexts, "kind": model.kind, "drop": model.drop, "intercept": model.intercept}


def _similarities(
    model: KernelRidge,
    sources: Sequence[Relatives | NamedKernel],
    perts: Sequence[str],
    others: Sequence[str],
) -> Float[Array, "perts others"]:
    rows = [(source.rows(perts), source.rows(others)) for source in sources]
    knobs = {"centre": model.centre, "shrinkage": model.shrinkage, "log_length_scale": model.log_length_scale}
    kernels = [source.kernel(*pair, **knobs) for source, pair in zip(sources, rows, strict=True)]
    return combine_kernels(kernels, [a >= 0 for a, _ in rows], [b >= 0 for _, b in rows], logits=model.logits)


def _relative_noise(data: PertData, exponent: Float[ArrayLike, ""]) -> Float[Array, " perts"] | None:
    if data.noise is not None:
        noise = data.noise if data.noise.ndim == 1 else jnp.sum(data.noise, axis=1)
    elif data.cells is not None:
        noise = 1 / jnp.maximum(data.cells, 1)
    else:
        return None
    noise = lax.stop_gradient(noise.astype(jnp.result_type(float)))
    share = noise / jnp.maximum(jnp.mean(noise), jnp.finfo(noise.dtype).tiny)
    return jnp.power(jnp.maximum(share, _LEAST_NOISE), jnp.asarray(exponent).astype(share.dtype))
