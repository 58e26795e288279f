"""The one exception of this package for input that cannot be scored honestly."""

import difflib
import os
import pathlib
from collections.abc import Iterable, Sequence


class Refusal(ValueError):
    """Input that is refused, in four parts: what is wrong, where, why it matters for the score, and what fixes it.

    **Fields:** `what`, `where` (file, row, column or label, the first few), `why`, `fix` (one keyword, flag or line).
    The message puts them on four lines, in this order.
    """

    def __init__(self, *, what: str, where: str, why: str, fix: str) -> None:
        super().__init__(f"{what}\n  where: {where}\n  why:   {why}\n  fix:   {fix}")
        self.what, self.where, self.why, self.fix = what, where, why, fix

    def __reduce__(self) -> tuple:
        # An exception with keyword-only arguments crosses a process boundary only if told how.
        return _rebuild, (self.what, self.where, self.why, self.fix)


def _rebuild(what: str, where: str, why: str, fix: str) -> Refusal:
    return Refusal(what=what, where=where, why=why, fix=fix)


def listing(items: Iterable[object], limit: int = 3) -> str:
    """The first few of `items` with the number of those left out: `A, B, C and 12 more`."""
    items = [str(item) for item in items]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def suggestion(word: str, choices: Sequence[str]) -> str:
    """` Did you mean X?` for the choice nearest to `word`, ignoring case; empty where none is near."""
    by_lower = {choice.lower(): choice for choice in reversed(choices)}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def no_file(path: pathlib.Path, *, why: str, fix: str) -> Refusal:
    """What to raise for a path that leads nowhere, with the files beside it."""
    siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
    return Refusal(
        what=f"There is no file {str(path)!r}.{suggestion(path.name, siblings)}",
        where=f"folder {path.parent}: {listing(siblings, 8) or 'absent or empty'}",
        why=why,
        fix=fix,
    )
