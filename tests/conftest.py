import jax
import pytest


jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def getkey():
    """A function that gives a fresh key at every call, the same sequence in every run."""
    keys = iter(jax.random.split(jax.random.key(5678), 1000))
    return lambda: next(keys)


def pytest_collection_modifyitems(items):
    """All laws of one metric run one after the other and in one process, which compiles the metric once."""
    metric = lambda item: item.callspec.params.get("name") if hasattr(item, "callspec") else None
    laws = [item for item in items if item.path.name == "test_laws.py" and metric(item)]
    first = {}
    for item in laws:
        first.setdefault(metric(item), len(first))
    rest = [item for item in items if item not in set(laws)]
    items[:] = [*rest, *sorted(laws, key=lambda item: first[metric(item)])]
    for item in laws:
        item.add_marker(pytest.mark.xdist_group(metric(item)))


# Hundreds of programs run once each, on tiny arrays: optimising them would take most of the time of these files.
_COMPILED_QUICKLY = ("test_laws", "test_de_laws", "test_de_metrics", "test_moments", "test_significance", "test_adjust")
_COMPILED_QUICKLY += ("test_soft_ranksum", "test_losses", "test_metrics", "test_pseudobulk", "test_energy")
_COMPILED_QUICKLY += (
    "test_controls",
    "test_calibration",
    "test_strata",
    "test_target_metrics",
    "test_weighted_metrics",
)
_COMPILED_QUICKLY += ("test_weights", "test_references", "test_weighted_metrics", "test_compare")


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly(request):
    name = "jax_disable_most_optimizations"
    jax.config.update(name, request.module.__name__ in _COMPILED_QUICKLY)
    yield
    jax.config.update(name, False)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """A process that keeps every program it ever compiled grows to gigabytes, and slower."""
    yield
    jax.clear_caches()
