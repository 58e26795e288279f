"""The page: it stands alone, says what was found, and takes every label as text."""

import dataclasses
import html.parser
import os
import re
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats
from test_plots import calibrations, curve_of, LABELS, PERTS, report_of, spread

from vcjax.evaluation import compare, number, ScreenCalibration, with_intervals
from vcjax.io import Refusal
from vcjax.metrics import Status
from vcjax.report import write_html
from vcjax.report._markup import element, table
from vcjax.report._words import reason


pytestmark = pytest.mark.long

NAN = float("nan")
EVIL = "<script>alert('x')</script>\" onload=\"&amp;"


class Page(html.parser.HTMLParser):
    """Tags with attributes, the text of the page, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return page


def whole_report(**changes):
    values = {"pds_cosine": spread(0.8), "expr_mse": spread(0.02, 0.001), "amplitude_ratio": spread(0.5)}
    values["delta_cosine"] = np.r_[NAN, spread(0.4)[1:]]
    stamp = {
        "inputs": {"pred": "runs/mine.h5ad", "real": "data/k562.h5ad"},
        "fingerprints": {"screens": {"pred": "aaa111", "real": "bbb222"}},
        "settings": {"seed": 0, "target_map": {f"label{i}": f"gene{i}" for i in range(100)}},
        "versions": {"vcjax": "0.1.0"},
        "notes": ["real: counts, since all values are whole numbers"],
        "genes": 1234,
        "digest": "d1g3st",
    }
    return report_of(changes.pop("values", values), **(stamp | changes))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    rivals = [report_of({"pds_cosine": spread(x, seed=i)}, preset="v2") for i, x in enumerate((0.8, 0.6))]
    comparison = compare(rivals[0], rivals[1], samples=100, permutations=99, names=("mine", "mean"))
    size = np.linspace(0.1, 1, PERTS)
    written = write_html(
        path,
        report=whole_report(),
        calibrations=calibrations(),
        comparison=comparison,
        curves=curve_of(0.5),
        difficulty={"effect_size": size, "cells": np.r_[NAN, np.arange(1.0, PERTS)]},
    )
    assert written == path
    return path


def test_the_page_stands_alone(everything):
    page, text = read(everything), everything.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attrs in page.tags:
        assert attrs.get("src", "data:image/").startswith("data:image/")
        assert attrs.get("href", "#").startswith("#")
    assert "@import" not in text
    assert "url(" not in text.split("</style>")[0]
    assert os.listdir(everything.parent) == ["report.html"]  # nothing temporary is left


def test_the_page_has_a_structure_that_can_be_read_aloud(everything):
    page = read(everything)
    assert page.named("html")[0]["lang"] == "en"
    assert len(page.named("h1")) == 1
    assert len(page.named("h2")) >= 8
    assert all(attrs["scope"] in ("col", "row") for attrs in page.named("th"))
    assert all(len(attrs["alt"]) > 20 for attrs in page.named("img"))
    assert len(page.named("figcaption")) == len(page.named("img")) == len(page.named("figure")) >= 6
    names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(names) == len(set(names))
    assert {attrs["href"][1:] for attrs in page.named("a")} <= set(names)


def test_the_first_lines_say_what_was_found(everything):
    text = read(everything).text
    short = text[text.index("In short") : text.index("Interval:")]
    for told in (
        "The prediction runs/mine.h5ad with the measurement data/k562.h5ad",
        f"{PERTS} perturbations, 4,200 measured cells, 2,100 predicted cells, 1,234 genes",
        "1 of 3 metrics can tell a replicate of the experiment from the mean of the perturbations on this data",
        "on this data: pds_cosine",
        "expr_mse cannot",
        "Not judged: delta_cosine",
        f"the model lies at {calibrations()['pds_cosine'].score:.2f} by pds_cosine (95% interval",
        "times as large as the measured ones, on average over perturbations: too small",
        "Predicted effects are too large: where the model predicts an effect of 1, 0.50 is measured",
        "mine is better by 1 metric (pds_cosine)",
        "The predicted effect is the same for all genes that count: 1 of delta_cosine. They are shown as –",
    ):
        assert told in short, told


def test_tables_have_the_numbers_of_the_report(everything):
    page, values = read(everything), spread(0.8)
    row = page.text[page.text.index("pds_cosine higher") :][:120]
    assert f"{values.mean():.4f}" in row
    low, high = (float(x) for x in re.search(r"(0\.\d+) to (0\.\d+)", row).groups())  # pyright: ignore
    expected = scipy.stats.t.interval(0.95, PERTS - 1, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose([low, high], expected, atol=0.1 * (high - low))
    for told in ("aaa111", "bbb222", "d1g3st", "all values are whole numbers", "more characters in run_meta.json"):
        assert told in page.text
    assert "1 - #{q: d(d^_p, d_q) &lt;" in everything.read_text(encoding="utf-8")  # a formula of the catalogue


def test_labels_paths_and_notes_are_text(tmp_path):
    labels = (EVIL, *LABELS[1:])
    stamp = {"inputs": {"pred": f"{EVIL}.h5ad", "real": "real.h5ad"}, "notes": [EVIL], "settings": {EVIL: EVIL}}
    report = report_of({"pds_cosine": spread(0.8)}, labels=labels, contexts=(EVIL, "b"), **stamp)
    difficulty = {EVIL: {"effect_size": spread(1.0), EVIL: spread(2.0)}, "b": {"cells": spread(3.0)}}
    path = tmp_path / "page.html"
    write_html(path, report=report, calibrations={EVIL: calibrations()}, difficulty=difficulty, title=EVIL)
    text, page = path.read_text(encoding="utf-8"), read(path)
    assert "<script" not in text
    assert page.named("h1")
    assert all("onload" not in attrs for _, attrs in page.tags)
    assert EVIL in "".join(page.words)


@pytest.mark.parametrize(
    "parts",
    [
        {"report": whole_report()},
        {"calibrations": calibrations()},
        {"curves": {"mine": curve_of(1.0), "other": curve_of(0.2)}},
        {"report": whole_report(contexts=("a", "b")), "calibrations": {"a": calibrations(), "b": calibrations()}},
        {"difficulty": {"cells": np.arange(5.0)}},
    ],
    ids=lambda parts: "-".join(parts),
)
def test_any_part_makes_a_page(tmp_path, parts):
    page = read(write_html(tmp_path / "new" / "page.html", **parts))
    assert "In short" in page.text
    wanted = {"scores": "report", "controls": "calibrations", "sizes": "curves", "difficulty": "difficulty"}
    anchors = {attrs["id"] for attrs in page.named("section")}
    assert {name for name in wanted if name in anchors} == {name for name, part in wanted.items() if part in parts}


def test_what_a_report_and_a_calibration_bring_is_on_the_page(tmp_path):
    rows = calibrations()
    calibrated = ScreenCalibration(
        {("", name): row for name, row in rows.items()}, {"": LABELS}, {"pds_l1": "no reason"}, {"notes": ["a <note>"]}
    )
    page = read(write_html(tmp_path / "calibration.html", calibrations=calibrated))
    for told in ("1 of 3 metrics can tell", "pds_l1 no reason", "a <note>"):
        assert told in page.text
    report = with_intervals(whole_report(), 200, level=0.5)
    report = dataclasses.replace(report, curves={"": curve_of(0.5)}, difficulty={"": {"cells": np.arange(PERTS) + 0.5}})
    page = read(write_html(tmp_path / "report.html", report=report))
    row = next(row for row in report.intervals if row.metric == "pds_cosine")
    assert f"{number(row.value)} {number(row.low)} to {number(row.high)}" in page.text
    assert "Interval: 50%, bootstrap over perturbations (200 samples, seed 0)" in page.text
    assert {"sizes", "difficulty"} <= {attrs["id"] for attrs in page.named("section")}


def test_several_contexts_stand_side_by_side(tmp_path):
    path = tmp_path / "page.html"
    calibrated = {"a": calibrations(), "b": calibrations()}
    page = read(write_html(path, report=whole_report(contexts=("a", "b")), calibrations=calibrated))
    for told in ("Context a", "Context b", "In a, 1 of 3 metrics", "in 2 contexts (a: 20 and b: 20)"):
        assert told in page.text


def test_a_comparison_alone(tmp_path):
    rivals = [report_of({"pds_cosine": spread(0.8, seed=i), "expr_mse": spread(1.0, seed=5 + i)}) for i in (0, 1)]
    found = compare(rivals[0], rivals[1], samples=100, permutations=99, names=("<mine>", "b"))
    page = read(write_html(tmp_path / "page.html", comparison=found))
    assert "<mine> and b were compared on the same 20 perturbations" in page.text
    assert "no difference is shown by 2" in page.text


def test_failed_metrics_are_named_with_their_message(tmp_path):
    report = whole_report(errors={"expr_mse": "ValueError: no noise"})
    report.value[report.metric == "expr_mse"] = NAN
    report.status[report.metric == "expr_mse"] = "error"
    page = read(write_html(tmp_path / "page.html", report=report))
    assert "What failed. expr_mse (ValueError: no noise)." in page.text
    assert "the metric failed (20)" in page.text


def test_long_tables_end_with_what_is_left_out(tmp_path):
    labels = tuple(f"p{i}" for i in range(130))
    report = report_of({"pds_cosine": np.linspace(0, 1, 130)}, labels=labels)
    page = read(write_html(tmp_path / "page.html", report=report))
    assert "105 of 130 rows are left out here: every value is in the report's own table" in page.text
    assert "p0 0.0000" in page.text
    assert "p129 1.0000" not in page.text
    short = table(["a"], [[i] for i in range(5)], most=3)
    assert short.count("<tr>") == 4
    assert "2 of 5 rows are left out here." in short


def test_a_file_that_is_there_stays_unless_told_otherwise(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("precious")
    parts: dict[str, Any] = {"curves": curve_of(1.0)}
    with pytest.raises(Refusal, match="force=True"):
        write_html(path, **parts)
    assert path.read_text() == "precious"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_html(path, **parts, force=True)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["page.html"]
    monkeypatch.undo()
    write_html(path, **parts, force=True)
    assert path.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(Refusal, match="folder"):
        write_html(tmp_path, **parts)
    source = tmp_path / "real.h5ad"
    source.write_text("cells")
    report = whole_report(inputs={"pred": "x", "real": str(source)})
    with pytest.raises(Refusal, match="over an input"):
        write_html(source, report=report, force=True)
    assert source.read_text() == "cells"


def test_what_cannot_be_a_page(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="nothing to report"):
        write_html(tmp_path / "page.html")
    with pytest.raises(ValueError, match="one number for each of 20"):
        write_html(tmp_path / "page.html", report=whole_report(), difficulty={"cells": np.ones(3)})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Refusal, match="matplotlib"):
        write_html(tmp_path / "page.html", report=whole_report())
    assert os.listdir(tmp_path) == []


def test_equal_inputs_give_equal_pages(tmp_path):
    pages = [write_html(tmp_path / f"{i}.html", calibrations=calibrations(), curves=curve_of(0.5)) for i in (0, 1)]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_every_status_has_words():
    for status in Status:
        if status is not Status.OK:
            assert reason(status.label) != status.label.replace("_", " ")


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "<b>", element("i", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert element("img", src="x", alt=None) == '<img src="x">'
