"""Scores of a prediction's aggregates between those of a baseline and of a perfect prediction, or of a replicate."""

import csv
import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import TypeAlias

import jax

from .._files import replacing
from ..io import Refusal
from ..io._errors import listing, suggestion
from ..scores import cell_eval_policy, scaled_score, ScorePolicy, V2_POLICIES
from ._presets import Preset
from ._select import get_preset


Aggregates: TypeAlias = str | os.PathLike | Mapping[str, float]

# What is scored by the challenges: a baseline that is useless there must not vanish from the average.
_REQUIRED_V2 = (
    *("expr_mse_unbiased_capped_norm", "pds_cosine", "de_wilcoxon_direction_fidelity_yield_raw"),
    *("de_wilcoxon_direction_reach_raw", "de_wilcoxon_sig_jaccard", "de_wilcoxon_lfc_nmae"),
    *("expr_mae", "pds_l1", "de_wilcoxon_overlap"),
)


@dataclasses.dataclass(frozen=True)
class Scores:
    """One score a metric (errors first), their plain mean, and the metrics whose baseline left no room for a score."""

    values: Mapping[str, float]
    average: float
    dropped: tuple[str, ...] = ()

    def write(self, path: str | os.PathLike) -> None:
        """Writes `metric,from_baseline`, the average in the last row, as the peers do."""
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, open(partial, "w", newline="") as file:
            rows = [*self.values.items(), ("avg_score", self.average)]
            csv.writer(file, lineterminator="\n").writerows([("metric", "from_baseline"), *rows])


def score(
    user: Aggregates,
    base: Aggregates,
    *,
    preset: str | Preset = "v2",
    replicate: Aggregates | None = None,
    clipped: bool = True,
) -> Scores:
    """How far a prediction has come from the baseline towards perfection, for each metric, and on average.

    Diagnostics, which have no good direction, are not scored.

    **Arguments:**

    - `user`, `base`: aggregates of the prediction and of the baseline: an `agg_results.csv` (either layout), or a
        mapping from metric to value (`{row.metric: row.value for row in report.aggregates}`).
    - `preset`: whose rules: `"v2"` (each metric's own anchor, floor and penalty), or `"cell_eval"` (linear, cut at 0,
        undefined values count 0).
    - `replicate`: aggregates of a measured replicate, which then scores 1 in the place of perfection (`"v2"` only).
    - `clipped`: for `"cell_eval"`, whether to cut scores at 0; without, a prediction worse than the baseline shows.

    **Raises:** `Refusal` for files that are not aggregates, for different metrics on the two sides, and under `"v2"`
    for a baseline that leaves no room in a metric that a challenge scores.
    """
    preset = get_preset(preset)
    values, bases = read_aggregates(user), read_aggregates(base)
    anchors = None if replicate is None else read_aggregates(replicate)
    _check(values, bases, anchors, preset)
    rows = {name: preset.metrics[name] for name in values if name in preset.metrics}
    perfect = {
        name: 1.0 if row.higher_is_better else 0.0 for name, row in rows.items() if row.higher_is_better is not None
    }
    # What only the peer computes is a score up to 1, too.
    perfect |= {name: 1.0 for name in values if name in preset.left_out}
    if not perfect:
        raise Refusal(
            what="No metric can be scored.",
            where=f"{listing(values, 8) or 'no columns'}; preset {preset.name!r}",
            why="An average of nothing is no score.",
            fix="Use the preset that computed the aggregates: preset= / --preset.",
        )
    ordered = sorted((name for name in values if name in perfect), key=lambda name: perfect[name])
    if preset.statistics == "describe":
        return _score_v1({name: perfect[name] for name in ordered}, values, bases, clipped)
    return _score_v2(ordered, values, bases, anchors)


def _score_v1(perfect: Mapping[str, float], values, bases, clipped: bool) -> Scores:
    found = {name: _scaled(values[name], bases[name], cell_eval_policy(x, clip=clipped)) for name, x in perfect.items()}
    # What cannot be divided, or is undefined, is no better than the baseline.
    found = {name: 0.0 if math.isnan(x) else x for name, x in found.items()}
    return Scores(found, sum(found.values()) / len(found))


def _score_v2(names: list[str], values, bases, anchors) -> Scores:
    found, dropped = {}, []
    for name in names:
        anchor = None if anchors is None else anchors[name]
        value = _scaled(values[name], bases[name], V2_POLICIES[name], anchor)
        if not math.isnan(value):
            found[name] = value
        elif name not in _REQUIRED_V2 or (math.isnan(bases[name]) and math.isnan(values[name])):
            dropped.append(name)
        else:
            raise Refusal(
                what=f"The baseline leaves no room in {name!r}: {bases[name]}.",
                where=f"anchor {V2_POLICIES[name].anchor if anchor is None else anchor}",
                why="A score divides by the distance between the baseline and the anchor.",
                fix="Score against another baseline: base= / --base-input.",
            )
    average = sum(found.values()) / len(found) if found else math.nan
    return Scores(found, average, tuple(dropped))


def _scaled(value: float, base: float, policy: ScorePolicy, anchor: float | None = None) -> float:
    with jax.enable_x64(True):
        return float(scaled_score(value, base, policy, anchor=anchor))


def read_aggregates(source: Aggregates) -> dict[str, float]:
    """The value of each metric from an `agg_results.csv`: its row `mean`, or its columns `metric` and `mean`.

    **Raises:** `Refusal` for anything else.
    """
    if isinstance(source, Mapping):
        return {name: float(x) for name, x in source.items()}
    path = pathlib.Path(source)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise _not_aggregates(path, str(error).splitlines()[0]) from error
    try:
        if header[0] == "statistic":
            found = next(dict(zip(header[1:], row[1:], strict=True)) for row in rows if row[0] == "mean")
        else:
            place = header.index("metric"), header.index("mean" if "mean" in header else "value")
            found = {row[place[0]]: row[place[1]] for row in rows}
        return {name: float(text) if text else math.nan for name, text in found.items()}
    except (ValueError, IndexError, StopIteration) as error:
        raise _not_aggregates(path, f"columns {listing(header, 5)}") from error


def _check(values, bases, anchors, preset: Preset) -> None:
    for other, name in ((bases, "baseline"), (anchors, "replicate")):
        odd = [] if other is None else sorted(set(values) ^ set(other))
        if odd:
            near = suggestion(odd[0], sorted(set(values) & set(other or ())))
            raise Refusal(
                what=f"The prediction and the {name} were evaluated in different metrics.",
                where=f"only on one side: {listing(odd, 8)}.{near}",
                why="An average over other metrics is another score.",
                fix="Evaluate both with the same preset and profile: vcjax run --preset … --profile ….",
            )
    if anchors is not None and preset.statistics == "describe":
        raise Refusal(
            what=f"Preset {preset.name!r} has no scale between a baseline and a replicate.",
            where="replicate= / --replicate",
            why="Its score ends at perfection.",
            fix="Leave it out, or use preset='v2' / --preset v2.",
        )


def _not_aggregates(path: pathlib.Path, cause: str) -> Refusal:
    return Refusal(
        what="The file holds no aggregates.",
        where=f"{path}: {cause}",
        why="Values of single perturbations, or of something else, would be scored as if they were means.",
        fix="Give the agg_results.csv that `vcjax run` writes: user=, base= / --user-input, --base-input.",
    )
