"""Distances between every prediction and every measured effect, without a (perts, perts, genes) array."""

import abc
import functools as ft
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ._stats import absolute, is_rounding, safe_divide, safe_sqrt


_L1_GENES, _L1_COLUMNS, _L1_ROWS = 16, 128, 8  # block sizes that keep a step of the scan in the innermost caches
# Elements of one block of genes. The derivative of L1 walks along a block again and again, which has to stay near; a
# matrix product is the faster, the larger its blocks are.
_L1_ELEMENTS, _PRODUCT_ELEMENTS = 3 * 2**18, 6 * 2**18


class Effects(eqx.Module):
    """The rows of `profile - reference`, computed a block of genes at a time where they are needed.

    A row that differs from its reference by rounding alone is zero (see `effect`), and so is a gene that is not `kept`.
    """

    profile: Float[Array, "rows genes"]
    reference: Float[Array, "#rows genes"] | None = None
    nothing: Bool[Array, " rows"] | None = None
    kept: Bool[Array, " genes"] | None = None

    @classmethod
    def of(
        cls,
        profile: Float[Array, "rows genes"],
        reference: Float[Array, " genes"] | Float[Array, "rows genes"] | None = None,
        kept: Bool[Array, " genes"] | None = None,
    ) -> "Effects":
        """Effects of profiles against a reference for all rows, or one for each."""
        if reference is None:
            return cls(profile, kept=kept)
        reference = reference.astype(profile.dtype)
        reference = reference[None, :] if reference.ndim == 1 else reference
        return cls(profile, reference, is_rounding(profile, reference), kept)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.profile.shape

    def whole(self) -> Float[Array, "rows genes"]:
        """The effects of all genes."""
        return self._effect(lambda x: x)

    def block(self, start: Int[Array, ""] | int, size: int) -> Float[Array, "rows {size}"]:
        """The effects of `size` genes from `start`."""
        return self._effect(lambda x: lax.dynamic_slice_in_dim(x, start, size, axis=-1))

    def columns(self, genes: Int[Array, " k"]) -> Float[Array, "rows k"]:
        """The effects of some genes."""
        return self._effect(lambda x: x[..., genes])

    def squares(self) -> Float[Array, " rows"]:
        """The squared norm of every row."""
        return jnp.sum(jnp.square(self.whole()), axis=1)

    def _effect(self, part):
        delta = part(self.profile)
        if self.reference is not None and self.nothing is not None:
            delta = delta - part(self.reference)
            delta = delta - lax.stop_gradient(jnp.where(self.nothing[:, None], delta, 0))
        return delta if self.kept is None else jnp.where(part(self.kept)[None, :], delta, 0)


Rows: TypeAlias = Float[Array, "rows genes"] | Effects


class AbstractDistance(eqx.Module):
    """A distance between the rows of two matrices."""

    @abc.abstractmethod
    def __call__(self, a: Rows, b: Rows) -> Float[Array, "rows columns"]:
        """The distance of every row of `a` (rows, genes) to every row of `b` (columns, genes)."""

    @abc.abstractmethod
    def excluding(
        self, distances: Float[Array, "rows columns"], a: Rows, b: Rows, gene: Int[Array, " rows"]
    ) -> Float[Array, "rows columns"]:
        """`self(a, b)` with one gene left out of each row's comparisons, from `distances = self(a, b)` in O(rows x
        columns).

        `gene` is the index of the gene that a row leaves out; -1 leaves out nothing.
        """


class L1(AbstractDistance):
    r"""$d_{ij} = \sum_g |a_{ig} - b_{jg}|$.

    Summed gene by gene, so in float64 it equals `scipy.spatial.distance.cdist(a, b, "cityblock")` bit for bit.
    Reverse-mode differentiable only; the derivative computes the signs again instead of storing them.
    """

    def __call__(self, a, b):
        a, b = _effects(a), _effects(b)
        rows, columns = a.shape[0], b.shape[0]
        width = min(_L1_COLUMNS, 8 * -(-columns // 8))
        tiles = jnp.zeros((-(-columns // width), rows, width), a.profile.dtype)
        tiles = _sum_blocks(_add_l1, tiles, a, b, _L1_ELEMENTS, multiple=_L1_GENES)
        return _untile(tiles, columns)

    def excluding(self, distances, a, b, gene):
        ours, theirs = _excluded(a, b, gene)
        return distances - absolute(ours - theirs)


class L2(AbstractDistance):
    r"""$d_{ij} = \sqrt{\sum_g (a_{ig} - b_{jg})^2}$, from a matrix product of centred rows at highest precision."""

    def __call__(self, a, b):
        # Distances do not change when both sides are centred; the rounding of the expansion does.
        products, a_square, b_square = _gram(a, b, centred=True)
        return safe_sqrt(a_square[:, None] + b_square[None, :] - 2 * products)

    def excluding(self, distances, a, b, gene):
        ours, theirs = _excluded(a, b, gene)
        return safe_sqrt(distances * distances - (ours - theirs) ** 2)


class Cosine(AbstractDistance):
    r"""$d_{ij} = 1 - \langle a_i, b_j\rangle / (\lVert a_i\rVert \lVert b_j\rVert)$ in [0, 2]; 1 where either is
    zero.
    """

    def __call__(self, a, b):
        products, a_square, b_square = _gram(a, b, centred=False)
        return self._from_products(products, a_square[:, None], b_square[None, :])

    def excluding(self, distances, a, b, gene):
        ours, theirs = _excluded(a, b, gene)
        a_square, b_square = _effects(a).squares()[:, None], _effects(b).squares()[None, :]
        products = (1 - distances) * safe_sqrt(a_square) * safe_sqrt(b_square) - ours * theirs
        # What rounding leaves of a row that has nothing but the excluded gene is no direction.
        rounding = 8 * jnp.finfo(distances.dtype).eps
        a_rest, b_rest = a_square - ours * ours, b_square - theirs * theirs
        a_rest = jnp.where(a_rest > rounding * a_square, a_rest, 0)
        b_rest = jnp.where(b_rest > rounding * b_square, b_rest, 0)
        return self._from_products(products, a_rest, b_rest)

    @staticmethod
    def _from_products(products, a_square, b_square):
        similarity = safe_divide(products, safe_sqrt(a_square) * safe_sqrt(b_square), otherwise=0.0)
        return 1 - jnp.clip(similarity, -1, 1)


def _effects(rows):
    return rows if isinstance(rows, Effects) else Effects(rows)


def _excluded(a, b, gene):
    """The entry of `gene` in each row of `a` (rows, 1) and in all of `b` (rows, columns); 0 where there is none."""
    known = (gene >= 0)[:, None]
    index = jnp.maximum(gene, 0)
    ours = jnp.diagonal(_effects(a).columns(index))[:, None]
    theirs = _effects(b).columns(index).T
    return jnp.where(known, ours, 0), jnp.where(known, theirs, 0)


def _gram(a, b, centred):
    """Products and squared norms of the rows of both sides, less the mean of `b` if `centred`."""
    a, b = _effects(a), _effects(b)

    def add(sums, x, y):
        if centred:
            centre = lax.stop_gradient(jnp.mean(y, axis=0))[None, :]
            x, y = x - centre, y - centre
        products, x_square, y_square = sums
        # Contracting the last axes of both is the form that XLA's matrix product is fastest in.
        both = lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)
        return products + both, x_square + jnp.sum(x * x, axis=1), y_square + jnp.sum(y * y, axis=1)

    zeros = ft.partial(jnp.zeros, dtype=a.profile.dtype)
    totals = zeros((a.shape[0], b.shape[0])), zeros(a.shape[0]), zeros(b.shape[0])
    return _sum_blocks(add, totals, a, b, _PRODUCT_ELEMENTS)


def _sum_blocks(add, total, a, b, elements, multiple=1):
    """`add(total, x, y)` over blocks of genes of both sides, which the derivative makes again unless it is only one."""
    genes = a.shape[1]
    block = max(1, elements // max(a.shape[0], b.shape[0], 1) // multiple) * multiple
    if genes <= block:
        return add(total, a.whole(), b.whole())
    again = jax.checkpoint(
        lambda total, start, size: add(total, a.block(start, size), b.block(start, size)), static_argnums=(2,)
    )
    return _scan_blocks(again, total, genes, min(block, genes))


def _scan_blocks(add, total, length, block):
    """`add(total, start, size)` over the blocks of an axis, the last one shorter."""
    blocks, rest = divmod(length, block)
    if blocks:
        total, _ = lax.scan(lambda total, i: (add(total, i * block, block), None), total, jnp.arange(blocks))
    return add(total, blocks * block, rest) if rest else total


def _untile(tiles, columns):
    return tiles.transpose(1, 0, 2).reshape(tiles.shape[1], -1)[:, :columns]


@jax.custom_vjp
def _add_l1(tiles, x, y):
    """The L1 distances of a block of genes, added to what `tiles` of (tile, row, column within the tile) hold."""
    count, _, width = tiles.shape

    def add(total, start, size):
        x_genes, y_genes = (lax.dynamic_slice_in_dim(side, start, size, axis=1).T for side in (x, y))
        y_genes = jnp.pad(y_genes, ((0, 0), (0, count * width - y.shape[0]))).reshape(size, count, 1, width)
        # Without the barrier XLA fuses the transposition into the loop, which then reads memory in strides.
        x_genes, y_genes = lax.optimization_barrier((x_genes, y_genes))
        for k in range(size):
            total = total + jnp.abs(x_genes[k][None, :, None] - y_genes[k])
        return total

    return _scan_blocks(add, tiles, x.shape[1], _L1_GENES)


def _add_l1_forward(tiles, x, y):
    return _add_l1(tiles, x, y), (x, y)


def _add_l1_backward(residuals, cotangent):
    x, y = residuals
    weights = _untile(cotangent, y.shape[0])
    # Two scans, so that XLA drops the one whose gradient nobody asked for.
    return cotangent, _signed_sums(x, y, weights), _signed_sums(y, x, weights.T)


_add_l1.defvjp(_add_l1_forward, _add_l1_backward)


def _signed_sums(a, b, weights):
    """sum_j weights_ij sign(a_i - b_j) for every row i and gene, a few rows j at a time."""

    def add(total, start, size):
        rows = lax.dynamic_slice_in_dim(b, start, size, axis=0)
        columns = lax.dynamic_slice_in_dim(weights, start, size, axis=1)
        for k in range(size):
            weight, row = columns[:, k][:, None], rows[k][None, :]
            # `weight * jnp.sign(a - row)` takes four times as long in float64: XLA makes no vectors of it.
            total = total + jnp.where(a > row, weight, jnp.where(a < row, -weight, 0))
        return total

    return _scan_blocks(add, jnp.zeros_like(a), b.shape[0], _L1_ROWS)
