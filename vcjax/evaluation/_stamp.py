"""What a report needs so that its numbers can be traced: versions, device, settings, inputs."""

import hashlib
import importlib.metadata
import json
import platform
from typing import Any


def versions() -> dict[str, str]:
    """Versions of this package and of those that decide its numbers."""
    found = {"python": platform.python_version()}
    for package in ("vcjax", "jax", "jaxlib", "equinox", "numpy", "scipy", "anndata"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: Any) -> str:
    """Platform and kind of a device, e.g. `cpu` or `gpu: NVIDIA H100`."""
    return device.platform if device.device_kind == device.platform else f"{device.platform}: {device.device_kind}"


def digest(settings: dict[str, Any]) -> str:
    """A short hash of the settings that decide the numbers: equal digests, comparable reports."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
