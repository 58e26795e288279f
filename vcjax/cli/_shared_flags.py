"""Flags that several commands have in common."""

import argparse

from ._values import byte_count, names


def metric_flags(what: argparse._ArgumentGroup) -> None:
    """Which metrics, under whose conventions."""
    presets = "calibrated, v2, vcc2026, cell_eval, vcc2025 or echoes"
    what.add_argument("--preset", default="calibrated", help=f"whose conventions: {presets} [%(default)s]")
    what.add_argument("--profile", help="a named set of metrics [the preset's own; `vcjax list profiles`]")
    what.add_argument("--metrics", type=names, metavar="A,B", help="these metrics instead of a profile")
    what.add_argument("--skip-metrics", type=names, default=[], metavar="A,B", help="leave these out")


def weight_flags(parser: argparse.ArgumentParser) -> None:
    """What gene weights and references are made of."""
    weights = parser.add_argument_group("gene weights and references")
    weights.add_argument(
        "--weights", metavar="RECIPE", help="calibrated, mejia, miller, scperteval, sbb, … [the preset's]"
    )
    weights.add_argument(
        "--weights-from",
        choices=("other-half", "measured", "train"),
        help="the cells that weights are made of [other-half: each half of the cells scored with the other's]",
    )
    weights.add_argument("--train", metavar="PATH", help="training screen: its mean response is the reference")
    weights.add_argument("--allow-leak", action="store_true", help="score perturbations inside their own reference")


def machine_flags(parser: argparse.ArgumentParser) -> None:
    """Device, precision, threads and memory."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="auto, cpu, gpu, cuda, rocm or tpu [auto]")
    machine.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="[%(default)s, for exact ranks]"
    )
    machine.add_argument("--num-threads", type=int, metavar="N", help="use at most N cores")
    machine.add_argument("--max-memory", type=byte_count, metavar="8GB", help="read in blocks that stay below this")


def reading_flags(parser: argparse.ArgumentParser) -> None:
    """How files are read and matched."""
    reading = parser.add_argument_group("reading")
    reading.add_argument("--pert-col", metavar="COL", help="column of obs with the labels [found by name]")
    reading.add_argument(
        "--control-pert", "--control", dest="control", default="non-targeting", metavar="LABEL", help="[%(default)s]"
    )
    reading.add_argument("--celltype-col", "--context-col", dest="context_col", metavar="COL", help="context of a cell")
    reading.add_argument("--layer", metavar="NAME", help="values of this layer instead of X")
    reading.add_argument("--gene-col", metavar="COL", help="column of var with the gene names [the index]")
    kinds = ("auto", "counts", "lognorm", "delta")
    reading.add_argument("--input-type", choices=kinds, help="what both matrices hold [auto]")
    reading.add_argument("--input-type-pred", choices=kinds, help="what the predicted matrix holds")
    reading.add_argument("--input-type-real", choices=kinds, help="what the measured matrix holds")
    targets = reading.add_mutually_exclusive_group()
    targets.add_argument("--target-map", metavar="CSV", help="label,gene: the gene that each label targets")
    targets.add_argument("--no-target-genes", action="store_true", help="no label targets a gene: nothing is excluded")
    reading.add_argument(
        "--exclude-targets", choices=("own", "panel", "none"), help="which target genes ranks leave out [the preset's]"
    )
    genes = reading.add_mutually_exclusive_group()
    genes.add_argument("--genes", choices=("match", "intersect", "strict"), default="match", help="[%(default)s]")
    genes.add_argument("--strict-genes", dest="genes", action="store_const", const="strict", help="refuse reordering")
    reading.add_argument("--dedup", choices=("refuse", "sum", "first"), default="refuse", help="repeated gene names")
    reading.add_argument("--drop-unlabelled", action="store_true", help="leave out cells without a label")
    reading.add_argument("--nan", choices=("refuse", "zero"), default="refuse", help="NaN values")
    reading.add_argument(
        "--missing",
        choices=("refuse", "nan", "worst", "skip"),
        default="refuse",
        help="perturbations that the prediction lacks [%(default)s]",
    )
    reading.add_argument("--extra", choices=("refuse", "ignore"), default="refuse", help="perturbations not measured")
    reading.add_argument("--min-cells", type=int, default=1, metavar="N", help="skip those with fewer measured cells")
    reading.add_argument("--match-cells", action="store_true", help="draw equally many cells on both sides")
    reading.add_argument("--max-total", type=float, metavar="N", help="refuse cells with a larger library size")
    reading.add_argument("--seed", type=int, default=0, help="of --match-cells and of halves [%(default)s]")


def talk_flags(parser: argparse.ArgumentParser) -> None:
    """What is printed."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--quiet", action="store_true", help="print nothing but refusals and errors")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
