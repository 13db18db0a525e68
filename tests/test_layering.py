"""The shape of the code, read from its syntax trees: imports point down only."""

import ast
import collections
import functools
import graphlib
import pathlib
import re

import pytest

from llm import registry

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "llm").rglob("*.py"))

# From the top; imports point down, within a line to the right. The files that lie loose
# in llm/ are `root`, but for `main`, which starts a workload.
LAYERS = (
    "main workloads",
    "reports planning sweeps",
    "serve",
    "guards evals",
    "training rewards inference",
    "interop adapters compress models objectives",
    "nn",
    "sources stages data tokenizers corpus",
    "text",
    "root",
)
ORDER = [name for line in LAYERS for name in line.split()]
# One file per thing; these never import each other. Their contract is the folder's
# `__init__.py`.
PLUG_INS = registry.FOLDERS
# What evaluations may know of inference: they ask, and do not see who answers.
OF_INFERENCE = {"inference.requests", "inference.progress"}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def module(path):
    """`nn.attention` for llm/nn/attention.py; `` for llm/__init__.py."""
    name = ".".join(path.relative_to(ROOT / "llm").with_suffix("").parts)
    return re.sub(r"\.?__init__$", "", name)


@functools.cache
def modules():
    """All modules and folders of llm."""
    return {module(file) for file in FILES} | {file.parent.name for file in FILES}


def member(name):
    """The folder of a module; `root` for a file that lies loose."""
    first, dot, _ = name.partition(".")
    folder = dot or (ROOT / "llm" / first).is_dir()
    return first if folder or first == "main" else "root"


@functools.cache
def imported(path):
    """Modules of llm that a file imports, wherever in it the statement stands."""
    known = modules()
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import, line {node.lineno}"
            if node.module.partition(".")[0] == "llm":
                base = node.module.removeprefix("llm").removeprefix(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}".removeprefix(".")
                    found.add(full if full in known else base)
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("llm.")]
            found |= {name.removeprefix("llm").removeprefix(".") for name in names}
    return found - {""}


def public(tree):
    """Public functions and classes of a module, and public methods of the classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    # Linen calls `setup`; what it does is the class's docstring.
                    if isinstance(inner, ast.FunctionDef) and not (
                        inner.name.startswith("_") or inner.name == "setup"
                    ):
                        yield f"{node.name}.{inner.name}", inner


def test_every_folder_has_its_layer():
    missing = {member(module(path)) for path in FILES if module(path)} - set(ORDER)
    assert not missing, f"add {sorted(missing)} to LAYERS"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_down(path):
    me = member(module(path))
    for other in imported(path):
        it = member(other)
        if it == me:
            plug_in = me in PLUG_INS and me != other
            assert not plug_in, f"{module(path)} imports {other}, another plug-in"
            continue
        down = ORDER.index(me) < ORDER.index(it)
        assert down, f"{module(path)} imports {other}, not below it"
        if (me, it) == ("evals", "inference"):
            assert other in OF_INFERENCE, f"{module(path)} imports {other}"


def test_one_name_means_one_thing():
    """Plug-ins aside, whose names users write, no two files have one name."""
    names = collections.Counter(
        path.stem
        for path in FILES
        if path.parent.name not in PLUG_INS and path.stem != "__init__"
    )
    twice = sorted(name for name, count in names.items() if count > 1)
    assert not twice, f"two files are called {twice}"


def test_no_cycles_within_a_folder():
    edges = {module(path): imported(path) for path in FILES}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"cycle: {' > '.join(error.args[1])}")


def test_layout():
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        assert len(parts) <= 3, f"{path} is deeper than llm/folder/file.py"
        vague = {"utils", "util", "common", "helpers", "helper", "misc"}
        assert not vague & {*parts[:-1], path.stem}, f"{path}: name what it holds"
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= 600, f"{path} has {lines} lines"


def test_functions_can_be_read():
    """A screen or two: what is longer is several things."""
    long = [
        f"{module(path)}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 120
    ]
    assert not long, long


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_process_devices_below_workloads(path):
    """The backend is the platform of a mesh's devices, else plans compile for here."""
    if member(module(path)) in ("main", "workloads"):
        return
    asked = {"devices", "local_devices", "default_backend", "device_count"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "jax":
            assert not asked & {alias.name for alias in node.names}, path
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            named = f"{node.value.id}.{node.attr}"
            assert named not in {f"jax.{name}" for name in asked}, f"{path}: {named}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_is_pickled(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", ""), *(alias.name for alias in node.names)]
            assert not {"pickle", "cloudpickle", "dill", "shelve"} & set(names), path
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


@pytest.mark.parametrize("path", FILES, ids=module)
def test_public_things_have_docstrings(path):
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    bare = [name for name, node in public(tree) if not ast.get_docstring(node)]
    assert not bare, f"{path}: no docstring on {', '.join(bare)}"


def test_the_reader_of_imports_sees_them():
    """The checks above would pass on nothing; these two imports are there."""
    assert "errors" in imported(ROOT / "llm/registry.py")
    assert "data.tokens" in imported(ROOT / "llm/data/loader.py")
    assert "training.assembly" in imported(ROOT / "llm/workloads/plan.py")
