"""What a label is made of: the single perturbations of a combination, and the genes that are targeted."""

from collections.abc import Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..metrics import only_targets
from ._interface import PertData


_NOTHING = ("ctrl", "control", "non-targeting")  # parts of a combination that stand for "nothing else"


def members(label: str, known: Collection[str]) -> tuple[str, ...]:
    """The perturbations that a label joins: `A+B` is A and B, `A+ctrl` is A, and any other label is itself.

    `A_B` counts as A and B only if both are among `known`, since many labels of one perturbation have an underscore.
    """
    if "+" in label:
        return tuple(part for part in (part.strip() for part in label.split("+")) if part and part not in _NOTHING)
    parts = tuple(part for part in label.split("_") if part not in _NOTHING)
    return parts if "_" in label and parts and all(part in known for part in parts) else (label,)


def orders(perts: Sequence[str], known: Collection[str]) -> np.ndarray:
    """How many perturbations each label joins."""
    known = set(known)
    return np.array([len(members(pert, known)) for pert in perts], np.int32)


def member_rows(perts: Sequence[str], data: PertData) -> tuple[np.ndarray, np.ndarray]:
    """`(rows, used)`: the training row of each member of each label, -1 for one that is not measured; what is a member.

    Both have shape (perts, most members of a label); a place that no member takes is not `used`. A training label
    `A+ctrl` measures A.
    """
    known = set(data.perts)
    place: dict[str, int] = {}
    for row, pert in enumerate(data.perts):
        parts = members(pert, known)
        if len(parts) == 1:
            place.setdefault(parts[0], row)
    known |= set(place)
    parts = [members(pert, known) for pert in perts]
    width = max((len(part) for part in parts), default=1) or 1
    rows, used = np.full((len(parts), width), -1, np.int32), np.zeros((len(parts), width), bool)
    for i, part in enumerate(parts):
        rows[i, : len(part)] = [place.get(name, -1) for name in part]
        used[i, : len(part)] = True
    return rows, used


def carriers(perts: Sequence[str], data: PertData) -> tuple[np.ndarray, np.ndarray]:
    """`(inside, used)`: which training labels have each member of each label, alone or with others; what is a member.

    Shapes (perts, most members of a label, training perturbations) and (perts, most members of a label).
    """
    known = set(data.perts)
    known |= {part for pert in data.perts for part in members(pert, known)}
    parts, train = ([members(pert, known) for pert in names] for names in (perts, data.perts))
    width = max((len(part) for part in parts), default=1) or 1
    inside, used = np.zeros((len(parts), width, len(train)), bool), np.zeros((len(parts), width), bool)
    for i, part in enumerate(parts):
        for j, name in enumerate(part):
            inside[i, j], used[i, j] = [name in one for one in train], True
    return inside, used


def target_mask(
    perts: Sequence[str], data: PertData, target_map: Mapping[str, str | None] | None = None
) -> Bool[Array, "perts genes"]:
    """Which genes each label targets.

    What `target_map` says of a label holds (`None`: no gene; `*` is every label that is not listed). Otherwise the
    label, or each of its members, is the name of a gene, or else that of a training perturbation, whose target is
    known.
    """
    declared, genes = dict(target_map or {}), {gene: i for i, gene in reversed(list(enumerate(data.genes)))}
    mask, rows = np.zeros((len(perts), data.effects.shape[1]), bool), [[-1] for _ in perts]
    for i, pert in enumerate(perts):
        label = declared.get(pert, declared.get("*", pert))
        parts = () if label is None else (label,) if label in genes else members(label, {*genes, *data.perts})
        for part in parts:
            if part in genes:
                mask[i, genes[part]] = True
        rows[i] = data.rows([part for part in parts if part not in genes]).tolist() or [-1]
    if data.targets is None:
        return jnp.asarray(mask)
    width = max(map(len, rows), default=1)
    table = np.array([row + [-1] * (width - len(row)) for row in rows], np.int32).reshape(len(perts), width)
    targets = jnp.where(jnp.asarray(table >= 0), jnp.asarray(data.targets)[np.maximum(table, 0)], -1)
    found = jnp.asarray(mask)
    for place in range(width):
        found = found | only_targets(targets[:, place], mask.shape[1])
    return found
