"""The command line: strings become objects here and nowhere else."""

from ._main import main as main
