"""From gathered cells to a table: the rank test, fold changes and the adjustment, on the host in float64."""

import numpy as np

from ._de_cells import CONTROL, GatheredCells
from ._de_settings import DESettings
from ._de_table import HostTable
from ._held import NarrowRows


def rank_tests(
    cells: GatheredCells,
    control: GatheredCells | None,
    settings: DESettings,
    *,
    scale: str,
    threads: int | None = None,
    details: bool = False,
) -> tuple[HostTable, np.ndarray]:
    """The unadjusted table, and the sums over the cells of each group (the control last) that fold changes are made of.

    `control` are the control cells of another side, `None` this side's own.
    """
    from ..de._ranksum import rank_sums_of
    from ..de._ranksum_cells import cells_of

    groups = len(cells.sizes) - 1
    sides = [cells.side()] if control is None else [control.side(perturbed=False), cells.side(control=False)]
    sizes = cells_of(sides, groups)
    ranks = rank_sums_of(sides, sizes, threads=threads)
    assert ranks.sums is not None
    control_mean, mean = ranks.sums[0] / max(int(sizes[0]), 1), ranks.sums[1:] / np.maximum(sizes[1:], 1)[:, None]
    if settings.mean == "geometric":
        mean, control_mean = np.expm1(mean), np.expm1(control_mean)
    some = (sizes[1:] > 0)[:, None] & (sizes[0] > 0)
    log_pvalue = np.where(some, ranks.log_pvalue(settings.continuity), 0.0)
    table = HostTable(
        log2_fold_change=np.where(some, fold_changes(mean, control_mean, settings), 0.0),
        log_pvalue=log_pvalue,
        log_padj=log_pvalue,
        tested=some & kept_genes(control_mean, settings, scale)[None, :],
        z=np.where(some, ranks.z(settings.continuity), 0.0),
        mean=mean if details else None,
        control_mean=control_mean if details else None,
        statistic=ranks.u if details else None,
    )
    return table, np.vstack([ranks.sums[1:], ranks.sums[:1]])


def load_engine(settings: DESettings) -> None:
    """Tests a gene of two cells, so that the compiled loops, if they are what counts are tested by, are loaded."""
    from ..de._ranksum import best_engine

    if best_engine() != "numba":
        return
    dtype = np.dtype(np.float64 if settings.values == "double" else np.float32)
    counts = NarrowRows(np.ones(2, np.uint16), np.zeros(2, np.uint16), np.arange(3), 1, dtype)
    cells = GatheredCells(counts, np.array([0, CONTROL]), np.ones(2, np.int64), settings, np.ones(2), 1.0)
    rank_tests(cells, None, settings, scale="counts")


def energies(cells: GatheredCells, control: GatheredCells | None) -> np.ndarray:
    """The energy distance of the cells of each perturbation from the control cells."""
    from ..de._energy import energies_between, SomeCells

    own = cells if control is None else control
    mine = SomeCells(cells, cells.side(control=False).rows)
    others = SomeCells(own, own.side(perturbed=False).rows)
    return energies_between(mine, others, cells.sizes[:-1])


def kept_genes(control_mean: np.ndarray, settings: DESettings, scale: str) -> np.ndarray:
    """The genes that are tested: those the control expresses, where counts can tell."""
    if settings.min_cpm is None or settings.target_sum is None or scale != "counts":
        return np.ones(len(control_mean), bool)
    return control_mean * (1e6 / settings.target_sum) > settings.min_cpm


def fold_changes(mean: np.ndarray, control_mean: np.ndarray, settings: DESettings) -> np.ndarray:
    """Logarithms, base 2, of the ratio of means."""
    control_mean = np.broadcast_to(control_mean, mean.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (mean + settings.pseudocount) / (control_mean + settings.pseudocount)
        if settings.clip is not None:
            ratio = np.where(control_mean == 0, settings.clip, np.where(mean == 0, 1 / settings.clip, ratio))
        return np.log2(np.where((mean == 0) & (control_mean == 0), 1.0, ratio))


def adjusted(table: HostTable, settings: DESettings) -> HostTable:
    """The table with Benjamini–Hochberg p-values, rounded where the convention rounds."""
    log_padj = np.zeros_like(table.log_pvalue)
    if settings.scope == "pooled":
        log_padj[table.tested] = log_bh(table.log_pvalue[table.tested])
    else:
        for row, logs, tested in zip(log_padj, table.log_pvalue, table.tested, strict=True):
            row[tested] = log_bh(logs[tested])
    change = table.log2_fold_change
    if settings.mask_nan:
        log_padj[np.isnan(change)] = 0.0
    if settings.rounded:
        change, log_padj = change.astype(np.float32).astype(np.float64), rounded_logs(log_padj)
    fields = {**vars(table), "log2_fold_change": change, "log_padj": log_padj}
    return HostTable(**fields)


def log_bh(log_pvalue: np.ndarray) -> np.ndarray:
    r"""Logarithms of Benjamini–Hochberg p-values, $q_{(i)} = \min(1, \min_{j \ge i} p_{(j)} m / j)$, without NaN."""
    log_padj = np.full_like(log_pvalue, np.nan)
    known = np.flatnonzero(~np.isnan(log_pvalue))
    order = known[np.argsort(log_pvalue[known])]
    steps = log_pvalue[order] + np.log(len(order) / np.arange(1, len(order) + 1))
    log_padj[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 0.0)
    return log_padj


def rounded_logs(logs: np.ndarray) -> np.ndarray:
    """Logarithms of what their exponentials are in float32, but for those that would vanish there."""
    values = np.exp(logs).astype(np.float32).astype(np.float64)
    return np.where(values > np.finfo(np.float32).tiny, np.log(np.maximum(values, 1e-300)), logs)
