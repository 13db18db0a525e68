"""What meets somebody who installs this and types their first commands.

The installed package, commands with something wrong in them, other locales, and names
of files in other scripts.
"""

import ast
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from llm import config, registry, run_dir
from llm.corpus import file_reader
from llm.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as a wheel holds it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "_configs")
    for name in ("llm", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / "source")
    words = ["-q", "egg_info", "build_py", "--build-lib", str(folder / "lib")]
    subprocess.run(
        [sys.executable, "setup.py", *words],
        cwd=folder / "source", check=True, capture_output=True,
    )  # fmt: skip
    points = (folder / "source/llm_lifecycle.egg-info/entry_points.txt").read_text()
    assert points.split() == ["[console_scripts]", "llm", "=", "llm.main:run"]
    return folder / "lib"


def run(cwd, *words, package=ROOT, **environment):
    """(exit code, stdout, stderr) of the command `llm`."""
    done = subprocess.run(
        [sys.executable, "-c", "from llm.main import run; run()", *words],
        cwd=cwd, capture_output=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(package)} | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def refused(answer):
    code, out, err = answer
    assert code == 2 and not out and len(err.strip().splitlines()) == 1, answer
    return err


def test_a_wheel_has_the_configs(installed, tmp_path):
    """Exactly those of the checkout; a config that loads others finds them."""
    held = {p.name: p.read_bytes() for p in (installed / "llm/_configs").iterdir()}
    assert held == {p.name: p.read_bytes() for p in (ROOT / "configs").glob("*.py")}
    words = "--config=lr_range.py:of=350m,debg", f"--workdir={tmp_path / 'run'}"
    said = refused(run(tmp_path, *words, package=installed))
    assert "did you mean 'debug'?" in said  # of the config's own arguments
    words = "--config=configs/plan.py:model=2b", f"--workdir={tmp_path / 'run'}"
    said = refused(run(tmp_path, *words, package=installed))
    assert "config '2b'" in said and "350m" in said


def test_a_wheel_has_the_files_that_pages_are_made_of(installed):
    for folder in ("llm/reports/templates", "llm/serve"):
        files = [p for p in (ROOT / folder).iterdir() if p.is_file()]
        shipped = {p.name for p in files if p.suffix in (".css", ".html", ".j2", ".js")}
        assert shipped and shipped <= {p.name for p in (installed / folder).iterdir()}


OWN = """
from llm.errors import InputError

def get_config(arg=None):
    raise InputError(got=f"mine {arg}", want="x")
"""


def test_a_config_of_the_current_directory_comes_first(installed, tmp_path):
    (tmp_path / "1b.py").write_text(OWN)
    words = "--config=1b.py:debug", f"--workdir={tmp_path / 'run'}"
    assert "got mine debug" in refused(run(tmp_path, *words, package=installed))


def test_a_config_of_ones_own_loads_shipped_ones(tmp_path):
    own = tmp_path / "mine.py"
    assert config.load(str(own), "sft", "debug").model.name == "llama"
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        config.load(str(own), "quikstart")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1b.py", True), ("configs/1b.py", True), ("./1b.py", True),
        ("1b", False), ("other/1b.py", False), ("/1b.py", False), ("../1b.py", False),
        ("", False), ("configs", False), ("configs/", False),
    ],
)  # fmt: skip
def test_which_names_are_shipped_configs(tmp_path, monkeypatch, name, found):
    monkeypatch.chdir(tmp_path)
    held = config.find_config(name)
    assert held == (config.CONFIGS / "1b.py" if found else None)


def test_a_config_that_is_nowhere(tmp_path):
    said = refused(run(tmp_path, "--config=configs/quikstart.py", "--workdir=a"))
    assert str(tmp_path) in said and str(ROOT / "configs") in said
    assert "did you mean 'configs/quickstart.py'?" in said


MISSING = [
    lambda path: list(file_reader.files(path, "texts", lambda name: True, print)),
    lambda path: config.chats(path),
    lambda path: run_dir.load(path),
    lambda path: list(
        registry.build("sources", registry.spec("sources", "text", path=path))(print)
    ),
]


@pytest.mark.parametrize("read", MISSING)
def test_a_path_that_is_missing_says_relative_to_what(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        read("texts")
    assert f"(relative to {tmp_path})" in str(caught.value)
    with pytest.raises(InputError) as caught:
        read(str(tmp_path / "texts"))
    assert "relative to" not in str(caught.value)


SLOW = "import time\n\ndef get_config(arg=None):\n    time.sleep(20)\n"


def test_what_needs_no_config_is_checked_before_it_is_loaded(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    begun = time.monotonic()
    for words, shown in (
        ([], "no --workdir"),
        (["--workdir=a", "--wrokdir=b"], "flag --wrokdir"),
        (["--workdir=a", "--config.mesh", "-1", "--v=loud"], "loud"),
        (["--workdir=a", "more"], "argument 'more'"),
        (["--workdir=file"], "which is a file"),
        (["--workdir=file/run"], "below file,"),
        (["--workdir=nowhere"], "a link to nothing"),
        (["--workdir=l\udce9"], "not UTF-8"),
    ):
        assert shown in refused(run(tmp_path, "--config=slow.py", *words))
    assert time.monotonic() - begun < 20


def text_without_encoding(tree):
    """Lines of a syntax tree that read or write text in the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        of = ast.unparse(node.func).rpartition(".")[0]
        if "encoding" in words or None in words:
            continue
        if name == "read_text":
            bad = not node.args
        elif name == "write_text":  # atomic's is always UTF-8
            bad = of != "atomic" and len(node.args) < 2
        elif name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            given = [*node.args, *([words["mode"]] if "mode" in words else [])]
            given = [a.value for a in given if isinstance(a, ast.Constant)]
            binary = any("b" in a for a in given if isinstance(a, str))
            network = of in ("self._opener", "FileSystems")
            bad = not (binary or network or ("Temporary" in name and not given))
        elif name == "TextIOWrapper":
            bad = len(node.args) < 2
        else:
            asked = [words.get("text"), words.get("universal_newlines")]
            bad = any(isinstance(a, ast.Constant) and a.value is True for a in asked)
        if bad:
            yield node.lineno


@pytest.mark.parametrize("folder", ["llm", "benchmarks", "setup.py"])
def test_text_names_its_encoding(folder):
    paths = sorted((ROOT / folder).rglob("*.py")) or [ROOT / folder]
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        for line in text_without_encoding(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, f'give encoding="utf-8": {found}'


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("p.read_text()", 1), ("p.read_text('utf-8')", 0), ("p.write_text(x)", 1),
        ("atomic.write_text(p, x)", 0), ("open(p)", 1), ("open(p, 'rb')", 0),
        ("p.open('a')", 1), ("p.open(mode='w')", 1), ("p.open('xb')", 0),
        ("subprocess.run(w, text=True)", 1),
        ("subprocess.run(w, text=True, encoding='utf-8')", 0),
        ("os.fdopen(1, 'w')", 1), ("NamedTemporaryFile('w')", 1),
    ],
)  # fmt: skip
def test_the_search_for_encodings_sees_them(code, bad):
    assert len(list(text_without_encoding(ast.parse(code)))) == bad


def test_names_in_other_scripts_without_a_locale(tmp_path):
    """Files, folders and text, in a locale that knows ASCII only."""
    texts = tmp_path / "Bücher"
    texts.mkdir()
    for number in range(6):
        (texts / f"猫{number}.txt").write_text(f"Äpfel, {number}\n", encoding="utf-8")
    latin = os.fsencode(texts) + b"/caf\xe9.txt"
    pathlib.Path(os.fsdecode(latin)).write_text("Crème\n", encoding="utf-8")
    code, out, err = run(
        tmp_path, f"--config=quickstart.py:debug,text={texts}", "--workdir=läuft",
        "--config.workload=prepare_data", "--config.data.stages=('normalise',)",
        LC_ALL="C", LANG="", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert code == 0, err
    assert "läuft" in out
    lines = [
        json.loads(line)
        for path in (tmp_path / "läuft/corpus").glob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    names = {line["id"]: line["text"] for line in lines}
    assert names["猫3.txt"].startswith("Äpfel, 3") and len(names) == 7
    assert names["caf\\xe9.txt"].startswith("Crème")
