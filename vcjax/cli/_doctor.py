"""`vcjax doctor`: what this installation computes with. Writes nothing."""

import argparse
import json
import os
from typing import Any

from ._machine import cache_folder
from ._values import size_text


def doctor_command(args: argparse.Namespace) -> int:
    """Prints versions, devices, precision, memory and the cache of compiled programs."""
    facts = collect()
    if args.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        print(f"{name:<22} {'; '.join(value) if isinstance(value, list) else value}")
    return 0


def collect() -> dict[str, Any]:
    """The facts, as plain values."""
    import jax

    from ..evaluation import versions

    folder = cache_folder()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "versions": versions(),
        "backend": jax.default_backend(),
        "devices": [_device(device) for device in jax.devices()],
        "x64 by default": bool(jax.config.values["jax_enable_x64"]),
        "evaluation dtype": "float64 (--dtype float32 to change)",
        "matmul precision": str(jax.config.values["jax_default_matmul_precision"] or "default (distances use highest)"),
        "cores": cores,
        "memory": _memory(),
        "compilation cache": f"{folder} ({'present' if folder.is_dir() else 'not made yet'})",
    }


def _device(device: Any) -> str:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return f"{device}" + (f" {device.device_kind}, {size_text(limit)}" if limit else f" {device.device_kind}")


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return "unknown"
    return f"{size_text(total)}, {size_text(free)} free"
