"""Whether two runs may be compared at all: the same measured screen, the same perturbations, the same conventions."""

import json
from typing import Any

import numpy as np

from ..io import Refusal
from ..io._errors import listing
from ._results import Results


# What else decides the numbers of a metric, beside the preset.
_DECIDING = (
    *("exclude_targets", "space", "target_sum", "control_source", "control", "de", "weights", "train"),
    *("missing", "match_cells", "seed", "genes", "min_cells"),
)


def check_comparable(a: Results, b: Results) -> tuple[str, ...]:
    """Notes on what the two runs do not share; compares no value.

    **Raises:** `Refusal` where a difference of their values would not be one of the predictions.
    """
    if a.preset.name != b.preset.name:
        raise Refusal(
            what="The two runs follow different presets.",
            where=f"{a.source or 'A'}: {a.preset.name}; {b.source or 'B'}: {b.preset.name}",
            why="Metrics of one name have other definitions there.",
            fix="Evaluate both with one preset: vcjax run --preset ….",
        )
    _check_settings(a, b)
    _check_perturbations(a, b)
    notes = _check_screen(a, b)
    shared = [name for name in a.metrics if name in b.metrics]
    if not shared:
        raise Refusal(
            what="The two runs have no metric in common.",
            where=f"A: {listing(a.metrics, 8)}; B: {listing(b.metrics, 8)}",
            why="There is nothing to compare.",
            fix="Evaluate both with one profile: vcjax run --profile ….",
        )
    odd = [name for name in (*a.metrics, *b.metrics) if (name in a.metrics) != (name in b.metrics)]
    return (*notes, *((f"metrics of one run only, not compared: {listing(odd, 8)}",) if odd else ()))


def _check_settings(a: Results, b: Results) -> None:
    mine, yours = a.stamp.get("settings") or {}, b.stamp.get("settings") or {}
    # A setting that is absent, or None, was not needed by what that run computed.
    both = [key for key in _DECIDING if mine.get(key) is not None and yours.get(key) is not None]
    if not (mine.get("match_cells") or yours.get("match_cells")):
        both = [key for key in both if key != "seed"]
    odd = [key for key in both if _plain(mine[key]) != _plain(yours[key])]
    if odd:
        raise Refusal(
            what=f"The two runs were computed with different settings of {odd[0]!r}.",
            where="; ".join(f"{key}: {mine[key]} and {yours[key]}" for key in odd[:3]),
            why="Their numbers differ whatever the predictions are.",
            fix="Evaluate both predictions with the same options.",
        )


def _check_perturbations(a: Results, b: Results) -> None:
    odd = sorted(set(a.perturbations) ^ set(b.perturbations))
    if odd:
        raise Refusal(
            what="The two runs are of different contexts.",
            where=f"only on one side: {listing(odd)}",
            why="A mean over other contexts is another number.",
            fix="Evaluate both predictions against the same measured screen, with the same context column.",
        )
    for context, labels in a.perturbations.items():
        odd = sorted(set(labels) ^ set(b.perturbations[context]))
        if odd:
            raise Refusal(
                what="The two runs are of different perturbations.",
                where=f"{context + ': ' if context else ''}{len(labels)} and {len(b.perturbations[context])}; "
                f"only on one side: {listing(odd)}",
                why="Scores of easier perturbations are no sign of a better model, and ranks have other candidates.",
                fix="Evaluate both against one measured screen, and let missing predictions count: --missing nan.",
            )


def _check_screen(a: Results, b: Results) -> tuple[str, ...]:
    mine, yours = _fingerprint(a, "screens"), _fingerprint(b, "screens")
    if mine and yours and len(mine) == len(yours):
        if mine != yours:
            raise _other_screen(a, b, f"fingerprints {mine[:12]} and {yours[:12]}")
        return ()
    if _profiles(a) and _profiles(a) == _profiles(b):
        return ()
    known = False
    for context, labels in a.perturbations.items():
        theirs = dict(zip(b.perturbations[context], b.cells[context], strict=True))
        pairs = [(x, theirs[label]) for label, x in zip(labels, a.cells[context], strict=True)]
        pairs = [pair for pair in pairs if not np.isnan(pair).any()]
        odd = sum(x != y for x, y in pairs)
        if odd:
            raise _other_screen(a, b, f"{odd} of {len(labels)} perturbations have other numbers of measured cells")
        known |= bool(pairs)
    told = "has equal numbers of cells" if known else "could not be checked"
    return (f"the stamps do not say whether both runs are of one measured screen: it {told}",)


def _fingerprint(run: Results, kind: str) -> str:
    return str(((run.stamp.get("fingerprints") or {}).get(kind) or {}).get("real") or "")


def _profiles(run: Results) -> dict[str, Any]:
    found = (run.stamp.get("fingerprints") or {}).get("profiles") or {}
    return {context: sides.get("real") for context, sides in found.items()}


def _other_screen(a: Results, b: Results, where: str) -> Refusal:
    return Refusal(
        what="The two runs are of different measured screens.",
        where=f"{a.source or 'A'}, {b.source or 'B'}: {where}",
        why="What one model scores on other cells says nothing about the other model.",
        fix="Evaluate both predictions against the same measured file.",
    )


def _plain(x: Any) -> str:
    """Settings as they read after a way through a file."""
    return json.dumps(x, sort_keys=True, default=str)
