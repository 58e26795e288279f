"""What `import vcjax` costs."""

import subprocess
import sys


def test_import_is_light():
    heavy = ("jax", "equinox", "anndata", "pandas", "matplotlib", "numba", "zarr", "h5py", "rich")
    code = f"import sys, vcjax; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_import_leaves_jax_as_it_is():
    code = (
        "import jax; before = jax.config.jax_enable_x64; import vcjax; vcjax.metrics, vcjax.as_loss, vcjax.evaluate; "
        "from jax._src import xla_bridge; "
        "print(before == jax.config.jax_enable_x64, xla_bridge.backends_are_initialized())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]
