"""Whether what a metric measures from, or weighs with, holds the answer."""

from collections.abc import Sequence

from ..weights import Weights
from ._reference import Reference


class LeakError(ValueError):
    """An evaluated perturbation is inside its own reference or weights; `perts` are those that are."""

    def __init__(self, message: str, perts: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.perts = perts


def find_leak(made: Reference | Weights, evaluated: Sequence[str]) -> tuple[str, ...]:
    """The evaluated perturbations that are inside their own reference or weights, in their order.

    No leak: the control; a profile of other data (`external`); a leave-one-out mean, each row of which leaves its own
    perturbation out; and weights made of other cells than those that are scored (`cells` "other half" or "crossfit").
    """
    if isinstance(made, Reference):
        free = made.kind in ("control", "external", "loo_mean")
        inside = set(made.perts)
    else:
        free = made.cells in ("other half", "crossfit")
        inside = {*made.perts, *made.pool}
    return () if free else tuple(name for name in dict.fromkeys(evaluated) if name in inside)


def check_leak(made: Reference | Weights, evaluated: Sequence[str], *, allow_leak: bool = False) -> str:
    """A description of the leak for a report, empty if there is none; see `find_leak`.

    **Arguments:**

    - `evaluated`: names of the perturbations that are scored.
    - `allow_leak`: describe a leak instead of refusing it, for the numbers that were published with one.

    **Raises:** `LeakError` (a `ValueError`) for a leak, and where the provenance does not name the perturbations.
    """
    what = _what(made)
    if _is_unknown(made):
        told = f"{what} do not say which perturbations they were made of, so that no leak can be ruled out."
        if not allow_leak:
            raise LeakError(f"{told} Name them with `perts=`, or pass `allow_leak=True`.")
        return told
    found = find_leak(made, evaluated)
    if not found:
        return ""
    few = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    told = f"{what} are made of {len(found)} of the {len(dict.fromkeys(evaluated))} evaluated perturbations: {few}."
    if not allow_leak:
        raise LeakError(f"{told} {_remedy(made)} Or pass `allow_leak=True`, and say so with the score.", found)
    return told


def _what(made: Reference | Weights) -> str:
    if isinstance(made, Reference):
        return f"The values of the reference ({made.kind})"
    return f"The weights ({made.recipe}, cells: {made.cells})"


def _is_unknown(made: Reference | Weights) -> bool:
    if isinstance(made, Reference):
        return not made.perts and made.kind not in ("control", "external")
    return not made.perts


def _remedy(made: Reference | Weights) -> str:
    if isinstance(made, Reference):
        return "An effect is misjudged from a profile that holds it. Use `train_mean` without them, or `loo_mean`."
    return (
        "A gene that the scored cells show changed by chance then counts more. Make them of other cells "
        "(`vcjax.weights.crossfit`) or of training perturbations (`shared_weights`)."
    )
