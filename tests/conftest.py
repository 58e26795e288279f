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


@pytest.fixture
def own_compilation_cache(tmp_path, monkeypatch):
    """The cache of compiled programs is a setting of the process: keep it out of the home folder and of other tests."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
    before = jax.config.values["jax_compilation_cache_dir"]
    yield
    jax.config.update("jax_compilation_cache_dir", before)


_SPREAD = ("test_laws.py", "test_de_laws.py")  # long, and with little in common from one metric to the next


def pytest_collection_modifyitems(items):
    """What is compiled for one test serves its neighbours: a file runs in one process, and so do a metric's laws."""
    metric = lambda item: item.callspec.params.get("name") if hasattr(item, "callspec") else None
    laws = [item for item in items if item.path.name == "test_laws.py" and metric(item)]
    first = {}
    for item in laws:
        first.setdefault(metric(item), len(first))
        item.add_marker(pytest.mark.xdist_group(metric(item)))
    rest = [item for item in items if item not in set(laws)]
    for item in rest:
        if item.path.name not in _SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    # Last come the many small groups, which fill the processes evenly.
    items[:] = [*rest, *sorted(laws, key=lambda item: first[metric(item)])]


# Hundreds of programs run once each, on tiny arrays: optimising them would take most of the time of these files.
_COMPILED_QUICKLY = {
    *("test_laws", "test_de_laws", "test_de_metrics", "test_moments", "test_significance", "test_adjust"),
    *("test_soft_ranksum", "test_losses", "test_metrics", "test_pseudobulk", "test_energy", "test_controls"),
    *("test_calibration", "test_strata", "test_target_metrics", "test_weighted_metrics", "test_weights"),
    *("test_references", "test_compare", "test_calibrated", "test_calibrate_screen", "test_intervals"),
    *("test_baselines_means", "test_baselines_additive", "test_baselines_oracles", "test_baselines_files"),
    *("test_neighbours", "test_pca_ridge", "test_linear_baselines", "test_transfer_rules", "test_knowledge"),
    *("test_krr", "test_relatedness", "test_gp", "test_neural_baselines", "test_compose", "test_training"),
}


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
