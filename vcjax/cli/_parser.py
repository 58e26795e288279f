"""The flags of every command, in both spellings of the field's tools."""

import argparse
import difflib
import importlib.metadata
import re
from typing import Any, NoReturn

from ._baseline_flags import add_baseline_commands
from ._values import byte_count, names


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
    _baseline_flags(add("baseline", "Make the baseline of a measured screen and write what it scores, or its cells."))
    add_baseline_commands(add, _reading_flags, _machine_flags, _talk_flags)
    _score_flags(add("score", "Score the aggregates of a prediction against those of a baseline."))
    _controls_flags(
        add("controls", "Score controls of a measured screen: what each metric is worth on it."), pred=False
    )
    _controls_flags(add("calibrate", "Place a prediction between the controls of a measured screen."), pred=True)
    _compare_flags(add("compare", "Say whether one of two runs against one screen is better, and how sure that is."))
    _validate_flags(add("validate", "Check one screen, or a pair, and say what a run would refuse; writes nothing."))
    _prep_flags(add("prep", "Check a prediction against the rules of a challenge and pack it for submission."))
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
    _metric_flags(what)
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
    _weight_flags(parser)
    _replicate_flags(parser)
    _reading_flags(parser)
    _machine_flags(parser)
    _talk_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="validate, print what would be computed, and stop")
    _later_flags(parser)


def _metric_flags(what: argparse._ArgumentGroup) -> None:
    presets = "calibrated, v2, vcc2026, cell_eval, vcc2025 or echoes"
    what.add_argument("--preset", default="calibrated", help=f"whose conventions: {presets} [%(default)s]")
    what.add_argument("--profile", help="a named set of metrics [the preset's own; `vcjax list profiles`]")
    what.add_argument("--metrics", type=names, metavar="A,B", help="these metrics instead of a profile")
    what.add_argument("--skip-metrics", type=names, default=[], metavar="A,B", help="leave these out")


def _weight_flags(parser: argparse.ArgumentParser) -> None:
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


def _controls_flags(parser: argparse.ArgumentParser, *, pred: bool) -> None:
    files = parser.add_argument_group("files")
    if pred:
        files.add_argument("-ap", "--adata-pred", required=True, metavar="PATH", help="predicted screen (h5ad or zarr)")
    files.add_argument("-ar", "--adata-real", required=True, metavar="PATH", help="measured screen (h5ad or zarr)")
    files.add_argument("-o", "--outdir", metavar="DIR", help="write calibration_results.csv and control_results.csv")
    files.add_argument("--html", metavar="FILE", help="write one page with tables and figures")
    files.add_argument("--force", action="store_true", help="replace the results that the output folder holds")
    what = parser.add_argument_group("what to compute")
    _metric_flags(what)
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
    _reading_flags(parser)
    _machine_flags(parser)
    _talk_flags(parser)
    parser.set_defaults(
        **dict.fromkeys(("weights_from", "train", "de_pred", "de_real", "cache_real", "adata_pred")),
        allow_leak=False,
        write_de=False,
    )


def _replicate_flags(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what the measured screen says of itself (then -ap may be left out)")
    data.add_argument("--ceiling", action="store_true", help="how high each metric can go: half of the cells predicts")
    data.add_argument("--ceiling-seed", type=int, default=0, metavar="N", help="of the split [%(default)s]")
    data.add_argument("--anchor", action="store_true", help="what a replicate scores, for `vcjax score --replicate`")
    data.add_argument("--anchor-base-seed", type=int, default=0, metavar="N", help="of the splits [%(default)s]")
    data.add_argument("--anchor-splits", type=int, default=5, metavar="N", help="their number [%(default)s]")


def _baseline_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        *("-ar", "--adata-real", "-a", "--adata"), dest="adata_real", required=True, metavar="PATH", help="measured"
    )
    files.add_argument(
        *("-o", "--outdir", "--output-path"),
        dest="outdir",
        default="vcjax-baseline",
        metavar="DIR",
        help="folder of the results, or FILE.h5ad for the cells and nothing else [%(default)s]",
    )
    files.add_argument("--save-pred", metavar="FILE.h5ad", help="write the cells as well")
    files.add_argument("--layout", choices=("wide", "long"), help="shape of the files [that of the preset]")
    files.add_argument("--force", action="store_true", help="replace the run that the output folder holds")
    what = parser.add_argument_group("what to make and compute")
    what.add_argument(
        "--emit", choices=("mean", "dispersed", "tile"), help="what the cells are [mean for cell_eval, else dispersed]"
    )
    what.add_argument("--emit-seed", type=int, default=0, metavar="N", help="of dispersed cells [%(default)s]")
    what.add_argument("--preset", default="v2", help="whose conventions [%(default)s]")
    what.add_argument("--profile", help="a named set of metrics [the preset's own]")
    what.add_argument("--metrics", type=names, metavar="A,B", help="these metrics instead of a profile")
    what.add_argument("--skip-metrics", type=names, default=[], metavar="A,B", help="leave these out")
    _reading_flags(parser)
    _machine_flags(parser)
    _talk_flags(parser)
    parser.set_defaults(de_pred=None, de_real=None, write_de=False, cache_real=None)
    parser.set_defaults(weights=None, weights_from=None, train=None, allow_leak=False)


def _score_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--user-input", "--user-agg", dest="user_input", required=True, metavar="CSV", help="agg_results.csv")
    add("-I", "--base-input", "--baseline-agg", dest="base_input", required=True, metavar="CSV", help="of the baseline")
    add("-o", "--output", default="baseline_diff.csv", metavar="CSV", help="[%(default)s]")
    add("--preset", default="v2", help="whose rules [%(default)s]")
    add(
        "--replicate",
        "--anchor",
        dest="replicate",
        metavar="CSV",
        help="agg_results.csv of a replicate: scores 1",
    )
    add("--unclipped", action="store_true", help="of cell_eval: let scores fall below 0")
    add("--json", action="store_true", help="print one JSON document")
    add("--quiet", action="store_true", help="print nothing but refusals")


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run_a", metavar="A", help="output folder of a run")
    add("run_b", metavar="B", help="output folder of another run against the same measured screen")
    add("-o", "--output", metavar="CSV", help="write the table as well")
    add("--names", nargs=2, metavar=("A", "B"), help="what to call them [the names of the folders]")
    add("--samples", "--ci", type=int, default=1000, metavar="N", help="of the bootstrap [%(default)s]")
    add("--level", type=float, default=0.95, help="of the intervals [%(default)s]")
    add("--method", choices=("bca", "percentile", "centred"), default="bca", help="of the intervals [%(default)s]")
    add("--permutations", type=int, default=9_999, metavar="N", help="of the test that swaps the runs [%(default)s]")
    add("--correction", choices=("holm", "bh", "none"), default="holm", help="over metrics [%(default)s]")
    add(
        "--undefined",
        choices=("no_skill", "drop"),
        default="no_skill",
        help="what a value counts that only one run lacks [%(default)s]",
    )
    add("--seed", type=int, default=0, help="of both [%(default)s]")
    add("--json", action="store_true", help="print one JSON document instead of a table")
    add("--quiet", action="store_true", help="print nothing but refusals")


def _machine_flags(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="auto, cpu, gpu, cuda, rocm or tpu [auto]")
    machine.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="[%(default)s, for exact ranks]"
    )
    machine.add_argument("--num-threads", type=int, metavar="N", help="use at most N cores")
    machine.add_argument("--max-memory", type=byte_count, metavar="8GB", help="read in blocks that stay below this")


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
    reading.add_argument("--seed", type=int, default=0, help="of --match-cells and of halves [%(default)s]")


def _talk_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--quiet", action="store_true", help="print nothing but refusals and errors")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")


def _validate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", help="a screen to check by itself")
    parser.add_argument("-ap", "--adata-pred", metavar="PATH", help="predicted screen")
    parser.add_argument("-ar", "--adata-real", metavar="PATH", help="measured screen")
    parser.add_argument("--preset", default="calibrated", help="whose conventions the pair must allow [%(default)s]")
    parser.add_argument("--profile", help="[the preset's own]")
    parser.add_argument("--perts", metavar="CSV", help="labels that a submission must have, and their n_cells")
    _reading_flags(parser)
    for action in parser._actions:
        if "--genes" in action.option_strings:
            # One flag, two uses: how genes are matched, and the list that the rules of a challenge ask for.
            action.choices, action.help = None, "match, intersect or strict; or the gene list of a challenge (CSV)"
    _talk_flags(parser)


def _prep_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--input", required=True, metavar="PATH", help="predicted screen (h5ad or zarr)")
    add("-g", "--genes", required=True, metavar="CSV", help="the genes, one a line, in the order to write")
    add("-o", "--output", metavar="FILE.vcc", help="[INPUT with the suffix .prep.vcc]")
    add("--preset", default="cell_eval", help="whose rules: cell_eval or vcc2026 [%(default)s]")
    add("--perts", metavar="CSV", help="the labels that must be there, and their n_cells")
    add("-p", "--pert-col", metavar="COL", help="column of obs with the labels [found by name]")
    add("-c", "--celltype-col", "--context-col", dest="context_col", metavar="COL", help="context of a cell")
    add("-n", "--ntc-name", "--control", dest="control", default="non-targeting", metavar="LABEL", help="[%(default)s]")
    add("-P", "--output-pert-col", default="target_gene", metavar="COL", help="as written [%(default)s]")
    add("-C", "--output-celltype-col", "--output-context-col", dest="output_context_col", default="celltype")
    add("-e", "--encoding", type=int, choices=(64, 32), default=32, help="bits of a value [%(default)s]")
    add("--allow-discrete", action="store_true", help="pack counts as they are, not log-normalised")
    add("--expected-gene-dim", type=int, metavar="N", help="number of genes, -1 for any [that of the list]")
    add("--max-cell-dim", type=int, metavar="N", help="most cells, -1 for any [that of the rules]")
    add("--layer", metavar="NAME", help="values of this layer instead of X")
    add("--gene-col", metavar="COL", help="column of var with the gene names [the index]")
    add("--force", action="store_true", help="replace the output")
    add("--num-threads", type=int, metavar="N", help="use at most N cores")
    add("--max-memory", type=byte_count, metavar="8GB", help="of turning a column-compressed matrix into rows")
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
