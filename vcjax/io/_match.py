"""Two screens brought onto the same genes, perturbations and contexts, or refused."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._context import check_controls
from ._errors import listing, Refusal
from ._genes import GeneRule, match_genes
from ._match_notes import pair_notes
from ._pairs import Extra, Missing, pair_codes, recode, refuse_extra, refuse_missing
from ._screen import Screen


def match_screens(
    pred: Screen,
    real: Screen,
    *,
    genes: GeneRule = "match",
    missing: Missing = "refuse",
    extra: Extra = "refuse",
    min_cells: int = 1,
    match_cells: bool = False,
    seed: int = 0,
) -> tuple[Screen, Screen, tuple[str, ...]]:
    """`(pred, real, notes)` with the same `genes`, `perts` and `contexts` in the same order.

    Genes take the order of `real`, by name. Cells that are not scored get the code -2; nothing is read or copied.

    **Arguments:**

    - `genes`: `"match"` refuses genes that one side lacks, `"intersect"` scores the shared ones, `"strict"` refuses
        even another order.
    - `missing`: what to do with perturbations that the prediction lacks. `"skip"` leaves them out of both sides; under
        `"nan"` and `"worst"` they stay in `perts`, without predicted cells, and are listed in `pred.missing`.
    - `extra`: whether perturbations (or contexts) that only the prediction has are refused or ignored.
    - `min_cells`: perturbations with fewer measured cells (in a context) are left out of both sides.
    - `match_cells`: draws, with `seed`, as many cells from the larger side of each perturbation as the smaller has.

    **Raises:** `Refusal` where the sides differ in scale, contexts, genes or perturbations, other than as allowed, and
    where the measured side has no controls.
    """
    _check_scales(pred, real)
    _check_contexts(pred, real, missing, extra)
    check_controls(real)
    shared, gene_notes = match_genes(pred.genes, real.genes, genes, (pred.name, real.name))
    pred, real, pert_notes = _match_perts(pred, real, missing, extra, min_cells)
    notes = [*gene_notes, *pert_notes]
    pred, real = on_genes(pred, shared), on_genes(real, shared)
    notes += pair_notes(pred, real)
    if match_cells:
        pred, real, left_out = _same_cells(pred, real, seed)
        notes.append(f"{left_out} cells were left out, drawn with seed {seed}, so that both sides have equally many")
    return pred, real, tuple(notes)


def _check_scales(pred: Screen, real: Screen) -> None:
    if pred.scale != real.scale:
        raise Refusal(
            what=f"The prediction holds {pred.scale}, the measured side {real.scale}.",
            where=f"{pred.name}: {pred.scale_verdict}; {real.name}: {real.scale_verdict}",
            why="Across scales errors are off by orders of magnitude while rank scores look perfect.",
            fix="put both on one scale; if one was told wrongly, declare it: `input_type=` of `read_screen` "
            "(`--input-type-pred`, `--input-type-real`).",
        )


def _check_contexts(pred: Screen, real: Screen, missing: Missing, extra: Extra) -> None:
    if bool(pred.contexts) != bool(real.contexts):
        raise Refusal(
            what="Only one side has contexts.",
            where=f"{pred.name}: {_some(pred.contexts)}; {real.name}: {_some(real.contexts)}",
            why="A perturbation would be compared with its mean over cell lines.",
            fix="read both with the same `context_col=` (`--context-col`).",
        )
    absent = [context for context in real.contexts if context not in pred.contexts]
    unknown = [context for context in pred.contexts if context not in real.contexts]
    if (
        (absent and missing == "refuse")
        or (unknown and extra == "refuse")
        or (absent and len(absent) == len(real.contexts))
    ):
        raise Refusal(
            what="The contexts differ.",
            where=f"missing from {pred.name}: {_some(absent)}; only there: {_some(unknown)}",
            why="Effects differ between contexts as much as between perturbations.",
            fix='give them the same names, or allow it: `extra="ignore"` (`--extra ignore`).'
            if unknown
            else 'predict them, or choose how they count: `missing="worst"`, `"nan"` or `"skip"` (`--missing worst`).',
        )


def _match_perts(
    pred: Screen, real: Screen, missing: Missing, extra: Extra, min_cells: int
) -> tuple[Screen, Screen, list[str]]:
    """Both sides on the labels of the measured one; each decision is made for a (perturbation, context) pair."""
    contexts = real.contexts or ("",)
    size = len(real.perts) * len(contexts)
    names = [(pert, context) for pert in real.perts for context in contexts]
    real_pairs, pred_pairs = (pair_codes(side, real.perts, real.contexts) for side in (real, pred))
    n_real, n_pred = (np.bincount(pairs[pairs >= 0], minlength=size) for pairs in (real_pairs, pred_pairs))

    few = (n_real > 0) & (n_real < min_cells)
    absent = np.flatnonzero((n_real > 0) & ~few & (n_pred == 0))
    unknown = np.flatnonzero((n_real == 0) & (n_pred > 0))
    measured = set(real.perts)
    excess = [pert for pert in pred.perts if pert not in measured] + [_spell(names[i]) for i in unknown]
    excess += [f"context {context}" for context in pred.contexts if context not in real.contexts]
    if len(absent) and missing == "refuse":
        raise refuse_missing([_spell(names[i]) for i in absent], excess, int((n_real > 0).sum()), pred.name)
    if excess and extra == "refuse":
        raise refuse_extra(excess, pred.name)

    scored = (n_real > 0) & ~few
    if missing == "skip":
        scored[absent] = False
    if not np.any(scored & (n_pred > 0)):
        raise Refusal(
            what="No perturbation is left to score.",
            where=f"{pred.name} against {real.name}",
            why="There is nothing to compare.",
            fix="check the labels of both sides, and `min_cells` (`--min-cells`).",
        )
    anywhere = np.flatnonzero(scored.reshape(-1, len(contexts)).any(axis=1))
    perts = tuple(real.perts[i] for i in anywhere)
    lacking = tuple(names[i] for i in absent) if missing in ("nan", "worst") else ()
    notes = _decisions(names, np.flatnonzero(few), absent, excess, missing, min_cells)
    return (
        dataclasses.replace(_on_perts(pred, perts, real.contexts, scored, pred_pairs), missing=lacking),
        _on_perts(real, perts, real.contexts, scored, real_pairs),
        notes,
    )


def _on_perts(
    screen: Screen, perts: tuple[str, ...], contexts: tuple[str, ...], scored: np.ndarray, pairs: np.ndarray
) -> Screen:
    codes = recode(screen.codes, screen.perts, perts)
    codes[(codes >= 0) & ~np.append(scored, False)[pairs]] = -2
    context_codes, means = screen.context_codes, screen.context_means
    if context_codes is not None and screen.contexts != contexts:
        context_codes = recode(context_codes, screen.contexts, contexts)
        codes[context_codes < 0] = -2
        if means is not None:
            order = [screen.contexts.index(context) if context in screen.contexts else -1 for context in contexts]
            means = np.concatenate([means, np.full_like(means[:1], np.nan)])[order]
    return _derived(
        screen, perts=perts, codes=codes, contexts=contexts, context_codes=context_codes, context_means=means
    )


def on_genes(screen: Screen, genes: tuple[str, ...]) -> Screen:
    """The screen on these of its genes, in this order."""
    if screen.genes == genes:
        return screen
    index = {gene: i for i, gene in enumerate(genes)}
    columns = np.array([index.get(gene, -1) for gene in screen.genes], np.int32)
    order = np.argsort(columns)[-len(genes) :]
    return _derived(
        screen,
        genes=genes,
        matrix=screen.matrix.select(columns, len(genes)),
        # The sum of a row is a library size only over the genes that are compared.
        totals=screen.totals if len(genes) == len(screen.genes) else None,
        context_means=None if screen.context_means is None else screen.context_means[:, order],
    )


def _same_cells(pred: Screen, real: Screen, seed: int) -> tuple[Screen, Screen, int]:
    rng = np.random.default_rng(seed)
    size = len(real.perts) * max(1, len(real.contexts))
    pairs = [pair_codes(side, real.perts, real.contexts) for side in (pred, real)]
    target = np.minimum(*(np.bincount(codes[codes >= 0], minlength=size) for codes in pairs))
    kept, left_out = [], 0
    for side, codes in zip((pred, real), pairs, strict=True):
        order = rng.permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]
        sorted_codes = codes[order]
        rank = np.arange(len(order)) - np.searchsorted(sorted_codes, sorted_codes)
        # A perturbation that one side lacks keeps the cells of the other.
        surplus = order[(sorted_codes >= 0) & (rank >= target[sorted_codes]) & (target[sorted_codes] > 0)]
        reduced = side.codes.copy()
        reduced[surplus] = -2
        left_out += len(surplus)
        kept.append(_derived(side, codes=reduced))
    return kept[0], kept[1], left_out


def _derived(screen: Screen, **changes: Any) -> Screen:
    """The screen with some fields replaced and, if any of them differ, another fingerprint."""
    new = dataclasses.replace(screen, **changes)
    same = (new.genes, new.perts, new.contexts) == (screen.genes, screen.perts, screen.contexts)
    if not screen.fingerprint or (same and np.array_equal(new.codes, screen.codes)):
        return new
    digest = hashlib.blake2b(screen.fingerprint.encode(), digest_size=16)
    digest.update("\1".join([*new.perts, "\0", *new.contexts, "\0", *new.genes]).encode())
    digest.update(np.ascontiguousarray(new.codes).data)
    return dataclasses.replace(new, fingerprint=digest.hexdigest())


def _decisions(
    names: list[tuple[str, str]],
    few: np.ndarray,
    absent: np.ndarray,
    excess: list[str],
    missing: Missing,
    min_cells: int,
) -> list[str]:
    notes = []
    if len(few):
        notes.append(f"{len(few)} perturbations with fewer than {min_cells} measured cells were left out")
    if len(absent):
        done = {"skip": "left out of both sides", "nan": "scored as NaN", "worst": "given the worst value"}[missing]
        notes.append(
            f"Warning: {len(absent)} perturbations missing from the prediction are {done}: "
            f"{listing(_spell(names[i]) for i in absent)}"
        )
    if excess:
        notes.append(f"{len(excess)} predicted perturbations that were not measured are ignored: {listing(excess)}")
    return notes


def _some(items: Sequence[str]) -> str:
    return listing(items, 8) or "(none)"


def _spell(pair: tuple[str, str]) -> str:
    return f"{pair[0]} in {pair[1]}" if pair[1] else pair[0]
