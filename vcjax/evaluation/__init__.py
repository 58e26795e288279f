"""Evaluation of a predicted screen: `evaluate(pred, real)` and the report it returns."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .._lazy import attach as _attach


if _TYPE_CHECKING:
    from ._aggregate import Aggregate as Aggregate
    from ._anchor import Anchor as Anchor, replicate_anchor as replicate_anchor
    from ._baseline import baseline_of as baseline_of
    from ._baseline_file import BaselineScreen as BaselineScreen
    from ._baseline_results import BaselineRow as BaselineRow, BaselineTable as BaselineTable
    from ._baseline_table import baseline_table as baseline_table
    from ._calibrate_screen import calibrate_screen as calibrate_screen
    from ._ceiling import Ceiling as Ceiling, data_ceiling as data_ceiling
    from ._compare import compare as compare
    from ._comparison import ComparedMetric as ComparedMetric, Comparison as Comparison
    from ._controls import make_controls as make_controls
    from ._difficulty import difficulty as difficulty
    from ._evaluate import evaluate as evaluate, prepare as prepare
    from ._fit_baseline import fit_baseline as fit_baseline
    from ._intervals import ScoreInterval as ScoreInterval, with_intervals as with_intervals
    from ._plan import Plan as Plan
    from ._presets import Preset as Preset, PRESETS as PRESETS
    from ._report import Report as Report
    from ._run import run_plan as run_plan
    from ._score import read_aggregates as read_aggregates, score as score, Scores as Scores
    from ._screen_calibration import ScreenCalibration as ScreenCalibration
    from ._select import find_metric as find_metric, get_preset as get_preset, select as select, Selection as Selection
    from ._sides import read_path as read_path, Reading as Reading
    from ._stamp import versions as versions
    from ._table import number as number
    from ._write import check_folder as check_folder, write_report as write_report

__getattr__, __dir__ = _attach(
    __name__,
    {
        "Aggregate": "._aggregate",
        **dict.fromkeys(("Anchor", "replicate_anchor"), "._anchor"),
        "baseline_of": "._baseline",
        "BaselineScreen": "._baseline_file",
        **dict.fromkeys(("BaselineRow", "BaselineTable"), "._baseline_results"),
        "baseline_table": "._baseline_table",
        "calibrate_screen": "._calibrate_screen",
        **dict.fromkeys(("Ceiling", "data_ceiling"), "._ceiling"),
        "compare": "._compare",
        **dict.fromkeys(("ComparedMetric", "Comparison"), "._comparison"),
        "make_controls": "._controls",
        "difficulty": "._difficulty",
        **dict.fromkeys(("evaluate", "prepare"), "._evaluate"),
        "fit_baseline": "._fit_baseline",
        **dict.fromkeys(("ScoreInterval", "with_intervals"), "._intervals"),
        "Plan": "._plan",
        **dict.fromkeys(("Preset", "PRESETS"), "._presets"),
        "Report": "._report",
        "run_plan": "._run",
        "ScreenCalibration": "._screen_calibration",
        **dict.fromkeys(("read_aggregates", "score", "Scores"), "._score"),
        **dict.fromkeys(("find_metric", "get_preset", "select", "Selection"), "._select"),
        **dict.fromkeys(("read_path", "Reading"), "._sides"),
        "versions": "._stamp",
        "number": "._table",
        **dict.fromkeys(("check_folder", "write_report"), "._write"),
    },
)
