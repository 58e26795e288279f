"""How deep made-up cells must be sequenced to have the zeros of real ones."""

import math
from collections.abc import Callable


def depth_for_zeros(zeros: Callable[[float], float], share: float, most: float) -> float:
    """The depth up to `most` at which this share of the entries is zero; `zeros` gives the share at a depth."""
    low, high = 1.0, most
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if zeros(middle) > share else (low, middle)
    return low
