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
    """All laws of one metric run in one process, which compiles the metric once."""
    for item in items:
        if item.path.name == "test_laws.py" and "name" in getattr(item, "callspec", item).__dict__.get("params", {}):
            item.add_marker(pytest.mark.xdist_group(item.callspec.params["name"]))
