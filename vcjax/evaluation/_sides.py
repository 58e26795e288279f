"""From what the caller hands over to two screens or summaries that belong together."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, TypeVar

from anndata import AnnData

from ..io import match_screens, read_screen, Refusal, Screen, Summary
from ._pair import Extra, Missing


Source: TypeAlias = str | os.PathLike | AnnData | Screen | Summary
InputType = Literal["auto", "counts", "lognorm", "delta"]
_First = TypeVar("_First")
_Second = TypeVar("_Second")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files become screens, and how the two sides are matched; every default refuses rather than repairs."""

    pert_col: str | None = None
    control: str = "non-targeting"
    context_col: str | None = None
    input_type_pred: InputType = "auto"
    input_type_real: InputType = "auto"
    target_map: str | os.PathLike | Mapping[str, str | None] | None = None
    genes: Literal["match", "intersect", "strict"] = "match"
    dedup: Literal["refuse", "sum", "first"] = "refuse"
    drop_unlabelled: bool = False
    nan: Literal["refuse", "zero"] = "refuse"
    layer: str | None = None
    gene_col: str | None = None
    missing: Missing = "refuse"
    extra: Extra = "refuse"
    min_cells: int = 1
    match_cells: bool = False
    seed: int = 0
    max_total: float | None = None


@dataclasses.dataclass(frozen=True)
class Sides:
    """Both sides, read and matched, with what is worth saying about them."""

    pred: Screen | Summary
    real: Screen | Summary
    notes: tuple[str, ...]
    inputs: Mapping[str, str]
    fingerprints: Mapping[str, str]


def read_sides(
    pred: Source, real: Source, reading: Reading, *, max_memory: int | None = None, keep: bool = False
) -> Sides:
    """Reads, checks and matches both sides.

    `keep`: the cells stay in memory once they are read, unless that is bounded or only some of them will be used.

    **Raises:** `Refusal` for every fault of the files that would make a score dishonest.
    """
    keep = keep and max_memory is None and not reading.match_cells
    read = functools.partial(read_side, reading=reading, max_memory=max_memory, keep=keep)
    real_side, pred_side = at_once(
        functools.partial(read, real, input_type=reading.input_type_real, require_control=True),
        functools.partial(read, pred, input_type=reading.input_type_pred, require_control=False),
    )
    inputs = {"pred": _name(pred), "real": _name(real)}
    fingerprints = {"pred": pred_side.fingerprint, "real": real_side.fingerprint}
    notes = (*_side_notes("real", real_side), *_side_notes("pred", pred_side))
    if isinstance(pred_side, Screen) and isinstance(real_side, Screen):
        pred_side, real_side, matching = match_screens(
            *(pred_side, real_side),
            genes=reading.genes,
            missing=reading.missing,
            extra=reading.extra,
            min_cells=reading.min_cells,
            match_cells=reading.match_cells,
            seed=reading.seed,
        )
        notes = (*notes, *matching)
    elif real_side.scale != pred_side.scale:
        raise Refusal(
            what=f"The prediction holds {pred_side.scale}, the measured side {real_side.scale}.",
            where=f"{inputs['pred']}, {inputs['real']}",
            why="Errors between two scales say nothing about the prediction.",
            fix="Give both on one scale (input_type_pred=, input_type_real= / --input-type-pred, --input-type-real).",
        )
    return Sides(pred_side, real_side, notes, inputs, fingerprints)


def at_once(first: Callable[[], _First], second: Callable[[], _Second]) -> tuple[_First, _Second]:
    """Both results, each from a thread of its own: most of the work is numpy's, which does not hold the interpreter.

    If both fail, the failure of `first` is raised.
    """
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(first), pool.submit(second)
        return one.result(), other.result()


def read_side(
    source: Source,
    reading: Reading,
    input_type: InputType,
    *,
    require_control: bool,
    max_memory: int | None = None,
    keep: bool = False,
) -> Screen | Summary:
    """One side as a screen, unless it came as a screen or a summary."""
    if isinstance(source, Screen | Summary):
        return source
    return read_path(source, reading, input_type, require_control=require_control, max_memory=max_memory, keep=keep)


def read_path(
    source: str | os.PathLike | AnnData,
    reading: Reading,
    input_type: InputType,
    *,
    require_control: bool,
    max_memory: int | None = None,
    keep: bool = False,
) -> Screen:
    """A screen read as the options say."""
    return read_screen(
        source,
        pert_col=reading.pert_col,
        control=reading.control,
        context_col=reading.context_col,
        input_type=input_type,
        gene_col=reading.gene_col,
        layer=reading.layer,
        require_control=require_control,
        drop_unlabelled=reading.drop_unlabelled,
        dedup=reading.dedup,
        nan=reading.nan,
        max_total=reading.max_total,
        max_memory=max_memory,
        keep=keep,
    )


def _side_notes(side: str, data: Screen | Summary) -> tuple[str, ...]:
    if isinstance(data, Summary):
        return ()
    return tuple(f"{side}: {note}" for note in (data.scale_verdict, *data.notes) if note)


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return source.name if isinstance(source, Screen) else type(source).__name__
