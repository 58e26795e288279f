"""Combinations from their single perturbations: sums of effects on three scales, their mean, and fitted sums."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ._fitted import FittedToData, gathered
from ._interface import Baseline, Fairness, mean_response, PertData, Prediction
from ._members import member_rows


Space = Literal["log", "ratio", "counts"]


class FittedAdditive(FittedToData):
    """The effects of single perturbations, to be put together."""

    pseudocount: Float[Array, ""]
    space: Space = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows, used = member_rows(perts, self.data)
        return self.prediction(perts, self._sums(rows, used), _complete(rows, used), space=self.space)

    def leave_one_out(self) -> Prediction:
        """A combination is predicted from its parts, which a refit without it leaves as they are.

        A single perturbation has no parts but itself, and is not covered.
        """
        perts = self.data.perts
        rows, used = member_rows(perts, self.data)
        covered = _complete(rows, used) & ~(rows == np.arange(len(perts))[:, None]).any(axis=1)
        return self.prediction(perts, self._sums(rows, used), covered, left_out=True, space=self.space)

    def _sums(self, rows: np.ndarray, used: np.ndarray) -> Float[Array, "perts genes"]:
        control = self.data.control[None, :]
        if self.space == "log":
            return sum((gathered(self.data.effects, column) for column in rows.T), jnp.zeros_like(control))
        base, counts = jnp.expm1(control), jnp.expm1(control + self.data.effects)
        # A part that is not there leaves the counts as they are.
        parts = [
            jnp.where(jnp.asarray(row >= 0)[:, None], gathered(counts, row), base) for row in np.where(used, rows, -1).T
        ]
        total = base + sum((part - base for part in parts), jnp.zeros_like(base))
        if self.space == "ratio":
            shift = self.pseudocount.astype(base.dtype)
            product = base + shift
            for part in parts:
                # Where the control has none there is no ratio, and counts are added.
                product = product * safe_divide(part + shift, jnp.broadcast_to(base + shift, part.shape), 1.0)
            total = jnp.where(base + shift > 0, product - shift, total)
        return jnp.log1p(jnp.maximum(total, 0)) - control


class Additive(Baseline):
    r"""The sum of the effects of the parts of a combination, $y_{ab} = y_a + y_b$.

    A combination of which a part is not a training perturbation is not covered, nor is a single perturbation that is
    not; one that is, is its own effect. Labels are split as `A+B`, and as `A_B` where both are training perturbations.

    **Fields:**

    - `space`: what is added. `"log"`, profiles as they are; `"counts"`, their `expm1` u, $u_a + u_b - u_c$, not below
        0; `"ratio"`, $(u_a + \epsilon)(u_b + \epsilon)/(u_c + \epsilon) - \epsilon$, where a gene that the control does
        not express ($u_c + \epsilon = 0$) is added as counts.
    - `pseudocount`: the $\epsilon$ of ratios. 1 is the same as `"log"`; towards infinity it is `"counts"`.
    """

    name: ClassVar[str] = "additive"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Sum of the effects of the parts of a combination."
    source: ClassVar[str] = "Ahlmann-Eltze et al. 2025 (additive)"
    needs: ClassVar[tuple[str, ...]] = ("combinations",)

    space: Space = eqx.field(static=True, default="log")
    pseudocount: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedAdditive:
        if self.space not in ("log", "ratio", "counts"):
            raise ValueError(f'`space` is "log", "ratio" or "counts", got {self.space!r}.')
        return FittedAdditive(data, self.name, self.fairness, jnp.asarray(self.pseudocount), self.space)


class FittedMatchingMean(FittedToData):
    """The mean of the parts of a combination, the mean response standing in for one that is not known."""

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows, used = member_rows(perts, self.data)
        mean = jnp.broadcast_to(mean_response(self.data)[None, :], (len(perts), *self.data.control.shape))
        return self.prediction(perts, self._means(rows, used, mean), (rows >= 0).any(axis=1))

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        rows, used = member_rows(perts, self.data)
        rows = np.where(rows == np.arange(len(perts))[:, None], -1, rows)
        effect = self._means(rows, used, self.mean_of_others())
        return self.prediction(perts, effect, (rows >= 0).any(axis=1), left_out=True)

    def _means(
        self, rows: np.ndarray, used: np.ndarray, mean: Float[Array, "perts genes"]
    ) -> Float[Array, "perts genes"]:
        total = jnp.zeros_like(mean)
        for row, here in zip(rows.T, used.T, strict=True):
            part = jnp.where(jnp.asarray(row >= 0)[:, None], gathered(self.data.effects, row), mean)
            total = total + jnp.where(jnp.asarray(here)[:, None], part, 0)
        number = jnp.asarray(np.maximum(used.sum(axis=1), 1)).astype(mean.dtype)
        return total / number[:, None]


class MatchingMean(Baseline):
    r"""The mean of the effects of the parts of a combination, $\frac12 (y_a + y_b)$: half of `Additive`.

    The mean response stands in for a part that is not a training perturbation; a label of which no part is one is not
    covered.
    """

    name: ClassVar[str] = "matching_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean of the effects of the parts of a combination."
    source: ClassVar[str] = "Systema (matching-mean); PerturBench (Average of a combination)"
    needs: ClassVar[tuple[str, ...]] = ("combinations",)

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMatchingMean:
        return FittedMatchingMean(data, self.name, self.fairness)


class FittedAdditiveRidge(FittedToData):
    """The coefficients of sums and products of parts, and those that each training combination leaves behind."""

    coefficients: Float[Array, " terms"]
    others: Float[Array, "perts terms"]
    interaction: bool = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        rows, used = member_rows(perts, self.data)
        several = used.sum(axis=1) > 1
        effect = jnp.tensordot(self.coefficients, _terms(self.data, rows, self.interaction), 1, precision="highest")
        # What is fitted to combinations says nothing of a single perturbation, which is its own effect.
        effect = jnp.where(jnp.asarray(several)[:, None], effect, gathered(self.data.effects, rows[:, 0]))
        return self.prediction(perts, effect, _complete(rows, used))

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        rows, used = member_rows(perts, self.data)
        terms = _terms(self.data, rows, self.interaction)
        effect = jnp.sum(self.others.T[:, :, None] * terms, axis=0)
        covered = _complete(rows, used) & (used.sum(axis=1) > 1)
        return self.prediction(perts, effect, covered, left_out=True)


class AdditiveRidge(Baseline):
    r"""A fitted sum for combinations, $y_{ab} = \alpha (y_a + y_b) + \beta\ [+\ \gamma\, y_a y_b]$ with two (or three)
    numbers for all genes and combinations.

    They minimise the mean squared error over the training combinations whose parts are known, plus
    $\lambda\,[(\alpha - 1)^2 + \beta^2 + \gamma^2]$ times the mean square of the term they multiply: without training
    combinations, or with a large ridge, this is `Additive`. $\alpha < 1$ is buffering, as of two knock-downs of one
    pathway. Single perturbations and labels with an unknown part are as of `Additive`.

    Leaving out one combination changes a matrix of two (or three) rows, so that leave-one-out costs no refit.

    **Fields:** `log_ridge`, the natural log of $\lambda$; `interaction`, whether there is a $\gamma$.
    """

    name: ClassVar[str] = "additive_ridge"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Sum of the parts of a combination, scaled and shifted as fits the training combinations."
    source: ClassVar[str] = "here; a generalisation of Ahlmann-Eltze et al. 2025 (additive)"
    needs: ClassVar[tuple[str, ...]] = ("combinations",)

    log_ridge: Float[ArrayLike, ""] = eqx.field(converter=jnp.asarray, default=-7.0)
    interaction: bool = eqx.field(static=True, default=False)

    def fit(
        self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None
    ) -> FittedAdditiveRidge:
        rows, used = member_rows(data.perts, data)
        fitted = np.flatnonzero(_complete(rows, used) & (used.sum(axis=1) > 1))
        terms = _terms(data, rows[fitted], self.interaction)
        gap = data.effects[fitted] - terms[0]  # what is penalised is the distance from the plain sum
        products = jnp.einsum("spg,tpg->pst", terms, terms, precision="highest")
        targets = jnp.einsum("tpg,pg->pt", terms, gap, precision="highest")
        start = jnp.zeros(terms.shape[0], terms.dtype).at[0].set(1)
        ridge = jnp.exp(jnp.asarray(self.log_ridge).astype(terms.dtype))
        solve = lambda matrix, vector: start + _ridge_solution(matrix, vector, ridge)
        matrix, vector = jnp.sum(products, axis=0), jnp.sum(targets, axis=0)
        whole = solve(matrix, vector)
        others = jnp.broadcast_to(whole[None, :], (len(data.perts), *whole.shape))
        if len(fitted):
            without = jax.vmap(solve)(matrix[None] - products, vector[None] - targets)
            others = others.at[fitted].set(without)
        return FittedAdditiveRidge(data, self.name, self.fairness, whole, others, self.interaction)


def _ridge_solution(
    matrix: Float[Array, "terms terms"], vector: Float[Array, " terms"], ridge: Float[Array, ""]
) -> Float[Array, " terms"]:
    """The solution in units of each term's own size, which the ridge is relative to; 0 for a term that is always 0."""
    size = jnp.diagonal(matrix)
    some = size > 0
    unit = jnp.where(some, 1 / jnp.sqrt(jnp.where(some, size, 1)), 0)
    scaled = unit[:, None] * matrix * unit[None, :]
    lone = jnp.diag(jnp.where(some, ridge, 1))  # keeps a term without size from making the matrix singular
    return unit * jnp.linalg.solve(scaled + lone, (unit * vector)[:, None])[:, 0]


def _terms(data: PertData, rows: np.ndarray, interaction: bool) -> Float[Array, "terms perts genes"]:
    """The sum of the parts of each label, one, and with `interaction` their product; zero for an unknown part."""
    parts = [gathered(data.effects, row) for row in rows.T]
    total = sum(parts, jnp.zeros((len(rows), data.effects.shape[1]), data.effects.dtype))
    terms = [total, jnp.ones_like(total)]
    if interaction:
        # The sum over pairs of parts, which for two is their product.
        terms.append(0.5 * (total * total - sum((part * part for part in parts), jnp.zeros_like(total))))
    return jnp.stack(terms)


def _complete(rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Which labels have parts that are all known."""
    return np.asarray(used.any(axis=1) & (~used | (rows >= 0)).all(axis=1))
