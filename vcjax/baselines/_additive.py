"""Combinations from their single perturbations: sums of effects on three scales, their mean, and fitted sums."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._stats import safe_divide
from ._fitted import cell_counts, FittedToData, gathered
from ._interface import Baseline, Fairness, PertData, Prediction
from ._members import carriers, member_rows


Space = Literal["log", "ratio", "counts"]
Parts = Literal["single", "carriers"]
Weighting = Literal["pert", "cell"]


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
    """What the parts of a combination are measured to do, and what stands in for one that is not known."""

    parts: Parts = eqx.field(static=True)
    weighting: Weighting = eqx.field(static=True)

    def predict(self, perts: Sequence[str]) -> Prediction:
        effect, covered = self._means(perts, np.ones((len(perts), len(self.data.perts)), bool))
        return self.prediction(perts, effect, covered)

    def leave_one_out(self) -> Prediction:
        perts = self.data.perts
        effect, covered = self._means(perts, ~np.eye(len(perts), dtype=bool))
        return self.prediction(perts, effect, covered, left_out=True)

    def _means(self, perts: Sequence[str], shown: np.ndarray) -> tuple[Float[Array, "perts genes"], np.ndarray]:
        """The mean of the parts of each label, of the training perturbations that are shown to it; what is covered."""
        if self.parts == "single":
            rows, used = member_rows(perts, self.data)
            inside = rows[:, :, None] == np.arange(len(self.data.perts))
        else:
            inside, used = carriers(perts, self.data)
        inside = inside & used[:, :, None] & shown[:, None, :]
        known = np.any(inside, axis=2)
        share = self._share(inside, by_cell=self.parts == "carriers")
        otherwise = self._share(shown, by_cell=self.weighting == "cell")[:, None, :]
        share = jnp.where(jnp.asarray(known)[:, :, None], share, jnp.where(jnp.asarray(used)[:, :, None], otherwise, 0))
        number = jnp.asarray(np.maximum(used.sum(axis=1), 1)).astype(share.dtype)
        weights = jnp.sum(share, axis=1) / number[:, None]
        return jnp.matmul(weights, self.data.effects, precision="highest"), np.asarray(np.any(known, axis=1))

    def _share(self, inside: np.ndarray, *, by_cell: bool) -> Float[Array, "*labels train"]:
        """The share of each training perturbation in a mean over those that are inside."""
        effects = self.data.effects
        amount = cell_counts(self.data, self.baseline) if by_cell else jnp.ones_like(effects[:, 0])
        weight = jnp.asarray(inside).astype(effects.dtype) * amount[(None,) * (inside.ndim - 1)]
        total = jnp.sum(weight, axis=-1, keepdims=True)
        return safe_divide(weight, jnp.broadcast_to(total, weight.shape), 0.0)


class MatchingMean(Baseline):
    r"""The mean of the effects of the parts of a combination, $\frac12 (y_a + y_b)$: half of `Additive`.

    A label of which no part is measured is not covered.

    **Fields:**

    - `parts`: `"single"`, the effect of the single perturbation; `"carriers"`, the mean of all training cells that
        carry the part, alone or with others.
    - `weighting`: what stands in for a part that is not measured: `"pert"`, the mean response; `"cell"`, the mean
        perturbed cell.
    """

    name: ClassVar[str] = "matching_mean"
    fairness: ClassVar[Fairness] = "inductive"
    summary: ClassVar[str] = "Mean of the effects of the parts of a combination."
    source: ClassVar[str] = "Systema (matching-mean: weighting=cell); PerturBench (Average: parts=carriers)"
    needs: ClassVar[tuple[str, ...]] = ("combinations",)

    parts: Parts = eqx.field(static=True, default="single")
    weighting: Weighting = eqx.field(static=True, default="pert")

    def fit(self, data: PertData, *, external: Sequence[PertData] = (), key: Array | None = None) -> FittedMatchingMean:
        if self.parts not in ("single", "carriers"):
            raise ValueError(f'`parts` is "single" or "carriers", got {self.parts!r}.')
        if self.weighting not in ("pert", "cell"):
            raise ValueError(f'`weighting` is "pert" or "cell", got {self.weighting!r}.')
        if self.parts == "carriers" or self.weighting == "cell":
            cell_counts(data, self.name)
        return FittedMatchingMean(data, self.name, self.fairness, self.parts, self.weighting)


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
