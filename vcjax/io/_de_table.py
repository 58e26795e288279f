"""A table of differential expression on the host, and the same on the device."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TYPE_CHECKING, TypeAlias

import numpy as np


if TYPE_CHECKING:
    from ..de import DETable

_Change: TypeAlias = Callable[[np.ndarray], np.ndarray]
FIELDS = ("log2_fold_change", "log_pvalue", "log_padj", "tested", "z", "mean", "control_mean", "statistic")


@dataclasses.dataclass(frozen=True, eq=False)
class HostTable:
    """Differential expression of every perturbation against the control cells, all (perts, genes), as float64.

    **Fields:** `log2_fold_change`, `log_pvalue`, `log_padj`, `tested` and `z` as in `vcjax.DETable`. `mean`,
    `control_mean` (of the genes alone) and `statistic`, the means that the fold change compares and the rank-sum
    statistic U, are what a file of the peers holds besides; `None` where nobody asked for them.
    """

    log2_fold_change: np.ndarray
    log_pvalue: np.ndarray
    log_padj: np.ndarray
    tested: np.ndarray
    z: np.ndarray | None = None
    mean: np.ndarray | None = None
    control_mean: np.ndarray | None = None
    statistic: np.ndarray | None = None

    def take(self, perts: np.ndarray) -> "HostTable":
        """The rows of these perturbations."""
        return self._map(lambda array: array[perts], lambda array: array)

    def take_genes(self, genes: np.ndarray) -> "HostTable":
        """The columns of these genes; the adjusted p-values stay as they are."""
        return self._map(lambda array: array[:, genes], lambda array: array[genes])

    def silent(self, perts: np.ndarray) -> "HostTable":
        """The table with no difference at all in the rows marked in `perts`: what the control scores as a prediction.

        Such rows are tested in the genes that any other row is tested in.
        """
        put = lambda array, value: np.where(perts[:, None], value, array)
        return HostTable(
            put(self.log2_fold_change, 0.0),
            put(self.log_pvalue, 0.0),
            put(self.log_padj, 0.0),
            put(self.tested, np.any(self.tested[~perts], axis=0, keepdims=True)),
            None if self.z is None else put(self.z, 0.0),
        )

    def to_device(self, genes: tuple[str, ...]) -> "DETable":
        """The same as arrays on the device, in JAX's default float dtype."""
        import jax.numpy as jnp

        from ..de import DETable

        dtype = jnp.result_type(float)
        # Names in the order of their code points, which is how the peers sort them.
        order = np.empty(len(genes), np.int32)
        order[np.argsort(np.array(genes, object), kind="stable")] = np.arange(len(genes))
        return DETable(
            jnp.asarray(self.log2_fold_change, dtype),
            jnp.asarray(self.log_pvalue, dtype),
            jnp.asarray(self.log_padj, dtype),
            jnp.asarray(self.tested, bool),
            None if self.z is None else jnp.asarray(self.z, dtype),
            jnp.asarray(order),
        )

    def _map(self, rows: _Change, genes: _Change) -> "HostTable":
        arrays: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        changed = {name: genes(x) if x.ndim == 1 else rows(x) for name, x in arrays.items() if x is not None}
        return HostTable(**changed)


def beside(parts: Sequence[HostTable]) -> HostTable:
    """The tables of several ranges of genes as one."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {name: [getattr(part, name) for part in parts] for name in FIELDS}
    return HostTable(**{name: np.concatenate(x, axis=-1) for name, x in columns.items() if x[0] is not None})
