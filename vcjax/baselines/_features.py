"""Named vectors of perturbations: what a model may know of one beforehand."""

import abc
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._stats import safe_divide, safe_sqrt
from ._fitted import named_keys
from ._interface import PertData, rows_of
from ._members import members
from ._pca import gram, principal_scores
from ._relatedness import NamedKernel


class AbstractFeatures(eqx.Module):
    """A vector for every label. That of a combination is the sum of its members'."""

    @property
    @abc.abstractmethod
    def widths(self) -> tuple[int, ...]:
        """How many columns each block has, such as one source of knowledge each."""

    @abc.abstractmethod
    def of(self, perts: Sequence[str]) -> tuple[Float[Array, "perts dims"], np.ndarray]:
        """The vectors of these labels, and which of them are covered; the others are zero."""


class Features(AbstractFeatures):
    """A table of vectors by name, of perturbations or of the genes they target.

    **Fields:**

    - `values`: one row a name.
    - `names`: of the rows. A combination is covered if all its members are named.
    - `blocks`: how many columns each block has; all are one block by default.
    - `source`: what the vectors are, for a report.
    """

    values: Float[Array, "names dims"]
    names: tuple[str, ...] = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def __check_init__(self):
        rows, columns = np.shape(self.values)
        if len(self.names) != rows or len(set(self.names)) != rows:
            raise ValueError(
                f"`names` must name each of the {rows} rows of `values` once, got {len(self.names)} names."
            )
        if self.blocks and (sum(self.blocks) != columns or min(self.blocks) < 1):
            raise ValueError(f"`blocks` must sum to the {columns} columns of `values`, got {self.blocks}.")

    @property
    def widths(self) -> tuple[int, ...]:
        return self.blocks or (np.shape(self.values)[1],)

    def of(self, perts: Sequence[str]) -> tuple[Float[Array, "perts dims"], np.ndarray]:
        rows, used = self.member_rows(perts)
        covered = all_named(rows, used)
        counted = jnp.asarray(used & covered[:, None])
        # One member place at a time: a table of (perts, members, dims) would be the largest array of a fit.
        total = jnp.zeros((len(perts), np.shape(self.values)[1]), self.values.dtype)
        for place in range(rows.shape[1]):
            part = self.values[np.maximum(rows[:, place], 0)]
            total = total + jnp.where(counted[:, place][:, None], part, 0)
        return total, covered

    def member_rows(self, perts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`(rows, used)`: the row of each member of each label, -1 for one without a name; and which are members."""
        place = {name: row for row, name in enumerate(self.names)}
        parts = [(pert,) if pert in place else members(pert, place) for pert in perts]
        width = max((len(part) for part in parts), default=1) or 1
        rows, used = np.full((len(parts), width), -1, np.int32), np.zeros((len(parts), width), bool)
        for i, part in enumerate(parts):
            rows[i, : len(part)], used[i, : len(part)] = [place.get(name, -1) for name in part], True
        return rows, used


def all_named(rows: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Whether a label has members, all of them with a row; see `Features.member_rows`."""
    return np.asarray(np.any(used, axis=1) & np.all((rows >= 0) | ~used, axis=1))


class RandomFeatures(AbstractFeatures):
    """Independent normal vectors of unit expected norm, one for every name there may be: knowledge of nothing.

    The same key gives a name the same vector, whatever the other names are.
    """

    key: Array
    dims: int = eqx.field(static=True, default=10)

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.dims,)

    def of(self, perts: Sequence[str]) -> tuple[Float[Array, "perts dims"], np.ndarray]:
        parts = [members(pert, ()) for pert in perts]
        names = tuple(dict.fromkeys(name for part in parts for name in part))
        if not names:
            return jnp.zeros((len(perts), self.dims)), np.zeros(len(perts), bool)
        drawn = jax.vmap(lambda key: jax.random.normal(key, (self.dims,)))(named_keys(self.key, names))
        table = Features(drawn / np.sqrt(self.dims), names)
        return table.of(perts)


def profile_features(data: PertData, dims: int = 10) -> Features:
    """Principal-component scores of the perturbations of a screen, the control among them: what they do in another
    context.

    Source: Ahlmann-Eltze et al. 2025 (perturbation embedding of another cell line).
    """
    profiles = jnp.concatenate([data.effects, jnp.zeros_like(data.effects[:1])])
    scores = principal_scores(profiles, dims)[:-1]
    return Features(
        scores, data.perts, source=f"{scores.shape[1]} principal components of {data.context or 'a screen'}"
    )


def reduced(features: Features, dims: int) -> Features:
    """The first principal components of a table of vectors."""
    return Features(principal_scores(features.values, dims), features.names, source=features.source)


def one_hot(names: Sequence[str]) -> Features:
    """A column for every name: two names have nothing in common, so that only combinations can be predicted."""
    return Features(jnp.eye(len(names)), tuple(names), source="identity")


def beside(*tables: Features, flags: bool = False) -> Features:
    """Several tables as blocks of one, over all their names; a name that a table lacks has zeros there.

    **Arguments:** `flags`: add to every block a column that is 1 for the names it has, so that zeros can be told from
    what is not known.

    **Raises:** `ValueError` for no table.
    """
    if not tables:
        raise ValueError("At least one table of features is needed.")
    names = tuple(dict.fromkeys(name for table in tables for name in table.names))
    dtype = jnp.result_type(*(table.values for table in tables))
    parts = []
    for table in tables:
        rows = rows_of(names, table.names)
        here = jnp.asarray(rows >= 0)[:, None]
        part = jnp.where(here, table.values[np.maximum(rows, 0)], 0).astype(dtype)
        parts.append(jnp.concatenate([part, here.astype(dtype)], axis=1) if flags else part)
    blocks = tuple(part.shape[1] for part in parts)
    return Features(jnp.concatenate(parts, axis=1), names, blocks, " + ".join(table.source for table in tables))


def feature_kernel(features: Features, kind: Literal["cosine", "tanimoto", "rbf"] = "cosine") -> NamedKernel:
    r"""How much names resemble each other by their vectors, as a kernel: semi-definite, with 1 on the diagonal.

    `"cosine"`: $x'z/|x||z|$. `"tanimoto"`: $x'z/(|x|^2 + |z|^2 - x'z)$, for membership in sets the Jaccard index; the
    vectors must not be negative. `"rbf"`: $e^{-|x - z|^2/2\ell^2}$, with $\ell$ the median distance.

    A name with a vector of zeros resembles only itself, except for `"rbf"`.

    **Raises:** `ValueError` for another kind.
    """
    x = features.values
    product, square = gram(x, x), jnp.sum(x * x, axis=1)
    if kind == "cosine":
        root = safe_sqrt(square)
        kernel = safe_divide(product, root[:, None] * root[None, :], otherwise=0.0)
    elif kind == "tanimoto":
        kernel = safe_divide(product, square[:, None] + square[None, :] - product, otherwise=0.0)
    elif kind == "rbf":
        apart = jnp.maximum(square[:, None] + square[None, :] - 2 * product, 0)
        pairs = apart[np.triu_indices(len(apart), 1)]
        middle = jnp.median(pairs) if len(apart) > 1 else jnp.ones_like(apart[0, 0])
        kernel = jnp.exp(-safe_divide(apart, jnp.broadcast_to(2 * middle, apart.shape), otherwise=0.0))
    else:
        raise ValueError(f'`kind` is "cosine", "tanimoto" or "rbf", got {kind!r}.')
    kernel = jnp.where(jnp.eye(len(kernel), dtype=bool), 1, kernel)
    return NamedKernel(kernel, features.names, features.source)
