"""A baseline fitted to a training screen, as a predicted screen of the perturbations that are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from ..baselines import Baseline
from ..io import Refusal, Screen
from ..io._context import one_context
from ._baseline_cells import predicted_screen
from ._baseline_data import read_cells, refuse_unknown, Space
from ._baseline_features import features_of, FeatureSource
from ._baseline_file import BaselineScreen
from ._baseline_fit import BaselineFit
from ._emitted import Emit
from ._plan import DTypeName, find_device
from ._sides import Reading, Source


def fit_baseline(
    train: Source,
    *,
    baseline: str | Baseline = "mean",
    predict: Sequence[str] = (),
    like: Source | None = None,
    held_out: Sequence[str] = (),
    external: Sequence[Source] = (),
    features: FeatureSource | None = None,
    options: Mapping[str, Any] | None = None,
    reading: Reading | None = None,
    context: str | None = None,
    space: Space | None = None,
    emit: Emit = "dispersed",
    cells: int | None = None,
    seed: int = 0,
    dtype: DTypeName = "float64",
    device: str | None = None,
) -> BaselineScreen:
    """Fits a baseline to a training screen and predicts the cells of other perturbations.

    ```python
    vcjax.evaluation.fit_baseline("train.h5ad", baseline="additive", like="test.h5ad").write("pred.h5ad")
    ```

    What is predicted is never fitted to: a label to predict that the training screen has is left out of the fit, with a
    note. Of `like` only labels, numbers of cells and library sizes are read.

    **Arguments:**

    - `train`: the screen with its control cells: a path, an AnnData or a `Screen`. `external`: others, for baselines
        that transfer; each context of theirs counts by itself.
    - `baseline`: a name of `vcjax.baselines.BASELINES` (`null:inner` for the nulls of another one), with `options` for
        its fields, or a `vcjax.baselines.Baseline`.
    - `predict`, `held_out`, `like`: labels to predict; labels of the training screen to leave out and predict; a screen
        whose labels are to be predicted, with as many cells of each.
    - `reading`: how files are read. `context`: one context of a training screen with several, and then needed.
    - `space`: what profiles are fitted: `"bulk_lognorm"` (sums of counts; the default for counts) or `"lognorm"` (means
        of log-normalised cells). The first gives cells of counts, the second log-normalised ones.
    - `emit`: what cells are made of: `"dispersed"`, control cells drawn anew and multiplied gene by gene; `"tile"`,
        the profile in every cell; `"profile"`, one cell a perturbation.
    - `cells`: of each perturbation, by default the median number of the training perturbations.
    - `seed`: of everything that is drawn. `dtype`, `device`: of the arithmetic.

    **Raises:** `vcjax.io.Refusal` for nothing to predict or to fit, unknown labels, baselines and options, several
    contexts without `context`, sums of counts of cells that are not counts, and a prediction that is not finite.
    """
    reading = reading or Reading()
    screen = one_context(_read(train, reading, "train"), context)
    shown = None if like is None else _read(like, reading, "like", control=False, context=context)
    refuse_unknown(held_out, screen, "held_out= / --held-out")
    perts = _labels(screen, [*held_out, *predict, *(() if shown is None else shown.perts)])
    space = space or ("bulk_lognorm" if screen.scale == "counts" else "lognorm")
    others = [_read(one, reading, "external") for one in external]
    with jax.enable_x64(dtype == "float64"), jax.default_device(find_device(device)):
        fit = BaselineFit(screen, perts, reading, space, context or "", seed)
        known = features_of(features, (*screen.perts, *perts))
        made = fit.run(baseline, options or {}, others, shown, known)
        return predicted_screen(fit, *made, shown=shown, emit=emit, cells=cells)


def _read(
    source: Source,
    reading: Reading,
    name: Literal["train", "like", "external"],
    *,
    control: bool = True,
    context: str | None = None,
) -> Screen:
    screen = read_cells(source, reading, name, control=control)
    return screen if name != "like" or context is None else one_context(screen, context)


def _labels(screen: Screen, names: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name for name in names if name != screen.control))
    if not found:
        raise Refusal(
            what="There is nothing to predict.",
            where="predict= / --perts, like= / --like, held_out= / --held-out",
            why="A baseline predicts perturbations by name.",
            fix="name labels, or a screen that has them: --like test.h5ad.",
        )
    return found
