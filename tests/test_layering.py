"""The shape of the code, read from its syntax trees: imports point down only."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "llm").rglob("*.py"))

# From the top. A name is a file of llm/, or a folder with all its files; the members of
# one line do not import each other.
LAYERS = (
    "main",
    "command_line",
    "workloads",
    "train_checks",
    "aot",
    "serve",
    "beginning",
    "train finite finished plan report interpret importing harness comparing drift "
    "lr_range",
    "train_step interpret_page lifecycle_page sweep_page scaling_page data_card",
    "report_corpus trials",
    "guards local_checkpoint",
    "objectives evals",
    "inference interop adapters",
    "network",
    "models",
    "nn",
    "compress",
    "compression",
    "optim checkpoint monitor data page plots preview adapter progress spikes "
    "watchdog goodput profiling exhausted maintenance stragglers",
    "sources stages",
    "source_files record_forms",
    "record_messages",
    "columns extract extract_child crawl_child contamination",
    "reading",
    "compiler topology",
    "memory",
    "sharding losses flops objective task metrics traffic sweep scaling",
    "associations text_classifier topics",
    "logistic",
    "config",
    "digests",
    "fields document",
    "word_lists stop_words",
    "word_runs words pii",
    "pii_forms",
    "checksums languages",
    "registry run_directory tensorboard",
    "locks",
    "atomic",
    "hlo quantized stopping",
    "hosts",
    "errors tree units precision host numerals child_process locations",
)
DEPTH = {name: depth for depth, line in enumerate(LAYERS) for name in line.split()}
# One file per thing; these never import each other.
PLUG_INS = (
    "workloads",
    "objectives",
    "evals",
    "models",
    "sources",
    "stages",
    "adapters",
    "compress",
    "guards",
)
# They receive `apply` and `generate`, and do not import who makes them.
FORBIDDEN = {"objectives": {"models", "inference"}, "evals": {"models", "inference"}}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def module(path):
    """`nn.attention` for llm/nn/attention.py; `` for llm/__init__.py."""
    name = ".".join(path.relative_to(ROOT / "llm").with_suffix("").parts)
    return re.sub(r"\.?__init__$", "", name)


def member(name):
    return name.partition(".")[0]


def imported(path):
    """Modules of llm that a file imports, wherever in it the statement stands."""
    known = {module(file) for file in FILES} | {file.parent.name for file in FILES}
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import, line {node.lineno}"
            if member(node.module) == "llm":
                base = node.module.removeprefix("llm").removeprefix(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}".removeprefix(".")
                    found.add(full if full in known else base)
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if member(a.name) == "llm"]
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


def test_every_file_has_its_layer():
    missing = {member(module(path)) for path in FILES} - DEPTH.keys() - {""}
    assert not missing, f"add {sorted(missing)} to LAYERS"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_down(path):
    me = member(module(path))
    for other in imported(path):
        it = member(other)
        if it == me:
            plug_ins = me in PLUG_INS and module(path) != other
            assert not plug_ins, f"{module(path)} imports {other}, another plug-in"
            continue
        assert DEPTH[me] < DEPTH[it], f"{module(path)} imports {other}, not below it"
        assert it not in FORBIDDEN.get(me, ()), f"{module(path)} imports {other}"


def test_no_cycles_within_a_folder():
    edges = {module(path): imported(path) for path in FILES}

    def visit(name, trail):
        assert name not in trail, f"cycle: {' > '.join((*trail, name))}"
        for other in edges.get(name, ()):
            visit(other, (*trail, name))

    for name in edges:
        visit(name, ())


def test_layout():
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        assert len(parts) <= 3, f"{path} is deeper than llm/folder/file.py"
        vague = {"utils", "util", "common", "helpers", "helper", "misc"}
        assert not vague & {*parts[:-1], path.stem}, f"{path}: name what it holds"
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= 600, f"{path} has {lines} lines"


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
    assert "train_step" in imported(ROOT / "llm/workloads/plan.py")
