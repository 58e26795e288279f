"""The flags of `vcjax baseline fit`, `table` and `list`."""

import argparse
from collections.abc import Callable, Sequence

from ._values import names


# What follows `vcjax baseline` and is a command of its own; anything else is a flag of `vcjax baseline` itself.
_WORDS = {"fit": "baseline fit", "table": "baseline table", "list": "baseline list", "--list": "baseline list"}


def joined(argv: Sequence[str]) -> list[str]:
    """`baseline fit …` as the one command `baseline fit`, which is what the parser knows it by."""
    words = list(argv)
    if words[:1] == ["baseline"] and len(words) > 1 and words[1] in _WORDS:
        return [_WORDS[words[1]], *words[2:]]
    return words


def add_baseline_commands(
    add: Callable[[str, str], argparse.ArgumentParser], *shared: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Adds the three commands; `shared` are the groups of flags that reading and computing have in common."""
    fit = add("baseline fit", "Fit a simple model to a training screen and write the cells it predicts.")
    table = add("baseline table", "Score every simple model on held-out perturbations: which is the one to beat.")
    listing = add("baseline list", "List the simple models, what they need and where they come from.")
    _fit_flags(fit)
    _table_flags(table)
    for flags in shared:
        flags(fit)
        flags(table)
    listing.add_argument("--json", action="store_true", help="print JSON")


def _fit_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("train", metavar="TRAIN", help="training screen (h5ad or zarr)")
    files.add_argument("-o", "--output", required=True, metavar="PRED.h5ad", help="the predicted cells")
    files.add_argument("--external", nargs="+", default=[], metavar="PATH", help="screens of other contexts")
    files.add_argument("--force", action="store_true", help="replace the output")
    what = parser.add_argument_group("what to predict")
    what.add_argument("--perts", metavar="A,B|FILE", help="labels, or a file with one a line")
    what.add_argument("--like", metavar="TEST", help="the labels of this screen, and as many cells of each")
    what.add_argument("--held-out", metavar="A,B|FILE", help="labels of TRAIN to leave out of the fit and predict")
    how = parser.add_argument_group("how")
    how.add_argument("--baseline", default="mean", metavar="NAME", help="see `vcjax baseline --list` [%(default)s]")
    how.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the baseline; repeatable")
    how.add_argument("--emit", choices=("profile", "tile", "dispersed"), default="dispersed", help="[%(default)s]")
    how.add_argument("--cells", type=int, metavar="N", help="of each perturbation [as --like, or as in training]")
    how.add_argument("--emit-seed", type=int, default=0, metavar="N", help="of everything drawn [%(default)s]")
    _where_flags(how)


def _table_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("screen", metavar="SCREEN", help="measured screen (h5ad or zarr)")
    files.add_argument("-o", "--output", metavar="CSV", help="write the table as well")
    files.add_argument("--external", nargs="+", default=[], metavar="PATH", help="screens of other contexts")
    files.add_argument("--force", action="store_true", help="replace the output")
    how = parser.add_argument_group("how")
    how.add_argument("--baselines", type=names, metavar="A,B", help="these only [all that can be fitted]")
    how.add_argument("--metrics", type=names, metavar="A,B", help="[expr_mse,delta_pearson,pds_l1,pds_cosine]")
    how.add_argument("--folds", type=_folds, default=5, metavar="N|loo", help="[%(default)s]")
    how.add_argument("--held-out", metavar="A,B|FILE", help="labels to hold out and score [all]")
    how.add_argument("--no-duplicates", action="store_true", help="do not let halves of the cells predict each other")
    how.add_argument("--samples", type=int, default=1000, metavar="N", help="of the bootstrap [%(default)s]")
    how.add_argument("--level", type=float, default=0.95, help="of the intervals [%(default)s]")
    how.add_argument("--fold-seed", type=int, default=0, metavar="N", help="of folds and draws [%(default)s]")
    _where_flags(how)


def _where_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--context", metavar="NAME", help="one context of a screen with several (see --celltype-col)")
    group.add_argument("--features", metavar="FILE", help="vectors by name (.csv, .tsv, .npz) or gene sets (.gmt)")
    group.add_argument("--space", choices=("lognorm", "bulk_lognorm"), help="of the profiles [that of the values]")


def _folds(text: str) -> int | str:
    if text == "loo":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number of folds, or loo, is expected, got {text!r}") from None
