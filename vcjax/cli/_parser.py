"""The flags of every command, in both spellings of the field's tools."""

import argparse
import difflib
import importlib.metadata
import re
from typing import NoReturn

from ._baseline_flags import add_baseline_commands
from ._run_flags import controls_flags, run_flags
from ._shared_flags import machine_flags, reading_flags, talk_flags
from ._values import byte_count, names


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
    run_flags(add("run", "Score a prediction against the measured screen and write the results."))
    _baseline_flags(
        add("baseline", "Make the peers' baseline of a screen. `baseline fit | table | --list`: all simple models.")
    )
    add_baseline_commands(add, reading_flags, machine_flags, talk_flags)
    _score_flags(add("score", "Score the aggregates of a prediction against those of a baseline."))
    controls_flags(add("controls", "Score controls of a measured screen: what each metric is worth on it."), pred=False)
    controls_flags(add("calibrate", "Place a prediction between the controls of a measured screen."), pred=True)
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
    reading_flags(parser)
    machine_flags(parser)
    talk_flags(parser)
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


def _validate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", help="a screen to check by itself")
    parser.add_argument("-ap", "--adata-pred", metavar="PATH", help="predicted screen")
    parser.add_argument("-ar", "--adata-real", metavar="PATH", help="measured screen")
    parser.add_argument("--preset", default="calibrated", help="whose conventions the pair must allow [%(default)s]")
    parser.add_argument("--profile", help="[the preset's own]")
    parser.add_argument("--perts", metavar="CSV", help="labels that a submission must have, and their n_cells")
    reading_flags(parser)
    for action in parser._actions:
        if "--genes" in action.option_strings:
            # One flag, two uses: how genes are matched, and the list that the rules of a challenge ask for.
            action.choices, action.help = None, "match, intersect or strict; or the gene list of a challenge (CSV)"
    talk_flags(parser)


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
    talk_flags(parser)


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--outdir", default="vcjax-demo", metavar="DIR", help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation [%(default)s]")
    parser.add_argument("--small", action="store_true", help="a quarter of the size")
    parser.add_argument("--force", action="store_true", help="write into a folder that this command did not make")
    parser.add_argument("--num-threads", type=int, metavar="N", help="use at most N cores")
    talk_flags(parser)


def _version() -> str:
    try:
        return f"vcjax {importlib.metadata.version('vcjax')}"
    except importlib.metadata.PackageNotFoundError:
        return "vcjax (not installed)"
