"""Evaluation of a predicted screen: `evaluate(pred, real)` and the report it returns."""

from ._aggregate import Aggregate as Aggregate
from ._anchor import Anchor as Anchor, replicate_anchor as replicate_anchor
from ._baseline import baseline_of as baseline_of
from ._ceiling import Ceiling as Ceiling, data_ceiling as data_ceiling
from ._evaluate import evaluate as evaluate, prepare as prepare
from ._plan import Plan as Plan
from ._presets import Preset as Preset, PRESETS as PRESETS
from ._report import Report as Report
from ._run import run_plan as run_plan
from ._score import read_aggregates as read_aggregates, score as score, Scores as Scores
from ._select import find_metric as find_metric, get_preset as get_preset, select as select, Selection as Selection
from ._sides import read_path as read_path, Reading as Reading
from ._stamp import versions as versions
from ._table import number as number
from ._write import check_folder as check_folder, write_report as write_report
