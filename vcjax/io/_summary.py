"""A screen reduced to one profile a perturbation: what is kept of the cells, in memory and on disk."""

import dataclasses
import hashlib
import json
import os
import zipfile
from typing import Any, Literal, TYPE_CHECKING

import numpy as np

from .._files import replacing
from ._de_table import FIELDS, HostTable
from ._errors import Refusal


if TYPE_CHECKING:
    from .._profiles import Profiles

_FORMAT = "vcjax summary"
_VERSION = 2  # 1 had neither `de` nor `energy`
_ARRAYS = ("targets", "mean", "control", "cells", "noise", "energy")
_DE = "de."  # what the names of the table's arrays begin with
_SCALARS = ("control_cells", "control_noise", "target_sum", "space", "scale")

Space = Literal["lognorm", "bulk_lognorm", "delta"]


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """The profiles of one side, as float64 on the host, with the names that belong to them.

    **Fields:**

    - `perts`, `genes`: names of the rows and the columns of `mean`.
    - `targets`: index of the gene that each perturbation targets, -1 where it targets none of the measured genes.
    - `mean`: profile of each perturbation, NaN where it has no cells.
    - `control`: profile of the control cells; `None` if this side has none.
    - `cells`, `control_cells`: number of cells behind each profile.
    - `noise`, `control_noise`: sampling noise of each profile, summed over genes: `tr(covariance) / n` in the space
        `"lognorm"`, the delete-one jackknife in `"bulk_lognorm"`, 0 for fewer than two cells (not known, rather than
        small). `None` if it was not asked for.
    - `target_sum`: the library size that the normalisation scaled to.
    - `de`: the table of differential expression; `energy`: the energy distance of each perturbation's cells from the
        control cells. `None` where nobody asked for them.
    - `space`: what the profiles are, see `vcjax.Profiles`; `scale`: what the screen held.
    """

    perts: tuple[str, ...]
    genes: tuple[str, ...]
    targets: np.ndarray
    mean: np.ndarray
    control: np.ndarray | None
    cells: np.ndarray
    control_cells: int
    noise: np.ndarray | None = None
    control_noise: float | None = None
    target_sum: float | None = None
    de: HostTable | None = None
    energy: np.ndarray | None = None
    space: Space = "lognorm"
    scale: str = "counts"

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the summary holds: equal summaries, and only they, have equal fingerprints."""
        digest = hashlib.sha256(_header(self).encode())
        for name, array in _arrays(self).items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def with_control_of(self, other: "Summary") -> "Summary":
        """This summary with the control profile of the other side: what `control_source="real"` means for a prediction.

        The table of differential expression stays: which cells it compares with is decided where they are read.

        **Raises:** `ValueError` if the two differ in genes or space.
        """
        if self.genes != other.genes or self.space != other.space:
            raise ValueError("A control can only be taken from a summary of the same genes in the same space.")
        return dataclasses.replace(
            self, control=other.control, control_cells=other.control_cells, control_noise=other.control_noise
        )

    def to_profiles(self) -> "Profiles":
        """The same as arrays on the device, in JAX's default float dtype (float64 only where x64 is on).

        **Raises:** `Refusal` if there is no control.
        """
        if self.control is None:
            raise Refusal(
                what="The summary has no control profile.",
                where=f"summary of {len(self.perts)} perturbations, {len(self.genes)} genes",
                why="effects are differences from the control",
                fix="take it from the measured side: `pred.with_control_of(real)` (or a preset that does).",
            )
        import jax.numpy as jnp

        from .._profiles import Profiles

        dtype = jnp.result_type(float)
        optional = {
            name: None if getattr(self, name) is None else jnp.asarray(getattr(self, name), dtype)
            for name in ("cells", "noise", "control_noise", "target_sum", "energy")
        }
        return Profiles(
            jnp.asarray(self.mean, dtype),
            jnp.asarray(self.control, dtype),
            targets=jnp.asarray(self.targets, jnp.int32),
            de=None if self.de is None else self.de.to_device(self.genes),
            space=self.space,
            **optional,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one `.npz` file, under a temporary name until it is complete."""
        header = {"format": _FORMAT, "version": _VERSION, "fingerprint": self.fingerprint}
        content: dict[str, Any] = {"header": json.dumps(header), "content": _header(self), **_arrays(self)}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **content)


def load_summary(path: str | os.PathLike) -> Summary:
    """Read what `Summary.save` wrote.

    **Raises:** `Refusal` for a file that is not a summary, is from a later version or was changed or cut since.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            header, content = json.loads(str(file["header"])), json.loads(str(file["content"]))
            if header["format"] != _FORMAT or header["version"] > _VERSION:
                raise _unreadable(path, f"it is {header['format']!r}, version {header['version']}")
            arrays: dict[str, Any] = {name: file[name] for name in _ARRAYS if name in file}
            table = {name: file[_DE + name] for name in FIELDS if _DE + name in file}
            arrays["de"] = HostTable(**table) if table else None
        content["perts"], content["genes"] = tuple(content["perts"]), tuple(content["genes"])
        summary = Summary(**{"control": None, **arrays, **content})
        intact = summary.fingerprint == header["fingerprint"]
    except Refusal:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "it is not a complete summary") from error
    if not intact:
        raise _unreadable(path, "its content does not match its fingerprint")
    return summary


def _arrays(summary: Summary) -> dict[str, np.ndarray]:
    arrays = {name: getattr(summary, name) for name in _ARRAYS}
    arrays |= {} if summary.de is None else {_DE + name: getattr(summary.de, name) for name in FIELDS}
    return {name: array for name, array in arrays.items() if array is not None}


def _header(summary: Summary) -> str:
    """Names and scalars as one canonical text."""
    content = {name: getattr(summary, name) for name in ("perts", "genes", *_SCALARS)}
    return json.dumps(content, sort_keys=True, default=lambda number: number.item())


def _unreadable(path, reason: str) -> Refusal:
    return Refusal(
        what="A summary cannot be read.",
        where=f"{os.fspath(path)}: {reason}",
        why="every score against it would be of other data",
        fix="summarise the screen again: `vcjax.io.summarise(screen, ...).save(path)`.",
    )
