"""Plug-ins from outside the package: found, refused in a line, seen by children."""

import os
import pathlib
import subprocess
import sys

import pytest

from llm import registry
from llm.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent
STAGE = '''"""Texts in capitals."""

import dataclasses

from llm.document import Map

TINY = {}


def make(mark: str = "!"):
    def shout(document):
        return [dataclasses.replace(document, text=document.text.upper() + mark)]

    return Map(shout)
'''


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """No test leaves its plug-ins to the next."""
    monkeypatch.setenv("LLM_PLUGINS", "")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("llm_plugins."):
            del sys.modules[name]


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    (folder / "stages").mkdir(parents=True)
    (folder / "stages" / "shout.py").write_text(STAGE)
    (folder / "configs").mkdir()
    return folder


def test_a_stage_of_ones_own(mine):
    ours = registry.choices("stages")
    registry.add_plugins(str(mine))
    assert set(registry.choices("stages")) == {*ours, "shout"}
    assert registry.spec("stages", "shout") == {"name": "shout", "mark": "!"}
    assert registry.module("stages", "shout") is registry.module("stages", "shout")
    with pytest.raises(InputError, match=r"knob 'marks'.*did you mean 'mark'"):
        registry.build("stages", {"name": "shout", "marks": "?"})


def test_a_child_process_finds_it(mine):
    registry.add_plugins(str(mine))
    code = "from llm import registry; print(registry.spec('stages', 'shout'))"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True
    )
    assert made.stdout.decode().strip() == "{'name': 'shout', 'mark': '!'}"


def test_an_installed_package_offers_its_own(mine, tmp_path, monkeypatch):
    """By the entry point `llm.plugins`, without a flag."""
    site = tmp_path / "site"
    mine.rename(tmp_path / "kept")
    (site / "their_plugins").mkdir(parents=True)
    (site / "their_plugins" / "__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "kept" / "stages").rename(site / "their_plugins" / "stages")
    about = site / "their_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: their-plugins\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[llm.plugins]\nall = their_plugins\n")
    monkeypatch.syspath_prepend(str(site))
    registry._installed.cache_clear()
    try:
        assert "shout" in registry.choices("stages")
        assert registry.build("stages", "shout") is not None
    finally:
        monkeypatch.undo()
        registry._installed.cache_clear()
    assert "shout" not in registry.choices("stages")


BAD = [
    ({}, "want a folder with some of adapters"),
    ({"stage/shout.py": STAGE}, "with the folder stage;"),
    ({"configs/a.py": ""}, "want a folder with some of adapters"),
    ({"stages/pii.py": STAGE}, "pii.py, the name of a plug-in of this package"),
]


@pytest.mark.parametrize("texts, shown", BAD)
def test_bad_folders(tmp_path, texts, shown):
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        registry.add_plugins(str(tmp_path))
    assert shown in str(caught.value)
    assert not os.environ["LLM_PLUGINS"]


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere; want a folder with some of"):
        registry.add_plugins(str(tmp_path / "nowhere"))


def test_a_file_without_its_exports(mine):
    (mine / "stages" / "bare.py").write_text("TINY = {}\n")
    registry.add_plugins(str(mine))
    with pytest.raises(
        InputError, match=r"bare.py without make; want .* make and TINY"
    ):
        registry.build("stages", "bare")


def test_one_name_twice(mine, tmp_path):
    other = tmp_path / "other" / "stages"
    other.mkdir(parents=True)
    (other / "shout.py").write_text(STAGE)
    registry.add_plugins(str(mine))
    registry.add_plugins(str(other.parent))
    with pytest.raises(InputError, match="one plug-in of a name"):
        registry.choices("stages")


def test_a_name_that_nothing_has_points_to_the_flag():
    with pytest.raises(InputError, match="pass --plugins=DIR"):
        registry.module("models", "quantum")


def test_the_command_line(mine, tmp_path):
    words = [
        "--config=configs/quickstart.py:debug", f"--workdir={tmp_path / 'run'}",
        "--config.workload=prepare_data", "--config.data.source.max_documents=3",
        "--config.data.stages=('shout',)", "--config.data.stage.shout.mark=?",
    ]  # fmt: skip
    command = [sys.executable, "-m", "llm.main", f"--plugins={mine}", *words]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "run" / "corpus" / "train.jsonl").read_text()
    assert "DEF " in text and "def " not in text and '?"' in text
    made = subprocess.run(
        [*command[:3], "--plugins=/nowhere", *words],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 2 and len(made.stderr.splitlines()) == 1
