"""The notebooks run from top to bottom, in their fast form, as a reader would run them.

In a temporary folder that looks like a clone; the second begins with the run of the
first. What is checked is what they show: figures of the run directories, plots, and
the answers of the server.
"""

import json
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory that looks like a clone, with nothing run in it yet."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "llm"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    return folder


def executed(name, place, monkeypatch):
    """The notebook with its outputs; a cell that fails raises."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    import nbformat

    monkeypatch.setenv("NOTEBOOK_FAST", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("IPYTHONDIR", str(place / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))  # the server is another process
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(place / "notebooks")}},
    )
    return client.execute()


def printed(notebook):
    """What the cells wrote, and how many plots they drew."""
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    text = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    return text, sum("image/png" in o.get("data", {}) for o in outputs)


def result(path):
    return json.loads(path.read_text())


@pytest.mark.commands
def test_from_text_to_model(place, monkeypatch):
    pytest.importorskip("nbclient")
    text, plots = printed(executed("01_from_text_to_model.ipynb", place, monkeypatch))
    run = place / "runs/notebook_01_fast"
    scored = result(run / "evaluate.json")
    low, high = scored["interval"]["bits_per_byte"]
    assert low <= scored["bits_per_byte"] <= high
    assert f"bits per byte {scored['bits_per_byte']:.3f}" in text
    assert result(run / "generate.json")["samples"]
    assert result(place / "runs/notebook_01_fast_look/interpret.json")["lens"]
    assert plots == 5


@pytest.mark.long
@pytest.mark.commands
def test_finetune_evaluate_serve(place, monkeypatch):
    """After the other test it begins with its model, alone it makes one."""
    pytest.importorskip("fastapi")
    pytest.importorskip("llguidance")
    name = "02_finetune_evaluate_serve.ipynb"
    text, plots = printed(executed(name, place, monkeypatch))
    work = place / "runs/notebook_02_fast"
    items = (work / "quiz.jsonl").read_text().splitlines()
    for model in ("base", "instruct", "prefer"):
        quiz = result(work / f"score_{model}/evaluate.json")["quiz"]
        low, high = quiz["interval"]["accuracy"]
        assert quiz["n"] == len(items) == 24
        assert low <= quiz["accuracy"] <= high
    bits = {
        when: result(work / "int8/compress.json")[when]["bits"]
        for when in ("before", "after")
    }
    assert bits["after"] < bits["before"]
    answers = (work / "serve/requests.jsonl").read_text().splitlines()
    assert len(answers) == 2
    assert "def " in text and "exit code 0" in text
    assert plots == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_saved(path):
    """Run in order without a failure, small, and without the paths of a machine."""
    text = path.read_text()
    assert len(text) < 300_000
    for trace in ("/home/", "/tmp/", "/root/", "/work/", "site-packages"):
        assert trace not in text
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    kinds = [o["output_type"] for c in cells for o in c["outputs"]]
    assert "error" not in kinds and "display_data" in kinds
    assert len(json.loads(text)["cells"]) <= 25


def test_both_are_there():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02"]
