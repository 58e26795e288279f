"""A baseline's prediction as a screen, and the file it is written to with its provenance."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._files import replacing
from ..baselines import Prediction
from ..io import Refusal, Screen, write_screen


@dataclasses.dataclass(frozen=True, eq=False)
class BaselineScreen:
    """What a baseline predicts, ready for `evaluate`, and where it comes from.

    **Fields:** `screen`, the predicted cells and the training control cells; `prediction`, the effects; `covered`, for
    each perturbation whether the baseline had something specific to say; `provenance`: baseline, options, fairness,
    training data, versions, notes; `context_col`, the column that names the context, if it is to be written.
    """

    screen: Screen
    prediction: Prediction
    covered: Mapping[str, bool]
    provenance: Mapping[str, Any]
    context_col: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, filled in or is worth knowing, a line each."""
        return tuple(self.provenance["notes"])

    def write(self, path: str | os.PathLike, *, pert_col: str = "target_gene", force: bool = False) -> None:
        """Writes the cells as an h5ad; `obs["covered"]` and `uns["vcjax_baseline"]` say what they are.

        It has a temporary name until it is complete.

        **Raises:** `Refusal` for a file that exists, unless `force`.
        """
        check_output(path, force=force)
        with replacing(path) as partial:
            write_screen(self.screen, partial, pert_col=pert_col)
            self._describe(partial, pert_col)

    def _describe(self, path: pathlib.Path, pert_col: str) -> None:
        import h5py
        import pandas as pd
        from anndata.io import read_elem, write_elem

        with h5py.File(path, "r+") as file:
            obs: Any = read_elem(file["obs"])  # pyright: ignore[reportArgumentType]
            obs["covered"] = np.array([self.covered.get(label, True) for label in obs[pert_col].astype(str)], bool)
            context = self.provenance["context"]
            if self.context_col is not None and context:
                obs[self.context_col] = pd.Categorical([context] * len(obs))
            write_elem(file, "obs", obs)
            write_elem(file, "uns", {"vcjax_baseline": self._plain()})

    def _plain(self) -> dict[str, Any]:
        """The provenance as what an h5ad can hold: text, and two arrays."""
        text = {key: x if isinstance(x, str) else json.dumps(x, default=str) for key, x in self.provenance.items()}
        perts = list(self.covered)
        return {**text, "perts": np.array(perts, object), "covered": np.array([self.covered[p] for p in perts], bool)}


def check_output(path: str | os.PathLike, *, force: bool, inputs: tuple[str | os.PathLike, ...] = ()) -> None:
    """Refuses to write over an input, and over another file unless `force` allows it.

    **Raises:** `Refusal`.
    """
    if not os.path.exists(path):
        return
    same = any(os.path.exists(one) and os.path.realpath(one) == os.path.realpath(path) for one in inputs)
    if same or not force:
        raise Refusal(
            what="The prediction would be written over an input." if same else "The file exists.",
            where=os.fspath(path),
            why="The data would be lost.",
            fix="Name another file: -o." if same else "Name another file, or allow it: force= / --force.",
        )
