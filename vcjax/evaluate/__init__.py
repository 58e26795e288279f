"""Evaluation of a predicted screen: `evaluate(pred, real)` and the report it returns."""

import sys
import types
from typing import Any

from ._aggregate import Aggregate as Aggregate
from ._evaluate import evaluate as evaluate, prepare as prepare
from ._plan import Plan as Plan
from ._presets import Preset as Preset, PRESETS as PRESETS
from ._report import Report as Report
from ._run import run_plan as run_plan
from ._select import find_metric as find_metric, get_preset as get_preset, select as select, Selection as Selection
from ._sides import read_path as read_path, Reading as Reading
from ._stamp import versions as versions
from ._table import number as number
from ._write import check_folder as check_folder, write_report as write_report


class _Callable(types.ModuleType):
    # `vcjax.evaluate` is this subpackage as soon as anything is imported from it, and a function to everyone who reads
    # the documentation: both must work.
    def __call__(self, *args: Any, **kwargs: Any) -> Report:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
