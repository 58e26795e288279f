"""What the command line, and never the library, sets for the process it owns: cores, heap, exit, JAX's cache."""

import atexit
import contextlib
import ctypes
import gc
import os
import pathlib


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept between runs."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named:
        return pathlib.Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "vcjax" / "xla"


def limit_threads(count: int | None) -> None:
    """Restricts this process to some of its cores; must be called before JAX makes its thread pools."""
    if count is None:
        return
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(count))
    if hasattr(os, "sched_setaffinity"):  # Linux only; elsewhere XLA uses all cores
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: max(1, count)])


def share_heap() -> None:
    """Lets all threads free and reuse the same memory: glibc gives each its own heap, a third more at the peak."""
    arena_max = -8  # M_ARENA_MAX of <malloc.h>
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no such setting
        ctypes.CDLL(None).mallopt(arena_max, 1)


def leave_at_once() -> None:
    """Lets the interpreter exit without a last search for cycles among all that was imported: half a second."""
    atexit.register(gc.freeze)


def keep_compiled_programs() -> None:
    """Points JAX at the cache folder, so that the second run of a command starts quickly."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
