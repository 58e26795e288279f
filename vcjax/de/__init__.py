from ._adjust import benjamini_hochberg as benjamini_hochberg, expressed as expressed, withheld as withheld
from ._energy import (
    energy_distance as energy_distance,
    energy_distances as energy_distances,
    mean_distance as mean_distance,
)
from ._fold_change import geometric_mean as geometric_mean, log2_fold_change as log2_fold_change
from ._moments import (
    MeanTest as MeanTest,
    Moments as Moments,
    pseudo_test as pseudo_test,
    rest_of as rest_of,
    welch_test as welch_test,
)
from ._normal import log_two_sided as log_two_sided, normal_score as normal_score
from ._ranksum import rank_sums as rank_sums, RankSums as RankSums
from ._significance import significant as significant
from ._soft_ranksum import soft_rank_sums as soft_rank_sums, SoftRankSums as SoftRankSums
from ._soft_table import de_table as de_table, group_cells as group_cells
from ._sorted_control import sort_control as sort_control, SortedControl as SortedControl
from ._student import log_student as log_student
from ._table import DETable as DETable
from ._tabulated_control import tabulate_control as tabulate_control, TabulatedControl as TabulatedControl
from ._zero_floor import default_zero_floor as default_zero_floor, Floored as Floored, zero_floor as zero_floor
