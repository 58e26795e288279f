"""Screens, summaries and tables on the host: everything that sees a file or an AnnData."""

from ._csv import read_csv as read_csv
from ._errors import Refusal as Refusal
from ._match import match_screens as match_screens
from ._matrix import Matrix as Matrix
from ._predictors import DEMO_PREDICTORS as DEMO_PREDICTORS, DemoPredictor as DemoPredictor
from ._screen import read_screen as read_screen, Screen as Screen
from ._simulate import simulate_screen as simulate_screen, SimulatedScreen as SimulatedScreen
from ._summarise import summarise as summarise
from ._summary import load_summary as load_summary, Summary as Summary
from ._targets import (
    read_target_map as read_target_map,
    report_targets as report_targets,
    resolve_target_sets as resolve_target_sets,
    resolve_targets as resolve_targets,
    TargetReport as TargetReport,
)
from ._values import ValueCheck as ValueCheck
