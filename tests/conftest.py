"""Every test sees eight virtual CPU devices, and arrays of unequal rank never mix.

Child processes do not inherit this: they see the devices of the machine.
"""

import collections
import gc
import os
import pathlib

# Before numpy is imported: with a process of tests on each core already, threads that
# wait for each other made small products ten times as slow.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# Most of the time goes into compiling for shapes that run in no time.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


# What another run of the suite leaves to one with --only-rest, beside what it skipped;
# what is long is left to the nightly run.
REST = ("oracle", "commands", "browser")


def pytest_addoption(parser):
    """Two runs that share the work: the second does what the first could not."""
    parser.addoption("--write-skipped", metavar="FILE", help="names of skipped tests")
    parser.addoption(
        "--only-rest", metavar="FILE", help=f"those, and {', '.join(REST)}"
    )


def pytest_collection_modifyitems(config, items):
    path = config.getoption("--only-rest")
    if not path:
        return
    names = set(pathlib.Path(path).read_text().splitlines())
    rest = [
        item
        for item in items
        if not item.get_closest_marker("long")
        and (
            any(item.get_closest_marker(mark) for mark in REST)
            or names & {item.nodeid, item.nodeid.partition("::")[0]}
        )
    ]
    items[:] = rest


def pytest_terminal_summary(terminalreporter, config):
    """How many tests were skipped, by what is missing."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(
        str(report.longrepr[-1]).removeprefix("Skipped: ").partition(": No module")[0]
        for report in skipped
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")
    path = config.getoption("--write-skipped")
    if path:
        names = {report.nodeid for report in skipped}
        # Of files that are skipped for the same line of another file, pytest-xdist
        # reports the first alone.
        reports = (r for some in terminalreporter.stats.values() for r in some)
        ran = {getattr(r, "nodeid", "").partition("::")[0] for r in reports}
        folder = pathlib.Path(__file__).parent
        files = (f.relative_to(folder.parent) for f in folder.rglob("test_*.py"))
        names |= {file.as_posix() for file in files} - ran
        pathlib.Path(path).write_text("\n".join(sorted(names)) + "\n")


@pytest.fixture(scope="session")
def devices():
    """The eight devices."""
    found = jax.devices()
    assert len(found) == 8 and found[0].platform == "cpu"
    return found


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """All processes of a run share what they compile: many need the same programs.

    This process reads the settings of jax, its children their environment.
    """
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    place, least = str(shared / "compiled"), "0.2"
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", place)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", least)
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
