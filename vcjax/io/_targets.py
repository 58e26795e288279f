"""Which gene each perturbation targets."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from ._csv import read_csv
from ._errors import listing, Refusal


TargetMap = Mapping[str, str | None]
NO_TARGET = ("ctrl", "control", "non-targeting")  # parts of a combination that stand for "nothing else"


@dataclasses.dataclass(frozen=True)
class TargetReport:
    """How the labels resolved: to measured genes, to none by declaration, or not at all."""

    resolved: tuple[str, ...]
    declared_none: tuple[str, ...]
    unresolved: tuple[str, ...]

    @property
    def note(self) -> str:
        """A line for a report; empty if every label resolved or was declared to have no target."""
        if not self.unresolved:
            return ""
        total = len(self.resolved) + len(self.declared_none) + len(self.unresolved)
        some = listing(self.unresolved)
        return f"Warning: {len(self.unresolved)} of {total} perturbations target no measured gene: {some}"

    def require(self, metrics: str = "metrics that exclude the target gene") -> None:
        """Refuses to go on where nothing resolved and nothing was declared, so that no exclusion is a silent no-op.

        **Raises:** `Refusal`.
        """
        if self.resolved or self.declared_none or not self.unresolved:
            return
        raise Refusal(
            what="No perturbation label is the name of a measured gene.",
            where=f"labels {listing(self.unresolved)}; needed by {metrics}",
            why="The knocked-down gene itself would be scored, which gives the answer away.",
            fix='give a table of label and gene: `target_map="map.csv"` (`--target-map map.csv`); '
            "a row `*,` declares that there are no targets.",
        )


def read_target_map(source: str | os.PathLike | TargetMap | None) -> dict[str, str | None]:
    """A target map from a CSV with the columns `label` and `gene` (empty: no target), or from a mapping.

    The label `*` stands for all labels that are not listed.

    **Raises:** `Refusal` for an unreadable table, an empty label, and a label listed with two genes.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return {str(label): None if gene is None else str(gene).strip() or None for label, gene in source.items()}
    found: dict[str, str | None] = {}
    for i, (label, gene) in enumerate(read_csv(source, ("label", "gene"))):
        value = gene or None
        if not label or found.get(label, value) != value:
            raise Refusal(
                what=f"Label {label!r} is listed with two genes, {found[label]!r} and {value!r}."
                if label
                else "A label is empty.",
                where=f"{source}, table row {i + 1}",
                why="The target gene decides what is left out of the score.",
                fix="keep one row a label; join the genes of a combination with `+`.",
            )
        found[label] = value
    return found


def resolve_target_sets(
    perts: Sequence[str], genes: Sequence[str], target_map: TargetMap | None = None
) -> tuple[tuple[int, ...], ...]:
    """The indices of all genes that each perturbation targets; `()` for none.

    A label in `target_map` has the target given there (`None` or empty: none). Any other is compared with the gene
    names as a whole, then split at `+` (parts that stand for a control are skipped, parts that are not measured count
    as no target), then at `_`, only if all its
    other parts are genes.
    """
    index = {gene: i for i, gene in reversed(list(enumerate(genes)))}
    target_map = target_map or {}
    return tuple(_targets(pert, index, target_map) for pert in perts)


def resolve_targets(perts: Sequence[str], genes: Sequence[str], target_map: TargetMap | None = None) -> np.ndarray:
    """The index of the one gene that each perturbation targets; -1 for none and for combinations of several genes."""
    sets = resolve_target_sets(perts, genes, target_map)
    return np.array([found[0] if len(found) == 1 else -1 for found in sets], np.int32)


def report_targets(perts: Sequence[str], genes: Sequence[str], target_map: TargetMap | None = None) -> TargetReport:
    """Which labels resolved; a label mapped to a gene that is not measured counts as unresolved."""
    target_map = target_map or {}
    resolved, none, unresolved = [], [], []
    for pert, found in zip(perts, resolve_target_sets(perts, genes, target_map), strict=True):
        declared = _declared(pert, target_map)
        (resolved if found else none if declared == "" else unresolved).append(pert)
    return TargetReport(tuple(resolved), tuple(none), tuple(unresolved))


def _declared(pert: str, target_map: TargetMap) -> str | None:
    """What the map says: a gene, `""` for no target, `None` if it does not say (the label itself counts then)."""
    if pert in target_map:
        return target_map[pert] or ""
    return (target_map["*"] or "") if "*" in target_map else None


def _targets(pert: str, index: dict[str, int], target_map: TargetMap) -> tuple[int, ...]:
    declared = _declared(pert, target_map)
    name = pert if declared is None else declared
    if name in index:
        return (index[name],)
    if "+" in name:
        parts = [part.strip() for part in name.split("+")]
        return tuple(sorted({index[part] for part in parts if part in index and part not in NO_TARGET}))
    parts = [part for part in name.split("_") if part not in NO_TARGET]
    if "_" in name and all(part in index for part in parts):
        return tuple(sorted({index[part] for part in parts}))
    return ()
