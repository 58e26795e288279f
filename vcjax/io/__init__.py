"""Screens, summaries and tables on the host: everything that sees a file or an AnnData."""

from ._baseline import (
    Baseline as Baseline,
    baseline_screen as baseline_screen,
    generic_response as generic_response,
    log_normalised as log_normalised,
    write_screen as write_screen,
)
from ._challenge import (
    CELL_EVAL_PREP as CELL_EVAL_PREP,
    CHALLENGES as CHALLENGES,
    read_gene_list as read_gene_list,
    read_pert_counts as read_pert_counts,
    Rules as Rules,
    VCC2026 as VCC2026,
)
from ._csv import read_csv as read_csv
from ._de import differential_expression as differential_expression
from ._de_csv import read_de_table as read_de_table, write_de_table as write_de_table
from ._de_settings import (
    CELL_EVAL2_DE as CELL_EVAL2_DE,
    CELL_EVAL_DE as CELL_EVAL_DE,
    DESettings as DESettings,
    VCC2025_DE as VCC2025_DE,
)
from ._de_table import HostTable as HostTable
from ._errors import Refusal as Refusal
from ._halves import split_halves as split_halves
from ._match import match_screens as match_screens
from ._matrix import Matrix as Matrix
from ._predictors import DEMO_PREDICTORS as DEMO_PREDICTORS, DemoPredictor as DemoPredictor
from ._prepare import prepare_submission as prepare_submission, Prepared as Prepared
from ._screen import read_screen as read_screen, Screen as Screen
from ._simulate import simulate_screen as simulate_screen, SimulatedScreen as SimulatedScreen
from ._submission import check_submission as check_submission, Submission as Submission
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
