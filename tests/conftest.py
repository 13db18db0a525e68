"""Every test sees eight virtual CPU devices, and arrays of unequal rank never mix.

Child processes do not inherit this: they see the devices of the machine.
"""

import gc
import os

# Before numpy is imported: with a process of tests on each core already, threads that
# wait for each other made small products ten times as slow.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# Most of the time goes into compiling for shapes that run in no time.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def devices():
    """The eight devices."""
    found = jax.devices()
    assert len(found) == 8 and found[0].platform == "cpu"
    return found


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Child processes, many of which need the same programs, share what they compile.

    They compile as quickly as this process, which shares nothing: jax reads the
    environment when it is imported.
    """
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(shared / "compiled"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What a file of tests compiled is dropped at its end.

    Each program is some mappings of memory, of which a process may have 65,530; beyond
    them, the compiler ends with a segmentation fault.
    """
    yield
    jax.clear_caches()
    gc.collect()
