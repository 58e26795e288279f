"""The measured side on disk, summarised once for many predictions, and refused where it is not the same thing."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, TYPE_CHECKING

from .._files import replacing
from ..io import load_summary, Refusal, Screen, Summary


if TYPE_CHECKING:
    from ._plan import Plan


def cached_summary(plan: "Plan", context: str, make: Callable[[], Summary]) -> Summary:
    """The measured summary from `plan.cache_real`, or made and saved there where no file is.

    Beside the summary lies a `.json` with the fingerprint of the screen and the settings behind it.

    **Raises:** `Refusal`, saying which setting differs, if the file belongs to another screen or other settings.
    """
    path = cache_path(plan.cache_real or "", context)
    stamp = path.with_name(f"{path.name}.json")
    key = _key(plan, context)
    if path.exists():
        _check(path, stamp, key)
        return load_summary(path)
    summary = make()
    save_cached(plan, context, summary)
    return summary


def save_cached(plan: "Plan", context: str, summary: Summary) -> None:
    """Writes the summary, and beside it what it was made of, over what is there."""
    path = cache_path(plan.cache_real or "", context)
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = path.with_name(f"{path.name}.json")
    summary.save(path)
    key = _key(plan, context)
    if summary.de is not None and plan.tables is not None:
        key["de"] = dataclasses.asdict(plan.tables.settings)
    with replacing(stamp) as partial:
        partial.write_text(json.dumps(key, indent=2) + "\n")


def cache_path(path: str | os.PathLike, context: str) -> pathlib.Path:
    """The file of one context: the path itself without contexts, or else with the context before its suffix."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.{context.replace('/', '-')}{path.suffix}") if context else path


def check_cache(plan: "Plan") -> None:
    """Refuses a cache that cannot serve this plan; touches nothing."""
    for context in plan.contexts if plan.cache_real is not None else ():
        path = cache_path(plan.cache_real or "", context)
        for source in plan.sides.inputs.values():
            if os.path.exists(source) and path.resolve() == pathlib.Path(source).resolve():
                raise Refusal(
                    what="The cache would be written over an input.",
                    where=str(path),
                    why="The data would be lost.",
                    fix="Name another file: cache_real= / --cache-real.",
                )
        if path.exists():
            _check(path, path.with_name(f"{path.name}.json"), _key(plan, context))


def _key(plan: "Plan", context: str) -> dict[str, Any]:
    real = plan.sides.real
    return {
        "screen": real.fingerprint,
        "context": context,
        "control": real.control if isinstance(real, Screen) else None,
        "scale": real.scale,
        "space": plan.space,
        "target_sum": plan.target_sum,
        "genes": len(real.genes),
        "perturbations": len(real.perts),
        "targets": plan.targets.tolist(),
        "de": None if plan.tables is None else dataclasses.asdict(plan.tables.settings),
    }


def _check(path: pathlib.Path, stamp: pathlib.Path, key: dict[str, Any]) -> None:
    try:
        found = json.loads(stamp.read_text())
        # A table that is not there yet, or that nobody asks for, is no contradiction.
        same = lambda name: found.get(name) == key[name] or (name == "de" and None in (found.get(name), key[name]))
        differing = [name for name in key if not same(name)]
    except (OSError, ValueError, AttributeError):
        found, differing = {}, ["its description is missing or unreadable"]
    if differing:
        told = [name for name in differing if name in key and name not in ("targets", "de")]
        short = [f"{name}: {found.get(name)} there, {key[name]} here" for name in told]
        raise Refusal(
            what=f"The cached summary is not of this measured side: {', '.join(differing)}.",
            where="; ".join([str(path), *short]),
            why="Scores against another measured side, or another space, are not comparable.",
            fix="Name another file, or delete this one to make it again: cache_real= / --cache-real.",
        )
