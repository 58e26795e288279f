"""Strings of the command line as values."""

import argparse
import re


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def names(text: str) -> list[str]:
    """`a,b` as a list, without empty entries."""
    return [name.strip() for name in text.split(",") if name.strip()]


def byte_count(text: str) -> int:
    """`8GB`, `500M`, `2GiB` or a plain number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"a size like 8GB is expected, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def size_text(count: int) -> str:
    """Bytes for people: `1.2 GB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
