"""The front door: two sources in, one report out."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..weights import WeightRecipe
from ._cache import check_cache
from ._pair import Extra, Missing
from ._plan import DTypeName, find_device, make_plan, Plan
from ._presets import Preset
from ._profiles import keeps_cells
from ._report import Report
from ._run import Progress, run_plan
from ._select import Exclude, get_recipe, select
from ._sides import InputType, read_sides, Reading, Sides, Source
from ._tables import Side
from ._training import read_train
from ._weighting import Weighting, WeightsFrom


def evaluate(
    pred: Source,
    real: Source,
    *,
    preset: str | Preset = "calibrated",
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    pert_col: str | None = None,
    control: str = "non-targeting",
    context_col: str | None = None,
    input_type_pred: InputType = "auto",
    input_type_real: InputType = "auto",
    target_map: str | os.PathLike | Mapping[str, str | None] | None = None,
    exclude_targets: Exclude | None = None,
    weights: str | WeightRecipe | None = None,
    weights_from: WeightsFrom | None = None,
    train: Source | None = None,
    allow_leak: bool = False,
    genes: Literal["match", "intersect", "strict"] = "match",
    dedup: Literal["refuse", "sum", "first"] = "refuse",
    drop_unlabelled: bool = False,
    nan: Literal["refuse", "zero"] = "refuse",
    layer: str | None = None,
    gene_col: str | None = None,
    missing: Missing = "refuse",
    extra: Extra = "refuse",
    min_cells: int = 1,
    match_cells: bool = False,
    seed: int = 0,
    max_total: float | None = None,
    de_pred: str | os.PathLike | None = None,
    de_real: str | os.PathLike | None = None,
    keep_de: bool = False,
    cache_real: str | os.PathLike | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: DTypeName = "float64",
    progress: Progress | None = None,
) -> Report:
    """Scores a predicted screen against the measured one.

    ```python
    report = vcjax.evaluate("pred.h5ad", "real.h5ad", pert_col="target_gene")
    print(report.summary())
    ```

    **Arguments:**

    - `pred`, `real`: paths of h5ad or zarr files, AnnData, or what `vcjax.io.read_screen` and `summarise` return.
    - `preset`: whose conventions: `"calibrated"` (this library's: discrimination beside magnitude), `"v2"` (cell-eval2
        0.20.0), `"vcc2026"` (the same, for the challenge's ten metrics), `"cell_eval"` (cell-eval 0.8.2), `"vcc2025"`
        (the scorer of that year) or `"echoes"` (Echoes of Silenced Genes).
    - `profile`: a named set of the preset's metrics, `"full"` for all of them; by default what that tool computes if
        nothing is said. `metrics` names them one by one instead, of the preset or of the catalogue; `skip` leaves some
        out. Only metrics that read differential expression cost a test of every gene.
    - `pert_col`, `control`, `context_col`: the columns of `obs` and the control label. With contexts every context is
        evaluated by itself, into one report.
    - `input_type_pred`, `input_type_real`: `counts` or `lognorm`; `auto` finds out and says so in the notes.
    - `target_map`: the gene that each label targets (a mapping, or a CSV of `label,gene`); `{"*": None}` for none.
    - `exclude_targets`: which target genes discrimination scores leave out: a prediction's `own`, those of the whole
        `panel`, or `none`; by default what the preset says.
    - `weights`: a recipe of gene weights (see `vcjax.weights`) for the metrics that need them, by default the preset's.
        `weights_from`: what they are made of. `"other-half"` splits the measured cells with `seed`; each half is a
        truth with the weights of the other, and both values are averaged. `"train"` uses the training perturbations.
        `"measured"` uses the cells that are scored, as some papers do: a leak.
    - `train`: a screen of training perturbations, whose mean response is what mean-referenced metrics measure effects
        from; without it, the mean of the other evaluated perturbations. `allow_leak`: score, with a note, although
        evaluated perturbations are in their own reference or weights.
    - `layer`, `gene_col`: values other than `X`, gene names other than the index of `var`.
    - `genes`, `dedup`, `drop_unlabelled`, `nan`: what to do about genes in another order or missing, repeated gene
        names, cells without a label, NaN values. Each default refuses, except that genes are put in order by name.
    - `missing`: perturbations that the prediction lacks: refused, or `nan`, `worst` (the metric's worst value; what the
        unperturbed control scores, where a metric has no worst value), `skip` (left out on both sides).
    - `extra`: perturbations that were not measured. `min_cells` leaves out those with fewer measured cells;
        `match_cells` draws, with `seed`, equally many cells on both sides.
    - `max_total`: the library size that no cell may exceed; by default counts above 10⁶ are noted and log-normalised
        cells above it refused.
    - `de_pred`, `de_real`: tables of differential expression, as cell-eval and pdex write them, in the place of those
        that would be computed. `keep_de`: keep the tables in the report, which then writes them as well.
    - `cache_real`: a file that keeps the summary of the measured side for the next prediction.
    - `max_memory`: bytes; smaller blocks are read, and fewer genes tested at a time, to stay below. `threads`: of the
        rank test.
    - `device`: `"cpu"`, `"gpu"`, …; JAX's default otherwise. `dtype`: the precision of the metrics; exact ranks need
        `"float64"`. JAX's own settings are left as they are.
    - `progress`: called as `progress(stage, done, total)`.

    **Raises:** `vcjax.io.Refusal` before anything is computed, for input that cannot be scored honestly. A metric that
    fails later is a row with status `error`, see `Report.failed`.
    """
    reading = Reading(
        pert_col=pert_col,
        control=control,
        context_col=context_col,
        input_type_pred=input_type_pred,
        input_type_real=input_type_real,
        target_map=target_map,
        genes=genes,
        dedup=dedup,
        drop_unlabelled=drop_unlabelled,
        nan=nan,
        layer=layer,
        gene_col=gene_col,
        missing=missing,
        extra=extra,
        min_cells=min_cells,
        match_cells=match_cells,
        seed=seed,
        max_total=max_total,
    )
    selected = prepare(
        *(pred, real, reading),
        preset=preset,
        profile=profile,
        metrics=metrics,
        skip=skip,
        exclude_targets=exclude_targets,
        weights=weights,
        weights_from=weights_from,
        train=train,
        allow_leak=allow_leak,
        de_pred=de_pred,
        de_real=de_real,
        keep_de=keep_de,
        cache_real=cache_real,
        max_memory=max_memory,
        threads=threads,
        device=device,
        dtype=dtype,
    )
    return run_plan(selected, progress)


def prepare(
    pred: Source,
    real: Source,
    reading: Reading,
    *,
    preset: str | Preset = "calibrated",
    profile: str | None = None,
    metrics: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    exclude_targets: Exclude | None = None,
    weights: str | WeightRecipe | None = None,
    weights_from: WeightsFrom | None = None,
    train: Source | None = None,
    allow_leak: bool = False,
    de_pred: str | os.PathLike | None = None,
    de_real: str | os.PathLike | None = None,
    keep_de: bool = False,
    cache_real: str | os.PathLike | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: DTypeName = "float64",
    read: Callable[[], Sides] | None = None,
) -> Plan:
    """Reads and validates everything and computes nothing: `evaluate` without its second half.

    **Arguments:** those of `evaluate`. `read`: gives both sides where somebody is reading them already.

    **Raises:** `vcjax.io.Refusal`, as `evaluate`.
    """
    selection = select(preset, profile, metrics, skip, exclude_targets)
    files: dict[Side, str | os.PathLike] = {}
    files |= {"pred": de_pred} if de_pred is not None else {}
    files |= {"real": de_real} if de_real is not None else {}
    if read is None:
        keep = keeps_cells(selection.preset.name, profile, metrics, de_pred, de_real)
        read = functools.partial(read_sides, pred, real, reading, max_memory=max_memory, keep=keep)
    platform = find_device(device)  # before the cells are waited for: JAX takes a moment to start
    sides = read()
    recipe = get_recipe(selection.preset.weights if weights is None else weights)
    weighting = Weighting(recipe, weights_from or selection.preset.weights_from, reading.seed, allow_leak)
    plan = make_plan(
        *(selection, sides, reading),
        device=platform,
        dtype=dtype,
        cache_real=None if cache_real is None else os.fspath(cache_real),
        max_memory=max_memory,
        de_files=files,
        write_de=keep_de,
        threads=threads,
        weighting=weighting,
        train=None if train is None else read_train(train, sides, reading, max_memory),
        allow_leak=allow_leak,
    )
    check_cache(plan)
    return plan
