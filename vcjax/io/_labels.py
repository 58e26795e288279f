"""Which cell belongs to which perturbation and context, from the columns of `obs`."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._errors import listing, Refusal, suggestion


PERT_COLUMNS = ("target_gene", "target", "perturbation", "gene", "condition")
_NO_LABEL = ("", "nan", "NaN", "NA", "<NA>", "None")  # what a missing label looks like once something made it a string


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the cells of one screen, as in `Screen`, and the line that says how they were found."""

    perts: tuple[str, ...]
    codes: np.ndarray
    control: str
    contexts: tuple[str, ...]
    context_codes: np.ndarray | None
    notes: tuple[str, ...]

    def of(self, cell: int) -> str:
        """The label of a cell, for a message."""
        code = int(self.codes[cell])
        return self.perts[code] if code >= 0 else (self.control if code == -1 else "left out")


def read_labels(
    obs: Any,
    name: str,
    *,
    pert_col: str | None,
    control: str,
    context_col: str | None,
    drop_unlabelled: bool,
    require_control: bool,
) -> Labels:
    """Labels as strings, whatever the dtype of the columns; categories that no cell has do not count.

    **Raises:** `Refusal` for a column that is absent or ambiguous, for cells without a label (unless
    `drop_unlabelled`), for a control that no cell carries (unless not `require_control`), and for a screen of nothing
    but controls.
    """
    if len(obs) == 0:
        raise Refusal(
            what="There are no cells.", where=name, why="There is nothing to score.", fix="check the filters."
        )
    notes = [] if obs.index.is_unique else ["cell names are not unique (cells are never looked up by name)"]
    column, note = choose_column(list(obs.columns), name, pert_col)
    notes += [note] if note else []
    names, codes = as_codes(obs[column], keep=control)
    contexts, context_codes = (), None
    if context_col is not None:
        _check_column(list(obs.columns), name, context_col, "context_col", "--context-col")
        context_names, context_codes = as_codes(obs[context_col])
        contexts = tuple(context_names)
    unlabelled = codes < 0 if context_codes is None else (codes < 0) | (context_codes < 0)
    if unlabelled.any():
        bad = np.flatnonzero(unlabelled)
        columns = column if context_col is None else f"{column} or {context_col}"
        if not drop_unlabelled:
            raise Refusal(
                what=f"{len(bad)} of {len(codes)} cells have no label.",
                where=f"{name}, obs column {columns}, rows {listing(bad)}",
                why='They would form a perturbation called "nan" and be scored as one.',
                fix="label them, or leave them out with `drop_unlabelled=True` (`--drop-unlabelled`).",
            )
        notes.append(f"{len(bad)} cells without a label in {columns} were left out")
    if require_control and control not in names:
        raise _no_control(name, column, names, codes, control)
    perts = tuple(label for label in names if label != control)
    codes = _split_control(names, codes, control)
    if unlabelled.any():
        codes[unlabelled] = -2
    if not np.any(codes >= 0):
        raise Refusal(
            what="There is no perturbed cell.",
            where=f"{name}, obs column {column}: every label is {control!r}",
            why="There is nothing to score.",
            fix="name the column that holds the perturbations: `pert_col=` (`--pert-col`).",
        )
    return _without_empty(Labels(perts, codes, control, contexts, context_codes, tuple(notes)))


def choose_column(columns: Sequence[str], name: str, wanted: str | None) -> tuple[str, str]:
    """The column of perturbation labels and, where it was not named by the caller, a note that says which it is.

    **Raises:** `Refusal` if the named column is absent, or if none or several of `PERT_COLUMNS` are there.
    """
    if wanted is not None:
        _check_column(columns, name, wanted, "pert_col", "--pert-col")
        return wanted, ""
    found = [column for column in PERT_COLUMNS if column in columns]
    if len(found) == 1:
        return found[0], f"perturbation labels were read from obs column {found[0]!r}"
    raise Refusal(
        what="Several columns may hold the perturbation." if found else "No column is known to hold the perturbation.",
        where=f"{name}, obs has " + (f"all of {listing(found, 5)}" if found else listing(columns, 12) or "no columns"),
        why="Cells grouped by the wrong column give a score of something else.",
        fix=f'name it: `pert_col="{found[0] if found else "..."}"` (`--pert-col`).',
    )


def _check_column(columns: Sequence[str], name: str, wanted: str, keyword: str, flag: str) -> None:
    if wanted not in columns:
        raise Refusal(
            what=f"There is no obs column {wanted!r}.{suggestion(wanted, [str(column) for column in columns])}",
            where=f"{name}, obs has {listing(columns, 12) or 'no columns'}",
            why="Cells cannot be grouped without their labels.",
            fix=f"name one of these: `{keyword}=` (`{flag}`).",
        )


def as_codes(column: Any, keep: str | None = None) -> tuple[list[str], np.ndarray]:
    """The distinct labels of a column as sorted strings, and for each cell the index of its own, -1 where it has none.

    `keep` is a label that counts although it reads like a missing one.
    """
    import pandas as pd

    factor = pd.Categorical(column)
    # The categories of a column may coincide once they are strings (1 and "1").
    texts = [category.decode() if isinstance(category, bytes) else str(category) for category in factor.categories]
    used = np.bincount(factor.codes[factor.codes >= 0], minlength=len(texts)) > 0
    present = [text if text == keep or text.strip() not in _NO_LABEL else None for text in texts]
    names = sorted({text for text, is_used in zip(present, used, strict=True) if is_used and text is not None})
    index = {text: i for i, text in enumerate(names)}
    table = np.array([index.get(text, -1) if text is not None else -1 for text in present] + [-1], np.int32)
    return names, table[factor.codes]


def _split_control(names: list[str], codes: np.ndarray, control: str) -> np.ndarray:
    """Indices into the labels without the control, which becomes -1; a cell without a label stays below -1."""
    table = np.array([-1 if label == control else i for i, label in enumerate(names)] + [-2], np.int32)
    if control in names:
        table[names.index(control) + 1 : -1] -= 1
    return table[codes]


def _without_empty(labels: Labels) -> Labels:
    """Labels of which at least one cell is left: others go, so that nothing is scored on no cells."""
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.perts))
    kept = np.flatnonzero(counts)
    if len(kept) == len(labels.perts):
        return labels
    table = np.full(len(labels.perts) + 2, -2, np.int32)
    table[kept], table[-1] = np.arange(len(kept)), -1
    return dataclasses.replace(labels, perts=tuple(labels.perts[i] for i in kept), codes=table[labels.codes])


def _no_control(name: str, column: str, names: list[str], codes: np.ndarray, control: str) -> Refusal:
    counts = Counter(dict(enumerate(np.bincount(codes[codes >= 0], minlength=len(names)).tolist())))
    frequent = [f"{names[i]} ({n})" for i, n in counts.most_common(10)]
    return Refusal(
        what=f"No cell is labelled {control!r}, the control.{suggestion(control, names)}",
        where=f"{name}, obs column {column}; the most frequent labels are {', '.join(frequent) or '(none)'}",
        why="Effects are measured from the control cells.",
        fix='name the label of the control cells: `control="..."` (`--control-pert`).',
    )
