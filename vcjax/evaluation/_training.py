"""The training screen of an evaluation: what models may have seen, as a reference and as a source of gene weights."""

import numpy as np

from ..io import Refusal, Screen, summarise, Summary
from ..io._errors import listing
from ..io._match import on_genes
from ._sides import read_side, Reading, Sides, Source
from ._weighting import Profiling, Weighting


_FLAG = "train= / --train"


def read_train(source: Source, sides: Sides, reading: Reading, max_memory: int | None = None) -> Screen:
    """The training screen, on the genes that are compared.

    **Raises:** `Refusal` for a summary, another scale, missing contexts and missing genes.
    """
    train = read_side(source, reading, reading.input_type_real, require_control=False, max_memory=max_memory)
    real = sides.real
    if not isinstance(train, Screen):
        raise _unusable("The training screen is a summary", "train", "Give the screen of cells itself")
    if not isinstance(real, Screen):
        raise _unusable("A training screen stands beside a measured summary", "real", "Give the measured screen itself")
    if train.scale != real.scale:
        where = f"{train.name}: {train.scale_verdict}; {real.name}: {real.scale_verdict}"
        raise _unusable("The training screen is on another scale than the measured one", where, "Give both alike")
    lacking = [gene for gene in real.genes if gene not in set(train.genes)]
    if lacking:
        where = f"{train.name} lacks {len(lacking)} of {len(real.genes)}: {listing(lacking)}"
        raise _unusable(
            "The training screen lacks genes that are compared", where, "Keep the shared genes in all files"
        )
    absent = [context for context in real.contexts if context not in train.contexts]
    if absent:
        where = f"{train.name} lacks {listing(absent)}"
        raise _unusable("The training screen lacks contexts", where, "Give one with the same contexts")
    return on_genes(train, real.genes)


def check_train(train: Screen, real: Screen | Summary, weighting: Weighting | None, allow_leak: bool) -> str:
    """A note on evaluated perturbations among the training ones; empty if there are none.

    **Raises:** `Refusal` where that is a leak that is not allowed.
    """
    inside = [label for label in real.perts if label in set(train.perts)]
    if not inside:
        return ""
    made = "The mean that effects are measured from"
    if weighting is not None and weighting.source == "train":
        made += " and the gene weights"
    told = f"{len(inside)} of {len(real.perts)} evaluated perturbations are in {train.name}: {listing(inside)}"
    if not allow_leak:
        raise Refusal(
            what="Evaluated perturbations are among the training perturbations.",
            where=told,
            why=f"{made} would be made of a part of the answer.",
            fix="Give a training screen without them, or allow it and say so with the score: allow_leak=True / "
            "--allow-leak.",
        )
    return f"Warning: a leak that was allowed: {told}"


def train_mean_of(train: Screen, how: Profiling, context: str) -> np.ndarray:
    """The mean profile of the training perturbations, each counting alike."""
    how_much = {"target_sum": how.target_sum, "max_entries": how.max_entries}
    summary = summarise(train, space=how.space, context=context or None, noise=False, **how_much)
    return np.mean(summary.mean[summary.cells > 0], axis=0)


def _unusable(what: str, where: str, fix: str) -> Refusal:
    why = "The mean response and gene weights of training perturbations must be of the genes and cells that are scored."
    return Refusal(what=f"{what}.", where=where, why=why, fix=f"{fix}: {_FLAG}.")
