"""Putting two summaries side by side: the same genes and perturbations in the same order, and the gaps known."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..io import Refusal, Summary
from ..io._errors import listing, suggestion


Missing = Literal["refuse", "nan", "worst", "skip"]
Extra = Literal["refuse", "ignore"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Both sides of one context, aligned; `missing` marks the perturbations that the prediction lacks."""

    context: str
    pred: Summary
    real: Summary
    missing: np.ndarray


def take_perts(summary: Summary, perts: Sequence[str]) -> Summary:
    """The summary of these perturbations, in this order."""
    row = {label: i for i, label in enumerate(summary.perts)}
    index = np.array([row[label] for label in perts], int)
    return dataclasses.replace(
        summary,
        perts=tuple(perts),
        targets=summary.targets[index],
        mean=summary.mean[index],
        cells=summary.cells[index],
        noise=None if summary.noise is None else summary.noise[index],
        de=None if summary.de is None else summary.de.take(index),
        energy=None if summary.energy is None else summary.energy[index],
    )


def with_control_in_gaps(pair: Pair) -> Pair:
    """The pair with the measured control, without noise and without any difference, in the place of missing rows."""
    gaps = pair.missing
    if pair.real.control is None:
        return pair
    mean = np.where(gaps[:, None], pair.real.control, pair.pred.mean)
    noise = None if pair.pred.noise is None else np.where(gaps, 0.0, pair.pred.noise)
    de = None if pair.pred.de is None else pair.pred.de.silent(gaps)
    energy = None if pair.pred.energy is None else np.where(gaps, 0.0, pair.pred.energy)
    return dataclasses.replace(pair, pred=dataclasses.replace(pair.pred, mean=mean, noise=noise, de=de, energy=energy))


def without_gaps(pair: Pair) -> Pair:
    """The pair restricted to what was predicted."""
    perts = [label for label, gap in zip(pair.real.perts, pair.missing, strict=True) if not gap]
    return Pair(pair.context, take_perts(pair.pred, perts), take_perts(pair.real, perts), np.zeros(len(perts), bool))


def measured_pair(pred: Summary, real: Summary, context: str = "") -> Pair:
    """Both sides of matched screens, restricted to the perturbations measured in this context."""
    perts = [label for label, cells in zip(real.perts, real.cells, strict=True) if cells > 0]
    if not perts:
        raise Refusal(
            what="No perturbation was measured here.",
            where=f"context {context!r} of the measured side" if context else "the measured side",
            why="There is nothing to score.",
            fix="Check pert_col / --pert-col and context_col / --context-col.",
        )
    pred, real = take_perts(pred, perts), take_perts(real, perts)
    return Pair(context, pred, real, pred.cells == 0)


def align_summaries(
    pred: Summary, real: Summary, *, missing: Missing = "refuse", extra: Extra = "refuse", context: str = ""
) -> Pair:
    """Both sides by name, where at least one came as a summary.

    **Raises:** `Refusal` for summaries of different spaces or genes, and for missing or extra perturbations where the
    policy does not allow them.
    """
    if pred.space != real.space:
        raise Refusal(
            what=f"The predicted summary is in {pred.space!r}, the measured one in {real.space!r}.",
            where="pred, real",
            why="A difference between two spaces is mostly the transformation, not the prediction.",
            fix="Summarise both sides alike: summarise(screen, space=...).",
        )
    pred = _same_genes(pred, real)
    _check_labels(pred, real, missing, extra)
    real = take_perts(real, [label for label, cells in zip(real.perts, real.cells, strict=True) if cells > 0])
    found = {label for label, cells in zip(pred.perts, pred.cells, strict=True) if cells > 0}
    if missing == "skip":
        real = take_perts(real, [label for label in real.perts if label in found])
    return measured_pair(_with_gaps(pred, real.perts, found), real, context)


def _with_gaps(pred: Summary, perts: tuple[str, ...], found: set[str]) -> Summary:
    """The prediction in the order of `perts`, without cells where it has no such perturbation."""
    stand_in = next(iter(found))
    rows = take_perts(pred, [label if label in found else stand_in for label in perts])
    gaps = np.array([label not in found for label in perts])
    return dataclasses.replace(rows, perts=perts, cells=np.where(gaps, 0, rows.cells))


def _same_genes(pred: Summary, real: Summary) -> Summary:
    if pred.genes == real.genes:
        return pred
    column = {gene: i for i, gene in enumerate(pred.genes)}
    absent = [gene for gene in real.genes if gene not in column]
    known = set(real.genes)
    surplus = [gene for gene in pred.genes if gene not in known]
    if absent or surplus:
        raise Refusal(
            what=f"The predicted summary lacks {len(absent)} genes and has {len(surplus)} others.",
            where=f"missing: {listing(absent, 8) or 'none'}; extra: {listing(surplus, 8) or 'none'}",
            why="A profile of other genes has another scale, and a library size over other genes too.",
            fix="Summarise both over the same genes: match_screens(pred, real, genes='intersect') before summarise.",
        )
    order = np.array([column[gene] for gene in real.genes])
    control = None if pred.control is None else pred.control[order]
    de = None if pred.de is None else pred.de.take_genes(order)
    return dataclasses.replace(pred, genes=real.genes, mean=pred.mean[:, order], control=control, de=de)


def _check_labels(pred: Summary, real: Summary, missing: Missing, extra: Extra) -> None:
    predicted = {label for label, cells in zip(pred.perts, pred.cells, strict=True) if cells > 0}
    absent = [label for label, n in zip(real.perts, real.cells, strict=True) if n > 0 and label not in predicted]
    if not predicted & set(real.perts) or (absent and missing == "refuse"):
        raise Refusal(
            what=f"The prediction lacks {len(absent)} of {len(real.perts)} measured perturbations."
            + suggestion(absent[0], pred.perts),
            where=listing(absent),
            why="Scoring only what was predicted rewards leaving out what is hard.",
            fix="Predict them, or choose how they count: missing='nan'|'worst'|'skip' / --missing.",
        )
    surplus = sorted(predicted - set(real.perts))
    if surplus and extra == "refuse":
        raise Refusal(
            what=f"The prediction has {len(surplus)} perturbations that were not measured.",
            where=listing(surplus),
            why="It often means that the labels of the two sides are spelt differently.",
            fix="Remove them, or pass extra='ignore' / --extra ignore.",
        )
