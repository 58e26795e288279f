"""The flags of every command, in both spellings of the field's tools."""

import argparse
import difflib
import importlib.metadata
import re
from typing import Any, NoReturn

from ._values import byte_count, names


# Flags of cell-eval and cell-eval2 that ask for something this release does not do: better refused than ignored.
_LATER = {
    "--de-pred": ("-dp", 1, "differential-expression tables are not read yet"),
    "--de-real": ("-dr", 1, "differential-expression tables are not read yet"),
    "--embed-key": (None, 1, "metrics in an embedding are not computed yet"),
    "--ceiling": (None, 0, "data ceilings are not computed yet"),
    "--ceiling-seed": (None, 1, "data ceilings are not computed yet"),
    "--anchor": (None, "?", "anchors are not computed yet"),
    "--cpm-filter": (None, 1, "it belongs to differential expression, which is not computed yet"),
    "--epsilon": (None, 1, "it belongs to differential expression, which is not computed yet"),
    "--write-degenes": (None, 0, "it belongs to differential expression, which is not computed yet"),
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


class Parser(argparse.ArgumentParser):
    """argparse that suggests what a misspelt flag or choice may have meant."""

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:  # pyright: ignore
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = self._command(namespace)
            flags = [flag for action in command._actions for flag in action.option_strings]
            command.error(f"unrecognized arguments: {' '.join(unknown)}{_hint(unknown[0].split('=')[0], flags)}")
        return namespace

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            message += _hint(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(2, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")

    def _command(self, namespace: argparse.Namespace) -> "Parser":
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices[namespace.command]
        return self


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="vcjax", description="Metrics for single-cell perturbation prediction.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = lambda name, text: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    _run_flags(add("run", "Score a prediction against the measured screen and write the results."))
    _validate_flags(add("validate", "Check one screen, or a pair, and say what a run would refuse; writes nothing."))
    _demo_flags(add("demo", "Simulate a screen, score predictors of known quality, print one table."))
    listing = add("list", "List metrics, presets or profiles.")
    listing.add_argument("what", nargs="?", choices=("metrics", "presets", "profiles"), default="metrics")
    listing.add_argument("--json", action="store_true", help="print JSON")
    explain = add("explain", "Explain a metric: definition, ties, what it ignores and how it is gamed.")
    explain.add_argument("name", help="a name of this package, of cell-eval or of cell-eval2")
    explain.add_argument("--preset", help="explain the row of this preset")
    doctor = add("doctor", "Show versions, devices, precision and caches; writes nothing.")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _run_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("-ap", "--adata-pred", required=True, metavar="PATH", help="predicted screen (h5ad or zarr)")
    files.add_argument("-ar", "--adata-real", required=True, metavar="PATH", help="measured screen (h5ad or zarr)")
    files.add_argument("-o", "--outdir", default="vcjax-out", metavar="DIR", help="output folder [%(default)s]")
    files.add_argument("--layout", choices=("wide", "long"), help="shape of the files [that of the preset]")
    files.add_argument("--force", action="store_true", help="replace the run that the output folder holds")
    files.add_argument("--cache-real", metavar="FILE.npz", help="keep the measured side's summary for the next run")
    what = parser.add_argument_group("what to compute")
    what.add_argument("--preset", default="v2", help="whose conventions: v2 or cell_eval [%(default)s]")
    what.add_argument("--profile", default="anndata", help="a named set of metrics [%(default)s]")
    what.add_argument("--metrics", type=names, metavar="A,B", help="these metrics instead of a profile")
    what.add_argument("--skip-metrics", type=names, default=[], metavar="A,B", help="leave these out")
    _reading_flags(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="auto, cpu, gpu, cuda, rocm or tpu [auto]")
    machine.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="[%(default)s, for exact ranks]"
    )
    machine.add_argument("--num-threads", type=int, metavar="N", help="use at most N cores")
    machine.add_argument("--max-memory", type=byte_count, metavar="8GB", help="read in blocks that stay below this")
    _talk_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="validate, print what would be computed, and stop")
    _later_flags(parser)


def _reading_flags(parser: argparse.ArgumentParser) -> None:
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
    reading.add_argument("--seed", type=int, default=0, help="of --match-cells [%(default)s]")


def _talk_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--quiet", action="store_true", help="print nothing but refusals and errors")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def _validate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", help="a screen to check by itself")
    parser.add_argument("-ap", "--adata-pred", metavar="PATH", help="predicted screen")
    parser.add_argument("-ar", "--adata-real", metavar="PATH", help="measured screen")
    parser.add_argument("--preset", default="v2", help="whose conventions the pair must allow [%(default)s]")
    parser.add_argument("--profile", default="anndata", help="[%(default)s]")
    _reading_flags(parser)
    _talk_flags(parser)


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--outdir", default="vcjax-demo", metavar="DIR", help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation [%(default)s]")
    parser.add_argument("--small", action="store_true", help="a quarter of the size")
    parser.add_argument("--force", action="store_true", help="write into a folder that this command did not make")
    parser.add_argument("--num-threads", type=int, metavar="N", help="use at most N cores")
    _talk_flags(parser)


def _later_flags(parser: argparse.ArgumentParser) -> None:
    for flag, (short, values, why) in _LATER.items():
        spellings = [flag] if short is None else [short, flag]
        parser.add_argument(*spellings, action=_Later, nargs=None if values == 1 else values, why=why)


def _version() -> str:
    try:
        return f"vcjax {importlib.metadata.version('vcjax')}"
    except importlib.metadata.PackageNotFoundError:
        return "vcjax (not installed)"
