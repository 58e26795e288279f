"""What is known of genes beforehand, from a file, for the baselines that ask for it."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from ..baselines import (
    BASELINES,
    EmbeddingRidge,
    feature_kernel,
    Features,
    gene_set_features,
    members,
    read_embeddings,
    read_gmt,
)
from ..io import Refusal


FeatureSource: TypeAlias = Features | str | os.PathLike


def features_of(source: FeatureSource | None, labels: Sequence[str]) -> Features | None:
    """Vectors by name: of a table (.csv, .tsv, .npz), or membership of the genes of these labels in sets (.gmt).

    **Raises:** `Refusal` as `vcjax.baselines.read_gmt` and `read_embeddings`, and where no gene of a label is in a set.
    """
    if source is None or isinstance(source, Features):
        return source
    path = pathlib.Path(source)
    if path.suffix != ".gmt":
        return read_embeddings(path)
    sets, known = read_gmt(path), set(labels)
    try:
        genes = list(dict.fromkeys(part for label in labels for part in members(label, known)))
        return gene_set_features(sets, genes, source=path.name)
    except ValueError as error:
        raise Refusal(
            what=str(error),
            where=os.fspath(path),
            why="All perturbations would get the mean response.",
            fix="give sets of genes named as the labels are, or a table of vectors (.csv, .tsv, .npz).",
        ) from error


def options_of(baseline: str, features: Features, *, external: bool) -> dict[str, Any]:
    """What a baseline takes of features; the similarity of neighbours only where no other screen tells it."""
    if baseline == "permuted_features":
        return {"model": EmbeddingRidge(features)}
    if baseline == "knn":
        return {} if external else {"similarity": feature_kernel(features)}
    named = {field.name for field in dataclasses.fields(BASELINES[baseline])} if baseline in BASELINES else set()
    return {"features": features} if "features" in named else {}
