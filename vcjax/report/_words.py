"""Plain words for controls, for why there is no value, and for directions."""

from collections.abc import Sequence

from ..calibration import Calibration
from ..metrics import Metric


CONTROLS = {
    "control": "control cells",
    "loo_mean": "mean of the other perturbations",
    "train_mean": "mean of the training perturbations",
    "sparse_mean": "random cells of the others",
    "duplicate": "replicate",
    "interpolated": "replicate, shrunk where not significant",
    "empirical_bayes": "replicate, shrunk by its noise",
    "bootstrap": "the same cells, resampled",
    "prediction": "the model",
}

_REASONS = {
    "constant_truth": "the measured effect is the same for all genes that count",
    "constant_prediction": "the predicted effect is the same for all genes that count",
    "zero_truth": "there is no measured effect",
    "zero_prediction": "there is no predicted effect",
    "zero_weights": "no gene counts",
    "too_few_perts": "there are too few perturbations to compare",
    "missing": "the perturbation has no prediction",
    "no_signal": "the effects are not larger than their sampling noise",
    "not_finite": "the input, or the arithmetic, was not finite",
    "error": "the metric failed",
    "no_significant_genes": "the measurement has no significant gene",
    "too_few_genes": "the measurement has too few genes to judge by",
    "no_calls": "the prediction calls no gene that could be judged",
    "no_direction": "no significant gene has a fold change other than 0",
    "one_class": "all genes are significant, or none is",
    "no_target": "the perturbation targets no measured gene",
    "too_few_cells": "there are too few measured cells to be split into halves",
    "no_differential_expression": "it has no cells that could be tested for differential expression",
    "no_energy_distances": "it has no cells that energy distances could be measured of",
    "no_sampling_noise": "its sampling noise is not known",
    "no_targets": "target genes are not known",
    "no_weights": "there are no gene weights",
    "not_in_all_splits": "it is not defined in every division of the cells",
}


def reason(status: str) -> str:
    """Why a value is undefined, for somebody who has not seen the code."""
    return _REASONS.get(status, status.replace("_", " "))


def control_words(name: str) -> str:
    """What a control is."""
    return CONTROLS.get(name, name.replace("_", " "))


def direction(metric: Metric) -> str:
    """Which way is better."""
    words = {True: "higher is better", False: "lower is better", None: "a description, neither way is better"}
    return words[metric.higher_is_better]


ARROWS = {True: "↑", False: "↓", None: ""}


def judgement(calibration: Calibration) -> str:
    """Whether the metric can tell a replicate from the mean."""
    if calibration.separates is None:
        return "not judged"
    if calibration.separates:
        return "yes"
    return "no: prefers the mean" if calibration.verdict.startswith("prefers") else "no"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 metric`, `2 metrics`, `12,000 cells`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def joined(words: Sequence[str], most: int = 6) -> str:
    """`a`, `a and b`, `a, b and c`; after `most`, how many more there are."""
    words = list(words)
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
