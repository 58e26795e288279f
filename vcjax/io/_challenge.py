"""What a challenge accepts, and one refusal for everything in a submission that it does not."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Literal

from ._csv import read_csv
from ._errors import listing, no_file, Refusal


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a submission must be. `None` means that nothing is said.

    **Fields:** `name` of the preset, `date` and `source` of the rules; numbers of `genes`, of perturbations (`perts`)
    and of cells of each (`cells_per_pert`), in each context; the most cells of all (`max_cells`), counts of a cell
    (`max_total`) and stored values (`max_entries`); whether `control` cells must be there; whether values must be raw
    `counts`, and be stored in `sparse` form.
    """

    name: str
    date: str
    source: str
    genes: int | None = None
    perts: int | None = None
    cells_per_pert: int | None = None
    max_cells: int | None = None
    max_total: float | None = None
    max_entries: int | None = None
    control: Literal["required", "refused"] = "required"
    counts: bool = False
    sparse: bool = False

    @property
    def disclaimer(self) -> str:
        """Who made these rules, and that this is not their checker."""
        return f"rules of {self.source}, {self.date}; this is not the official checker"


VCC2026 = Rules(
    name="vcc2026",
    date="2026-08-19",
    source="the Virtual Cell Challenge 2026, rule version 3",
    genes=18_533,
    perts=300,
    cells_per_pert=400,
    max_total=1e6,
    max_entries=4_750_000_000,
    control="refused",
    counts=True,
    sparse=True,
)

CELL_EVAL_PREP = Rules(
    name="cell_eval", date="2026", source="cell-eval 0.8.2 (`prep`)", genes=18_080, max_cells=200_000
)

# The challenge of 2025 took what cell-eval packs.
CHALLENGES = {
    rules.name: rules for rules in (VCC2026, CELL_EVAL_PREP, dataclasses.replace(CELL_EVAL_PREP, name="vcc2025"))
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One reason for which a submission is refused."""

    what: str
    where: str
    fix: str

    @classmethod
    def of(cls, refusal: Refusal) -> "Fault":
        """What a check that stops at its first fault has found."""
        return cls(refusal.what, refusal.where, refusal.fix)


def refuse_faults(name: str, rules: Rules, faults: Sequence[Fault]) -> None:
    """Raises one `Refusal` that lists every fault; does nothing if there is none."""
    if not faults:
        return
    why = f"A file that breaks one rule is refused whole ({rules.disclaimer})."
    if len(faults) == 1:
        raise Refusal(what=faults[0].what, where=faults[0].where, why=why, fix=faults[0].fix)
    numbered = lambda texts: "".join(f"\n    {i}. {text}" for i, text in enumerate(texts, 1))
    raise Refusal(
        what=f"{len(faults)} rules of {rules.name} are broken:{numbered(fault.what for fault in faults)}",
        where=f"{name}{numbered(fault.where for fault in faults)}",
        why=why,
        fix=numbered(fault.fix for fault in faults),
    )


_HEADERS = ("gene", "genes", "gene_name", "gene_names", "gene_symbol", "feature", "feature_name")


def read_gene_list(path: str | os.PathLike) -> tuple[str, ...]:
    """The gene names of a submission in their order: the first column of a CSV, with or without a header.

    **Raises:** `Refusal` for a file that is absent, not text or empty, and for a name that occurs twice.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        why = "Which genes a submission must have, and in which order, is in that list."
        raise no_file(path, why=why, fix="correct the path: genes= / --genes.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _bad_list(path, str(error)) from error
    names = [line.split(",")[0].strip().strip('"') for line in lines if line.strip()]
    if names and names[0].lower() in _HEADERS:
        names = names[1:]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or not names:
        raise _bad_list(path, f"named twice: {listing(twice)}" if twice else "no names")
    return tuple(names)


def read_pert_counts(path: str | os.PathLike) -> dict[str, int | None]:
    """The labels that a submission must have, each with its number of cells where the file has a column `n_cells`.

    The labels are the column `target_gene` (or `target`, `perturbation`, `gene`, `condition`).

    **Raises:** `Refusal` for a file without such a column, a label that occurs twice, and a number that is not whole.
    """
    from ._labels import PERT_COLUMNS

    header = _header(path)
    column = next((name for name in PERT_COLUMNS if name in header), PERT_COLUMNS[0])
    counted = "n_cells" in header
    rows = read_csv(path, [column, "n_cells"] if counted else [column])
    found: dict[str, int | None] = {}
    for line, (label, *number) in enumerate(rows, 2):
        if label in found:
            raise _bad_list(path, f"row {line}: {label!r} occurs twice")
        try:
            count = float(number[0]) if number else None
        except ValueError as error:
            raise _bad_list(path, f"row {line}: n_cells {number[0]!r} is no number") from error
        if count is not None and (count != round(count) or count < 0):
            raise _bad_list(path, f"row {line}: n_cells {number[0]!r} is not a whole number")
        found[label] = None if count is None else int(count)
    if not found:
        raise _bad_list(path, "no rows")
    return found


def _header(path: str | os.PathLike) -> list[str]:
    path = pathlib.Path(path)
    if not path.is_file():
        why = "Which perturbations a submission must have is in that table."
        raise no_file(path, why=why, fix="correct the path: perts= / --perts.")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return [name.strip() for name in file.readline().replace("\t", ",").split(",")]


def _bad_list(path: str | os.PathLike, cause: str) -> Refusal:
    return Refusal(
        what="The list cannot be used.",
        where=f"{os.fspath(path)}: {cause}",
        why="What is checked against it would be wrong.",
        fix="give the file that the challenge hands out, unchanged: genes=, perts= / --genes, --perts.",
    )
