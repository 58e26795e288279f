"""One page that holds an evaluation: words first, then tables and figures, then where the numbers come from."""

import os
import pathlib
from collections.abc import Mapping

from .._files import replacing
from ..evaluation import Comparison, Report
from ..io import Refusal
from ._content import Calibrations, Content, Curves, Difficulty, make_content
from ._markup import element, joined_markup, Markup
from ._origin import origin
from ._parts import controls, hardness, models, sizes
from ._scores import definitions, perturbations, scores
from ._style import require_matplotlib
from ._summary import in_short


_CSS = """
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c1c1c; background: #fff;
  max-width: 74rem; margin: 0 auto; padding: 1.5rem 1.5rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #c4c4c4; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere; }
p, ul, dl { max-width: 46rem; }
li { margin: .35rem 0; overflow-wrap: anywhere; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; max-width: none; }
a { color: #1f5f99; }
#short { background: #f4f6f8; border-left: 4px solid #1f5f99; padding: .2rem 1.2rem .6rem; margin-top: 1rem; }
#short h2 { border: 0; margin-top: .8rem; }
#short ul { padding-left: 1.1rem; max-width: 56rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .84rem; line-height: 1.4; }
caption { text-align: left; color: #5f5f5f; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .22rem .7rem .22rem 0; border-bottom: 1px solid #e4e4e4; }
thead th { border-bottom: 1px solid #5f5f5f; vertical-align: bottom; }
tbody th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.short { white-space: nowrap; }
.wide { min-width: 12rem; overflow-wrap: break-word; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #3c3c3c; max-width: 46rem; margin-top: .4rem; }
dt { font-weight: 600; margin-top: .8rem; }
dd { margin: 0 0 0 1.2rem; }
.note, .source, .made { color: #5f5f5f; font-size: .88rem; }
@media print {
  body { font-size: 10.5pt; max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  .number, .short { white-space: normal; }
  nav { display: none; }
  figure, tr, dt, dd { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  a { color: inherit; text-decoration: none; }
}
"""


def write_html(
    path: str | os.PathLike,
    *,
    report: Report | None = None,
    calibrations: Calibrations | None = None,
    comparison: Comparison | None = None,
    curves: Curves | None = None,
    difficulty: Difficulty | None = None,
    title: str | None = None,
    force: bool = False,
) -> pathlib.Path:
    """Writes one HTML file that needs no other file, no network and no script; gives its path.

    First a verdict in words, then tables and figures with how to read them, then notes, settings, versions and
    fingerprints. Every part is made of what is given, and left out without it.

    **Arguments:**

    - `report`: of `vcjax.evaluate`.
    - `calibrations`: of `vcjax.evaluation.calibrate_screen`; or of `vcjax.calibration.calibrate`, by the name of the
        metric, or such mappings by context.
    - `comparison`: of `vcjax.evaluation.compare`.
    - `curves`: of `vcjax.calibration.effect_curve`: one, or several by context or by what they are of; those of the
        report, if none are given.
    - `difficulty`: of `vcjax.evaluation.difficulty`, in the order of the report's perturbations; or such mappings by
        context; that of the report, if none is given.
    - `title`: of the page. `force`: write over a file that is there.

    Labels, paths and notes are text on the page whatever they contain. The file appears under its name when it is
    complete.

    **Raises:** `vcjax.io.Refusal` for a file that is there (unless `force`), a folder, an input of the report, and
    without matplotlib, all of them before anything is drawn; `ValueError` if nothing is given, and for indicators that
    do not fit the report.
    """
    content = make_content(report, calibrations, comparison, curves, difficulty)
    path = pathlib.Path(path)
    check_page(path, content.stamp.get("inputs") or {}, force=force)
    text = page(content, title or _title(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def page(content: Content, title: str) -> str:
    """The whole page."""
    parts = {
        "scores": ("Scores", scores(content)),
        "controls": ("What the metrics can tell", controls(content)),
        "models": ("Two models", models(content)),
        "sizes": ("Size of effects", sizes(content)),
        "difficulty": ("Easy and hard", hardness(content)),
        "perturbations": ("Perturbations", perturbations(content)),
        "metrics": ("Metrics", definitions(content)),
        "origin": ("Origin", origin(content)),
    }
    links = [element("li", element("a", told, href=f"#{anchor}")) for anchor, (told, part) in parts.items() if part]
    created = content.stamp.get("created")
    made = f"Made by vcjax{f' on {created}' if created else ''}."
    header = element(
        "header",
        element("h1", title),
        element("p", made, class_="made"),
        in_short(content),
        element("nav", element("ul", *links)),
    )
    body = element("body", header, element("main", *(part for _, part in parts.values())))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_CSS)),
    )
    return joined_markup([Markup("<!DOCTYPE html>"), element("html", head, "\n", body, lang="en"), "\n"], "\n")


def _title(content: Content) -> str:
    if content.report is not None:
        inputs = content.report.stamp.get("inputs", {})
        return f"How well {pathlib.PurePath(str(inputs.get('pred', 'the prediction'))).name} predicts the screen"
    if content.comparison is not None:
        return f"{content.comparison.names[0]} against {content.comparison.names[1]}"
    return "What metrics can tell on this screen" if content.calibrations else "Predicted and measured effects"


def check_page(path: str | os.PathLike, inputs: Mapping[str, str], *, force: bool = False) -> None:
    """Refuses a page that could not be drawn or would destroy a file; touches nothing.

    **Raises:** `vcjax.io.Refusal` as `write_html`.
    """
    path = pathlib.Path(path)
    if any(
        pathlib.Path(source).exists() and pathlib.Path(source).resolve() == path.resolve() for source in inputs.values()
    ):
        raise Refusal(
            what="The page would be written over an input.",
            where=str(path),
            why="The data that it describes would be lost.",
            fix="Name another file: write_html(path).",
        )
    if path.is_dir():
        raise Refusal(
            what="The page is to be a file, and this is a folder.",
            where=str(path),
            why="A page is one file.",
            fix=f"Name a file in it: write_html({str(path / 'report.html')!r}).",
        )
    if path.exists() and not force:
        raise Refusal(
            what="The page exists.",
            where=str(path),
            why="Writing would destroy it.",
            fix="Name another file, or allow it: force=True / --force.",
        )
    require_matplotlib()
