"""Which perturbations of the measured side the prediction has, lacks, or has in excess."""

import difflib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ._errors import listing, Refusal
from ._screen import Screen


Missing = Literal["refuse", "nan", "worst", "skip"]
Extra = Literal["refuse", "ignore"]
_SUFFIX = re.compile(r"([-_.](sg|g|guide)?\d{1,2}|\+(ctrl|control|non-targeting))$", re.IGNORECASE)
_PREFIX = re.compile(r"^(ctrl|control|non-targeting)\+", re.IGNORECASE)


def pair_codes(screen: Screen, perts: Sequence[str], contexts: Sequence[str]) -> np.ndarray:
    """For each cell the number `perturbation · contexts + context` in terms of these lists; -1 if it is in neither."""
    codes = recode(screen.codes, screen.perts, perts)
    if screen.context_codes is None:
        return np.where(codes >= 0, codes, -1)
    places = recode(screen.context_codes, screen.contexts, contexts)
    return np.where((codes >= 0) & (places >= 0), codes * len(contexts) + places, -1)


def recode(codes: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    """Indices into `old` as indices into `new`, -2 for a label that is not there; negative codes stay."""
    index = {label: i for i, label in enumerate(new)}
    table = np.array([index.get(label, -2) for label in old] + [-2, -1], np.int32)
    return table[codes]


def refuse_missing(missing: Sequence[str], extra: Sequence[str], total: int, pred: str) -> Refusal:
    """The refusal for perturbations that the prediction lacks, with the labels that may have been meant."""
    alike = {label: match for label in missing[:8] if (match := respelt(label, extra))}
    close = {label: match for label in missing[:8] if (match := similar(label, extra))}
    near = (close | alike).items()
    hint = "; perhaps " + listing((f"{match!r} is {label!r}" for label, match in near), 5) if near else ""
    renamed = ", ".join(f"{match!r}: {label!r}" for label, match in list(alike.items())[:3])
    return Refusal(
        what=f"The prediction lacks {len(missing)} of {total} measured perturbations.",
        where=f"{pred} has no cells of {listing(missing, 8)}{hint}",
        why="A score over the others alone would reward leaving out what is hard.",
        fix=f"rename them: `adata.obs[column] = adata.obs[column].astype(str).replace({{{renamed}}})`."
        if alike
        else 'predict them, or choose how they count: `missing="worst"`, `"nan"` or `"skip"` (`--missing worst`).',
    )


def refuse_extra(extra: Sequence[str], pred: str) -> Refusal:
    """The refusal for perturbations (or contexts) that only the prediction has."""
    return Refusal(
        what=f"The prediction has {len(extra)} perturbations that were not measured.",
        where=f"{pred}: {listing(extra, 8)}",
        why="They cannot be scored, and may be measured ones under another name.",
        fix='leave them out: `extra="ignore"` (`--extra ignore`).',
    )


def respelt(label: str, choices: Sequence[str]) -> str | None:
    """The choice that is `label` up to case, spaces, and a guide suffix or a `+ctrl` that only one of the two has."""
    plain, bare = _plain(label), _bare(label)
    for choice in choices:
        # Not `_bare` of both: NKX2-1 and NKX2-2 are two genes.
        if plain in (_plain(choice), _bare(choice)) or bare == _plain(choice):
            return choice
    return None


def similar(label: str, choices: Sequence[str]) -> str | None:
    """The choice that is spelt most like `label`; among names of genes it may well be another one."""
    close = difflib.get_close_matches(label, choices, n=1, cutoff=0.75)
    return close[0] if close else None


def _plain(label: str) -> str:
    return label.strip().casefold()


def _bare(label: str) -> str:
    return _SUFFIX.sub("", _PREFIX.sub("", _plain(label)))
