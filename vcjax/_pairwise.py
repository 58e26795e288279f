"""Distances between every prediction and every measured effect, without a (perts, perts, genes) array."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ._stats import absolute, safe_divide, safe_sqrt


_L1_GENES, _L1_COLUMNS, _L1_ROWS = 16, 128, 8  # block sizes that keep a step of the scan in the innermost caches
_GRAM_ELEMENTS = 2**20  # elements of one block of genes


class AbstractDistance(eqx.Module):
    """A distance between the rows of two matrices."""

    @abc.abstractmethod
    def __call__(self, a: Float[Array, "rows genes"], b: Float[Array, "columns genes"]) -> Float[Array, "rows columns"]:
        """The distance of every row of `a` to every row of `b`."""

    @abc.abstractmethod
    def excluding(
        self,
        distances: Float[Array, "rows columns"],
        a: Float[Array, "rows genes"],
        b: Float[Array, "columns genes"],
        gene: Int[Array, " rows"],
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
        return _l1(a, b)

    def excluding(self, distances, a, b, gene):
        ours, theirs = _columns(a, b, gene)
        return distances - absolute(ours - theirs)


class L2(AbstractDistance):
    r"""$d_{ij} = \sqrt{\sum_g (a_{ig} - b_{jg})^2}$, from a matrix product of centred rows at highest precision."""

    def __call__(self, a, b):
        return safe_sqrt(self._squares(a, b))

    def excluding(self, distances, a, b, gene):
        ours, theirs = _columns(a, b, gene)
        return safe_sqrt(distances * distances - (ours - theirs) ** 2)

    def _squares(self, a, b):
        # Distances do not change when both sides are centred; the rounding of the expansion does.
        centre = lax.stop_gradient(jnp.mean(b, axis=0))
        products, a_square, b_square = _gram(a, b, centre)
        return a_square[:, None] + b_square[None, :] - 2 * products


class Cosine(AbstractDistance):
    r"""$d_{ij} = 1 - \langle a_i, b_j\rangle / (\lVert a_i\rVert \lVert b_j\rVert)$ in [0, 2]; 1 where either is
    zero.
    """

    def __call__(self, a, b):
        products, a_square, b_square = _gram(a, b, None)
        return self._from_products(products, a_square[:, None], b_square[None, :])

    def excluding(self, distances, a, b, gene):
        ours, theirs = _columns(a, b, gene)
        a_square, b_square = jnp.sum(a * a, axis=1)[:, None], jnp.sum(b * b, axis=1)[None, :]
        products = (1 - distances) * safe_sqrt(a_square) * safe_sqrt(b_square) - ours * theirs
        # What rounding leaves of a row that has nothing but the excluded gene is no direction.
        rounding = 8 * jnp.finfo(a.dtype).eps
        a_rest, b_rest = a_square - ours * ours, b_square - theirs * theirs
        a_rest = jnp.where(a_rest > rounding * a_square, a_rest, 0)
        b_rest = jnp.where(b_rest > rounding * b_square, b_rest, 0)
        return self._from_products(products, a_rest, b_rest)

    @staticmethod
    def _from_products(products, a_square, b_square):
        similarity = safe_divide(products, safe_sqrt(a_square) * safe_sqrt(b_square), otherwise=0.0)
        return 1 - jnp.clip(similarity, -1, 1)


def _columns(a, b, gene):
    """The entry of `gene` in each row of `a` (rows, 1) and in all of `b` (rows, columns); 0 where there is none."""
    known = (gene >= 0)[:, None]
    index = jnp.maximum(gene, 0)
    ours = jnp.take_along_axis(a, index[:, None], axis=1)
    theirs = b[:, index].T
    return jnp.where(known, ours, 0), jnp.where(known, theirs, 0)


def _gram(a, b, centre):
    """Products and squared norms of the rows of `a - centre` and `b - centre`, a block of genes at a time."""
    genes = a.shape[1]
    block = max(1, min(genes, _GRAM_ELEMENTS // max(a.shape[0], b.shape[0], 1)))

    def add(sums, start, size):
        x, y = (lax.dynamic_slice_in_dim(side, start, size, axis=1) for side in (a, b))
        if centre is not None:
            middle = lax.dynamic_slice_in_dim(centre, start, size)[None, :]
            x, y = x - middle, y - middle
        products, x_square, y_square = sums
        return (
            products + jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST),
            x_square + jnp.sum(x * x, axis=1),
            y_square + jnp.sum(y * y, axis=1),
        )

    add = jax.checkpoint(add, static_argnums=(2,))
    sums = (
        jnp.zeros((a.shape[0], b.shape[0]), a.dtype),
        jnp.zeros(a.shape[0], a.dtype),
        jnp.zeros(b.shape[0], a.dtype),
    )
    return _scan_blocks(add, sums, genes, block)


def _scan_blocks(add, total, length, block):
    """`add(total, start, size)` over the blocks of an axis, the last one shorter."""
    blocks, rest = divmod(length, block)
    if blocks:
        total, _ = lax.scan(lambda total, i: (add(total, i * block, block), None), total, jnp.arange(blocks))
    return add(total, blocks * block, rest) if rest else total


@jax.custom_vjp
def _l1(a, b):
    rows, columns, genes = a.shape[0], b.shape[0], a.shape[1]
    width = min(_L1_COLUMNS, 8 * -(-columns // 8))
    tiles = -(-columns // width)

    def add(total, start, size):
        x, y = (lax.dynamic_slice_in_dim(side, start, size, axis=1).T for side in (a, b))
        y = jnp.pad(y, ((0, 0), (0, tiles * width - columns))).reshape(size, tiles, 1, width)
        # Without the barrier XLA fuses the transposition into the loop, which then reads memory in strides.
        x, y = lax.optimization_barrier((x, y))
        for k in range(size):
            total = total + jnp.abs(x[k][None, :, None] - y[k])
        return total

    total = _scan_blocks(add, jnp.zeros((tiles, rows, width), a.dtype), genes, _L1_GENES)
    return total.transpose(1, 0, 2).reshape(rows, -1)[:, :columns]


def _l1_forward(a, b):
    return _l1(a, b), (a, b)


def _l1_backward(residuals, cotangent):
    a, b = residuals
    # Two scans, so that XLA drops the one whose gradient nobody asked for.
    return _signed_sums(a, b, cotangent), _signed_sums(b, a, cotangent.T)


_l1.defvjp(_l1_forward, _l1_backward)


def _signed_sums(a, b, weights):
    """sum_j weights_ij sign(a_i - b_j) for every row i and gene, a few rows j at a time."""

    def add(total, start, size):
        rows = lax.dynamic_slice_in_dim(b, start, size, axis=0)
        columns = lax.dynamic_slice_in_dim(weights, start, size, axis=1)
        for k in range(size):
            total = total + columns[:, k][:, None] * jnp.sign(a - rows[k][None, :])
        return total

    return _scan_blocks(add, jnp.zeros_like(a), b.shape[0], _L1_ROWS)
