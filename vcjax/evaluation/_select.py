"""From the names a user types to rows of the catalogue, or a refusal that says what was meant."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ..io import Refusal
from ..metrics import CATALOGUE, Cosine, L1, L2, Metric
from ..metrics._rows import discrimination
from ..weights import RECIPES, WeightRecipe
from ._presets import Preset, PRESETS
from ._profiles import ALIASES


Exclude = Literal["own", "panel", "none"]

_DISTANCES = {"l1": L1(), "l2": L2(), "cosine": Cosine()}


@dataclasses.dataclass(frozen=True)
class Selection:
    """The metrics of one evaluation, in the order of the report, and the members of the profile that it leaves out."""

    preset: Preset
    profile: str | None
    metrics: Mapping[str, Metric]
    not_provided: tuple[str, ...]
    exclude_targets: Exclude | None = None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or an empty string where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    near = near or difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""


def get_preset(preset: str | Preset) -> Preset:
    """The preset of that name.

    **Raises:** `Refusal` for an unknown name.
    """
    if isinstance(preset, Preset):
        return preset
    name = ALIASES.get(preset, preset)
    if name not in PRESETS:
        raise Refusal(
            what=f"There is no preset {preset!r}.{did_you_mean(preset, [*PRESETS, *ALIASES])}",
            where="preset= / --preset",
            why="A preset decides the control, ties and excluded genes: a guess would change every score.",
            fix=f"Use one of: {', '.join(PRESETS)} (see `vcjax list presets`).",
        )
    return PRESETS[name]


def get_recipe(recipe: str | WeightRecipe) -> WeightRecipe:
    """The recipe of gene weights of that name.

    **Raises:** `Refusal` for an unknown name.
    """
    if isinstance(recipe, WeightRecipe):
        return recipe
    if recipe not in RECIPES:
        raise Refusal(
            what=f"There is no recipe of gene weights {recipe!r}.{did_you_mean(recipe, RECIPES)}",
            where="weights= / --weights",
            why="Another recipe would weigh other genes.",
            fix=f"Use one of: {', '.join(RECIPES)}.",
        )
    return RECIPES[recipe]


def find_metric(name: str, preset: Preset | None = None) -> tuple[str, Metric]:
    """A row by its own name or by its name in cell-eval or cell-eval2; the preset's rows come first.

    **Raises:** `Refusal` for a name that no row has.
    """
    tables = [CATALOGUE] if preset is None else [preset.metrics, CATALOGUE]
    for table in tables:
        if name in table:
            return name, table[name]
        for key, row in table.items():
            if name in (row.v1, row.v2):
                return key, row
    known = {label for table in tables for key, row in table.items() for label in (key, row.v1, row.v2) if label}
    future = sorted({member for p in PRESETS.values() for members in p.profiles.values() for member in members} - known)
    if name in future:
        raise Refusal(
            what=f"This release does not compute {name!r}.",
            where="metrics= / --metrics",
            why=_reason(name, "It must not vanish from a report without a word."),
            fix=f"Leave it out. Metrics that are computed: {', '.join(tables[0])}.",
        )
    raise Refusal(
        what=f"There is no metric {name!r}.{did_you_mean(name, known)}",
        where="metrics= / --metrics, skip= / --skip-metrics",
        why="A misspelt name would otherwise leave a metric out of the report.",
        fix="See `vcjax list metrics` (names of cell-eval and cell-eval2 are understood).",
    )


def _reason(name: str, otherwise: str) -> str:
    """Why no preset computes a metric."""
    return next((f"It is left out: {p.left_out[name]}." for p in PRESETS.values() if name in p.left_out), otherwise)


def select(
    preset: str | Preset,
    profile: str | None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    exclude_targets: Exclude | None = None,
) -> Selection:
    """The rows to compute: `metrics` by name, or else the members of `profile`; less `skip`.

    `exclude_targets` changes which target genes discrimination scores leave out of the distances.

    **Raises:** `Refusal` for unknown names, for a profile with members that this release does not compute (unless all
    of them are skipped by name), and if nothing is left.
    """
    preset = get_preset(preset)
    if metrics is not None:
        rows = dict(find_metric(name, preset) for name in metrics)
        dropped, missing, profile = {find_metric(name, preset)[0] for name in skip}, (), None
    else:
        profile = profile or preset.default
        members = _members(preset, profile)
        dropped = {_skipped(name, preset, members) for name in skip}
        missing = tuple(name for name in members if name not in preset.metrics and name not in dropped)
        _refuse_unprovided(preset, profile, [name for name in missing if name not in preset.left_out])
        rows = {name: preset.metrics[name] for name in members if name in preset.metrics}
    chosen = {name: row for name, row in rows.items() if name not in dropped}
    if not chosen:
        raise Refusal(
            what="No metric is left to compute.",
            where="metrics= / --metrics, skip= / --skip-metrics",
            why="An empty report reads like a finished evaluation.",
            fix="Skip fewer metrics, or name some: --metrics pds_l1,expr_mse.",
        )
    if exclude_targets is not None:
        chosen = {name: _excluding(preset, row, exclude_targets) for name, row in chosen.items()}
    return Selection(preset, profile, chosen, missing, exclude_targets)


def _excluding(preset: Preset, row: Metric, exclude: Exclude) -> Metric:
    found = re.fullmatch(r"(?:pds|discrimination_score)_(l1|l2|cosine)", row.name)
    return row if found is None else _rank_row(row, found[1], exclude, tuple(preset.rank_options.items()))


@functools.cache  # one object a variant, or each evaluation would compile its own
def _rank_row(row: Metric, kind: str, exclude: Exclude, options: tuple[tuple[str, str], ...]) -> Metric:
    function = discrimination(_DISTANCES[kind], exclude=exclude, **dict(options))  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(row, function=function, needs_targets=exclude != "none")


def _members(preset: Preset, profile: str) -> tuple[str, ...]:
    if profile not in preset.profiles:
        elsewhere = [other.name for other in PRESETS.values() if profile in other.profiles]
        hint = f" Preset {elsewhere[0]!r} has it." if elsewhere else did_you_mean(profile, preset.profiles)
        raise Refusal(
            what=f"Preset {preset.name!r} has no profile {profile!r}.{hint}",
            where="profile= / --profile",
            why="The profile decides which metrics are in the report.",
            fix=f"Use one of: {', '.join(name for name in preset.profiles if preset.provided(name))}.",
        )
    return preset.profiles[profile]


def _skipped(name: str, preset: Preset, members: tuple[str, ...]) -> str:
    return name if name in members else find_metric(name, preset)[0]


def _refuse_unprovided(preset: Preset, profile: str, missing: list[str]) -> None:
    if not missing:
        return
    provided = [name for name in preset.profiles if preset.provided(name)]
    raise Refusal(
        what=f"This release does not compute {len(missing)} members of profile {profile!r}: {', '.join(missing)}.",
        where=f"profile= / --profile {profile}, preset {preset.name!r} ({preset.source})",
        why="Without them it is not the profile that others report.",
        fix=f"Use --profile {' or '.join(provided)}, or name metrics: --metrics {next(iter(preset.metrics))},…",
    )
