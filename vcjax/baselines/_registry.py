"""The table of baselines by name, and which of them the data at hand allow."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from . import (
    _additive,
    _context_means,
    _crispr,
    _embedding_ridge,
    _gp,
    _kernel_ridge,
    _means,
    _neighbours,
    _neural,
    _nulls,
    _oracles,
    _pca_ridge,
    _random_features,
    _reduced_rank,
    _ref_regress,
    _sparse_mean,
    _transfer_learnt,
    _transfer_models,
)
from ._interface import Baseline, PertData
from ._members import members


Role = Literal["competitor", "null", "oracle"]

_CLASSES: tuple[type[Baseline], ...] = (
    _means.NoChange,
    _means.MeanResponse,
    _means.CellMean,
    _means.MeanWithControl,
    _means.GenericResponse,
    _means.OrderMean,
    _sparse_mean.SparseMean,
    _context_means.ContextMean,
    _context_means.CrossContextMean,
    _crispr.CrisprMean,
    _additive.Additive,
    _additive.AdditiveRidge,
    _additive.MatchingMean,
    _neighbours.Neighbours,
    _kernel_ridge.KernelRidge,
    _gp.GaussianProcess,
    _embedding_ridge.EmbeddingRidge,
    _pca_ridge.PCARidge,
    _reduced_rank.ReducedRank,
    _ref_regress.ReferenceRegression,
    _transfer_models.DirectTransfer,
    _transfer_models.MeanTransfer,
    _transfer_models.MedianTransfer,
    _transfer_models.WeightedTransfer,
    _transfer_models.NormRestoredTransfer,
    _transfer_models.AgreementTransfer,
    _transfer_models.CompressedTransfer,
    _transfer_learnt.ScaledTransfer,
    _transfer_learnt.GeneScaledTransfer,
    _transfer_learnt.SpecificTransfer,
    _transfer_learnt.StackedTransfer,
    _neural.LinearAdditive,
    _neural.LatentAdditive,
    _neural.EmbedSum,
    _neural.DecoderOnly,
    _neural.FeatureMLP,
    _random_features.RandomRidge,
    _random_features.Permuted,
    _nulls.WrongTarget,
    _nulls.MetadataNeighbour,
    _nulls.PermutedLabels,
    _nulls.GenePermuted,
    _oracles.TechnicalDuplicate,
    _oracles.InterpolatedDuplicate,
    _oracles.EmpiricalBayesDuplicate,
    _oracles.OracleScaled,
    _oracles.BestLinearSpan,
)

BASELINES: Mapping[str, type[Baseline]] = MappingProxyType({one.name: one for one in _CLASSES})
"""Every baseline by name."""

NULLS = frozenset(
    (
        *("wrong_target", "metadata_neighbour", "permuted_labels", "gene_permuted"),
        *("random_features", "permuted_features", "sparse_mean"),
    )
)
"""Baselines that know nothing, or only what should not matter: a model must beat them, and none is worth choosing.

`sparse_mean` is the mean with a replicate's noise, as the null control of the calibration is: by ranks, noise alone may
put it before the mean.
"""

_MISSING = {
    "external": "no screen of another context is given: external= / --external",
    "features": "no features of perturbations are given: features= / --features",
    "similarity": "no screen of another context and no features of perturbations are given",
    "combinations": "no combination to predict has parts in training",
    "targets": "no training perturbation targets a measured gene",
    "cells": "no cells are given",
    "metadata": "no metadata of perturbations are given",
    "baseline": "no baseline is named that it is made of",
    "replicate": "no replicate of what is predicted is given",
    "truth": "the truth of what is predicted is not given",
}


@dataclasses.dataclass(frozen=True)
class Availability:
    """Whether a baseline can be fitted with what is at hand: `why` says what it lacks, and is empty where it can."""

    name: str
    baseline: type[Baseline]
    why: str

    @property
    def fits(self) -> bool:
        """Whether nothing is missing."""
        return not self.why


def role(baseline: type[Baseline] | Baseline) -> Role:
    """What a baseline is compared as: only competitors are ranked."""
    if baseline.fairness == "oracle":
        return "oracle"
    return "null" if baseline.name in NULLS else "competitor"


def get_baseline(name: str, **options: Any) -> Baseline:
    """A baseline by its name, with its fields as options; `null:inner` is the null `null` of the baseline `inner`.

    **Raises:** `ValueError` for an unknown name and for options that the baseline does not have or cannot do without.
    """
    outer, _, inner = name.partition(":")
    if inner:
        return get_baseline(outer, inner=get_baseline(inner, **options))
    if outer not in BASELINES:
        near = difflib.get_close_matches(outer, list(BASELINES), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no baseline {outer!r}.{hint} Known are {', '.join(BASELINES)}.")
    kind = BASELINES[outer]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [option for option in options if option not in fields]
    lacking = [
        field.name
        for field in fields.values()
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in options
    ]
    if unknown or lacking:
        told = f"does not have {', '.join(unknown)}" if unknown else f"cannot do without {', '.join(lacking)}"
        raise ValueError(f"The baseline {outer!r} {told}; its options are {', '.join(fields) or 'none'}.")
    return kind(**options)


def available(
    data: PertData,
    *,
    predict: Sequence[str] = (),
    external: Sequence[PertData] = (),
    given: Collection[str] = (),
) -> tuple[Availability, ...]:
    """Which baselines can be fitted, and why the others cannot, in the order of `BASELINES`.

    **Arguments:**

    - `data`, `external`: what they would be fitted to. `predict`: the labels to predict; without any, the combinations
        among the training perturbations say whether parts are known.
    - `given`: the words of `Baseline.needs` that are met otherwise: `"features"`, `"similarity"`, `"cells"`,
        `"metadata"`, `"replicate"`, `"truth"`.
    """
    met = {*given}
    met |= {"external", "similarity"} if len(external) else set()
    met |= {"targets"} if data.targets is not None and bool(np.any(np.asarray(data.targets) >= 0)) else set()
    met |= {"combinations"} if _has_parts(predict or data.perts, data) else set()
    lacks = lambda kind: "; ".join(_MISSING.get(word, f"no {word} given") for word in kind.needs if word not in met)
    return tuple(Availability(name, kind, lacks(kind)) for name, kind in BASELINES.items())


def settings(baseline: Baseline) -> dict[str, Any]:
    """The options of a baseline as plain values for a report; an array that is no number is described by its shape."""
    return {field.name: _plain(getattr(baseline, field.name)) for field in dataclasses.fields(baseline)}


def _plain(value: Any) -> Any:
    if isinstance(value, Baseline):
        return {"baseline": value.name, **settings(value)}
    if isinstance(value, PertData):
        return f"{len(value.perts)} perturbations {value.context}".strip()
    if hasattr(value, "shape"):
        return np.asarray(value).item() if np.shape(value) == () else f"array {np.shape(value)}"
    if isinstance(value, tuple) and len(value) > 20:
        return f"{len(value)} entries"
    return value if isinstance(value, str | int | float | bool | tuple | None) else type(value).__name__


def _has_parts(perts: Sequence[str], data: PertData) -> bool:
    known = {*data.perts}
    singles = {parts[0] for parts in (members(pert, known) for pert in known) if len(parts) == 1}
    several = [parts for parts in (members(pert, known) for pert in perts) if len(parts) > 1]
    return any(part in singles for parts in several for part in parts)
