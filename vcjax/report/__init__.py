"""Figures of what an evaluation found, and one HTML page that holds them with the tables and the words.

Figures need matplotlib, the extra `plot`; it is imported when the first one is drawn.
"""

from ._curve import calibration_curve as calibration_curve
from ._heatmap import controls_heatmap as controls_heatmap
from ._html import check_page as check_page, write_html as write_html
from ._scatter import perturbation_scatter as perturbation_scatter
from ._strata import strata_plot as strata_plot
from ._strip import controls_strip as controls_strip
from ._style import require_matplotlib as require_matplotlib
