"""Every command that the documents and the configs promise runs: see `promised.py`.

Those that need no other run are in test_commands_alone.py.
"""

import ast
import os
import re
import sys

import promised
import pytest
from promised import ROOT, commands, documents, place, server

__all__ = ("place", "server")


@pytest.mark.commands
@pytest.mark.parametrize(
    "where, command", promised.cases(lambda command: not promised.alone(command))
)
def test_command_runs(where, command, place, server):
    promised.check(where, command, place, server)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")))
def test_every_config_says_its_command(path):
    doc = ast.get_docstring(ast.parse(path.read_text()))
    own = [c for c in commands(doc) if f"--config=configs/{path.name}" in c]
    assert own, f"{path.name}: want its exact command in the docstring"


def test_documents_name_files_that_are_there():
    """Paths in code spans exist."""
    for document in (*documents(), ROOT / "CONTRIBUTING.md"):
        text = document.read_text()
        kinds = "llm|configs|launch|tests|benchmarks|notebooks|docs"
        spans = re.findall(rf"`((?:{kinds})/[\w./]*)`", text)
        named = [path for path in spans if "NAME" not in path]
        missing = [path for path in named if not (ROOT / path).exists()]
        assert not missing, f"{document.name} names {sorted(missing)}"


def test_the_index_of_files_is_up_to_date():
    sys.path.insert(0, str(ROOT / "docs"))
    import file_index

    assert file_index.PAGE.read_text("utf-8") == file_index.page(), (
        "run python docs/file_index.py"
    )


def test_launch_scripts_are_executable():
    for path in (*(ROOT / "launch").glob("*.sh"), ROOT / ".ci/run"):
        runs = path.name != "venv.sh"  # that one is sourced
        assert os.access(path, os.X_OK) == runs, path
