"""Gene names: read, made unique, and put into the order of the other side."""

import re
from collections import Counter
from typing import Any, Literal

import numpy as np

from ._errors import listing, Refusal, suggestion


Dedup = Literal["refuse", "sum", "first"]
GeneRule = Literal["match", "intersect", "strict"]
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")
_VERSION = re.compile(r"\.\d+$")


def read_genes(
    var: Any, name: str, gene_col: str | None, dedup: Dedup
) -> tuple[tuple[str, ...], np.ndarray | None, tuple[str, ...]]:
    """`(names, columns, notes)`: unique gene names, and where each column goes (as in `Matrix.select`) if any moves.

    **Raises:** `Refusal` for an absent column, for a gene without a name, and for names that occur twice unless `dedup`
    says what to do with them.
    """
    if gene_col is not None and gene_col not in var.columns:
        raise Refusal(
            what=f"There is no var column {gene_col!r}.{suggestion(gene_col, [str(column) for column in var.columns])}",
            where=f"{name}, var has {listing(var.columns, 12) or 'no columns'}",
            why="Genes are matched by name.",
            fix="name one of these: `gene_col=` (`--gene-col`), or leave it out to use the index.",
        )
    column = var.index if gene_col is None else var[gene_col]
    missing = np.flatnonzero(column.isna())
    if len(missing) or not len(column):
        raise Refusal(
            what=f"{len(missing)} genes have no name." if len(missing) else "There are no genes.",
            where=f"{name}, var {gene_col or 'index'}, rows {listing(missing) or '(none)'}",
            why="Genes are matched by name.",
            fix="name them, or use another column: `gene_col=` (`--gene-col`).",
        )
    names = [str(gene) for gene in column]
    unique = tuple(dict.fromkeys(names))
    if len(unique) == len(names):
        return unique, None, ()
    twice = [gene for gene, count in Counter(names).items() if count > 1]
    if dedup == "refuse":
        raise Refusal(
            what=f"{len(twice)} gene names occur more than once.",
            where=f"{name}, var {gene_col or 'index'}: {listing(twice)}",
            why="One of them would stand for all, or a gene would count twice.",
            fix='say what they are: `dedup="sum"` or `dedup="first"` (`--dedup sum`, `--dedup first`).',
        )
    index = {gene: i for i, gene in enumerate(unique)}
    columns = np.array([index[gene] for gene in names], np.int32)
    if dedup == "first":
        repeated = np.ones(len(names), bool)
        repeated[np.unique(columns, return_index=True)[1]] = False
        columns[repeated] = -1
    done = "summed" if dedup == "sum" else "reduced to the first"
    return unique, columns, (f"{len(twice)} gene names that occur more than once were {done}: {listing(twice)}",)


def match_genes(
    pred: tuple[str, ...], real: tuple[str, ...], rule: GeneRule, names: tuple[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`(genes, notes)`: the genes that both sides keep, in the order of `real`.

    **Raises:** `Refusal` for genes that only one side has, unless `rule` is `"intersect"`; for another order if it is
    `"strict"`; and if no gene is shared.
    """
    if pred == real:
        return real, ()
    pred_set, real_set = set(pred), set(real)
    missing = [gene for gene in real if gene not in pred_set]
    extra = [gene for gene in pred if gene not in real_set]
    if not missing and not extra:
        if rule == "strict":
            raise _other_order(pred, real, names)
        return real, ("genes of the prediction were put into the order of the measured side, by name",)
    shared = tuple(gene for gene in real if gene in pred_set)
    if rule != "intersect" or not shared:
        raise _mismatch(missing, extra, len(shared), names)
    return shared, (
        f"Warning: {len(shared)} shared genes are scored; {len(missing)} measured, {len(extra)} predicted ones are not",
    )


def _other_order(pred: tuple[str, ...], real: tuple[str, ...], names: tuple[str, str]) -> Refusal:
    i = next(i for i, (a, b) in enumerate(zip(pred, real, strict=True)) if a != b)
    return Refusal(
        what="Genes are in another order.",
        where=f"{names[0]} column {i} is {pred[i]!r}, {names[1]} column {i} is {real[i]!r}",
        why="Compared by position, every value would meet another gene.",
        fix='let them be matched by name: `genes="match"` (leave out `--strict-genes`).',
    )


def _mismatch(missing: list[str], extra: list[str], n_shared: int, names: tuple[str, str]) -> Refusal:
    hint, fix = _naming_hint(missing, extra)
    return Refusal(
        what=f"{len(missing)} measured genes are missing from the prediction, {len(extra)} are in it alone "
        f"({n_shared} are shared).",
        where=f"missing from {names[0]}: {listing(missing, 8) or '(none)'}; absent from {names[1]}: "
        f"{listing(extra, 8) or '(none)'}{hint}",
        why="Scores over different genes cannot be compared, and a missing gene is not a gene predicted as zero.",
        fix=fix,
    )


def _naming_hint(missing: list[str], extra: list[str]) -> tuple[str, str]:
    """What the two lists have in common once spelt alike, and the line that makes them so."""
    bare = {_VERSION.sub("", gene) for gene in missing} & {_VERSION.sub("", gene) for gene in extra}
    if bare and any(_ENSEMBL.match(gene) for gene in missing + extra):
        return (
            f"; {len(bare)} differ by the version suffix of an Ensembl id only",
            'drop the versions: `adata.var_names = adata.var_names.str.replace(r"\\.\\d+$", "", regex=True)`.',
        )
    ids = [np.mean([bool(_ENSEMBL.match(gene)) for gene in side]) if side else 0.5 for side in (missing, extra)]
    if abs(ids[0] - ids[1]) > 0.8:
        return (
            "; one side has Ensembl ids, the other gene symbols",
            "take the names from the column of `var` that holds the other kind: `gene_col=` (`--gene-col`).",
        )
    folded = {gene.casefold() for gene in missing} & {gene.casefold() for gene in extra}
    if folded:
        return (
            f"; {len(folded)} differ by case only",
            "spell them alike: `adata.var_names = adata.var_names.str.upper()`.",
        )
    return "", 'score the shared genes alone: `genes="intersect"` (`--genes intersect`).'
