"""What effects are measured from: profiles that know which perturbations they were made of."""

from ._contexts import per_context as per_context
from ._leak import check_leak as check_leak, find_leak as find_leak, LeakError as LeakError
from ._reference import (
    all_mean as all_mean,
    control_reference as control_reference,
    external as external,
    loo_mean as loo_mean,
    Reference as Reference,
    train_mean as train_mean,
)
