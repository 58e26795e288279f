"""The flags of `vcjax run`, and of the commands that say what its metrics are worth."""

import argparse
from typing import Any, NoReturn

from ._shared_flags import machine_flags, metric_flags, reading_flags, talk_flags, weight_flags
from ._values import names


# Flags of cell-eval and cell-eval2 that ask for something this release does not do: better refused than ignored.
_LATER = {
    "--embed-key": (None, 1, "metrics in an embedding are not computed yet"),
    "--cpm-filter": (None, 1, "the preset decides which genes are tested"),
    "--epsilon": (None, 1, "the preset decides the pseudocount of fold changes"),
    "--cache-pred": (None, 1, "only the measured side is kept; use --cache-real"),
    "--config": (None, 1, "settings are given as flags"),
    "--set": (None, 1, "settings are given as flags"),
    "--allow-discrete": (None, 0, "counts are recognised and normalised, never compared raw (see --input-type)"),
}


class _Later(argparse.Action):
    def __init__(self, *args: Any, why: str, **kwargs: Any) -> None:
        super().__init__(*args, help=argparse.SUPPRESS, **kwargs)
        self.why = why

    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        parser.error(f"{option_string} is a flag of cell-eval that this release refuses: {self.why}")


def run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `vcjax run`."""
    files = parser.add_argument_group("files")
    files.add_argument("-ap", "--adata-pred", metavar="PATH", help="predicted screen (h5ad or zarr)")
    files.add_argument("-ar", "--adata-real", required=True, metavar="PATH", help="measured screen (h5ad or zarr)")
    files.add_argument("-o", "--outdir", default="vcjax-out", metavar="DIR", help="output folder [%(default)s]")
    files.add_argument("--layout", choices=("wide", "long"), help="shape of the files [that of the preset]")
    files.add_argument("--force", action="store_true", help="replace the run that the output folder holds")
    files.add_argument("--cache-real", metavar="FILE.npz", help="keep the measured side's summary for the next run")
    files.add_argument("-dp", "--de-pred", metavar="CSV", help="differential expression of the prediction, as given")
    files.add_argument("-dr", "--de-real", metavar="CSV", help="differential expression of the measured side, as given")
    files.add_argument(
        *("--write-de", "--write-degenes"), action="store_true", help="write the tables: real_de.csv and pred_de.csv"
    )
    what = parser.add_argument_group("what to compute")
    metric_flags(what)
    sure = parser.add_argument_group("what the scores are worth")
    sure.add_argument(
        *("--controls",),
        type=int,
        nargs="?",
        const=5,
        metavar="N",
        help="score controls too, of N splits of the cells [5]",
    )
    sure.add_argument("--ci", type=int, nargs="?", const=1000, metavar="N", help="intervals, of N resamples [1000]")
    sure.add_argument("--ci-level", type=float, default=0.95, metavar="P", help="of the intervals [%(default)s]")
    sure.add_argument("--html", metavar="FILE", help="write one page with tables and figures as well")
    weight_flags(parser)
    _replicate_flags(parser)
    reading_flags(parser)
    machine_flags(parser)
    talk_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="validate, print what would be computed, and stop")
    _later_flags(parser)


def _replicate_flags(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what the measured screen says of itself (then -ap may be left out)")
    data.add_argument("--ceiling", action="store_true", help="how high each metric can go: half of the cells predicts")
    data.add_argument("--ceiling-seed", type=int, default=0, metavar="N", help="of the split [%(default)s]")
    data.add_argument("--anchor", action="store_true", help="what a replicate scores, for `vcjax score --replicate`")
    data.add_argument("--anchor-base-seed", type=int, default=0, metavar="N", help="of the splits [%(default)s]")
    data.add_argument("--anchor-splits", type=int, default=5, metavar="N", help="their number [%(default)s]")


def controls_flags(parser: argparse.ArgumentParser, *, pred: bool) -> None:
    """The flags of `vcjax controls`, and of `vcjax calibrate`, which takes a prediction."""
    files = parser.add_argument_group("files")
    if pred:
        files.add_argument("-ap", "--adata-pred", required=True, metavar="PATH", help="predicted screen (h5ad or zarr)")
    files.add_argument("-ar", "--adata-real", required=True, metavar="PATH", help="measured screen (h5ad or zarr)")
    files.add_argument("-o", "--outdir", metavar="DIR", help="write calibration_results.csv and control_results.csv")
    files.add_argument("--html", metavar="FILE", help="write one page with tables and figures")
    files.add_argument("--force", action="store_true", help="replace the results that the output folder holds")
    what = parser.add_argument_group("what to compute")
    metric_flags(what)
    what.add_argument("--splits", type=int, default=5, metavar="N", help="of the cells into halves [%(default)s]")
    what.add_argument("--level", type=float, default=0.95, metavar="P", help="of the intervals [%(default)s]")
    what.add_argument(
        "--positive",
        choices=("duplicate", "interpolated", "empirical_bayes"),
        default="duplicate",
        help="the control that scores 1 [%(default)s]",
    )
    what.add_argument("--weights", metavar="RECIPE", help="of gene weights [the preset's]")
    what.add_argument("--train-perts", type=names, metavar="A,B", help="labels whose mean is the null control")
    reading_flags(parser)
    machine_flags(parser)
    talk_flags(parser)
    parser.set_defaults(
        **dict.fromkeys(("weights_from", "train", "de_pred", "de_real", "cache_real", "adata_pred")),
        allow_leak=False,
        write_de=False,
    )


def _later_flags(parser: argparse.ArgumentParser) -> None:
    for flag, (short, values, why) in _LATER.items():
        spellings = [flag] if short is None else [short, flag]
        parser.add_argument(*spellings, action=_Later, nargs=None if values == 1 else values, why=why)
