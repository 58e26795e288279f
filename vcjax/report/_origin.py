"""Where the numbers come from: notes, settings, versions, inputs."""

import json
from collections.abc import Mapping
from typing import Any

from ._content import Content
from ._markup import bullets, element, Markup, section, table


_LONGEST = 160


def origin(content: Content) -> Markup:
    """Everything that is needed to make the page again."""
    stamp = content.stamp
    parts = [_notes(stamp), _not_provided(stamp), _inputs(stamp)]
    facts = {
        name: stamp[name] for name in ("device", "dtype", "preset", "source", "digest", "created") if name in stamp
    }
    facts |= {f"seed of {name}": seed for name, seed in (stamp.get("seeds") or {}).items()}
    parts.append(_facts("Run", facts))
    parts.append(_facts("Settings", stamp.get("settings") or {}))
    parts.append(_facts("Versions", stamp.get("versions") or _versions()))
    return section("origin", "Where the numbers come from", *parts)


def _versions() -> Mapping[str, str]:
    from ..evaluation import versions

    return versions()


def _notes(stamp: Mapping[str, Any]) -> Markup:
    notes = list(stamp.get("notes") or [])
    return element("div", element("h3", "Notes"), bullets(notes)) if notes else Markup()


def _not_provided(stamp: Mapping[str, Any]) -> Markup:
    names = stamp.get("not_provided") or []
    told = f"Members of the profile that this release does not compute: {', '.join(map(str, names))}."
    return element("p", told) if names else Markup()


def _inputs(stamp: Mapping[str, Any]) -> Markup:
    inputs = stamp.get("inputs") or {}
    prints = (stamp.get("fingerprints") or {}).get("screens") or {}
    if not inputs:
        return Markup()
    words = {"pred": "prediction", "real": "measurement", "de_pred": "table of the prediction"}
    words |= {"de_real": "table of the measurement"}
    rows = [[words.get(side, side), path, element("code", prints.get(side) or "–")] for side, path in inputs.items()]
    shown = table(["input", "file", "fingerprint"], rows, text=(0, 1, 2), wide=(1, 2))
    return element("div", element("h3", "Inputs"), shown)


def _facts(title: str, facts: Mapping[str, Any]) -> Markup:
    if not facts:
        return Markup()
    rows = [[name, element("code", _value(value))] for name, value in facts.items()]
    return element("div", element("h3", title), table(["name", "value"], rows, text=(0, 1), wide=(1,)))


def _value(value: Any) -> str:
    """One line; of a long one the beginning, with its length."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[:_LONGEST]}… ({left:,} more characters in run_meta.json)"
