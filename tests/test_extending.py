"""The files of docs/extending.md as they stand: train, evaluate, serve, compress.

Nothing of `llm/` knows of them.
"""

import json
import pathlib
import re
import signal
import urllib.request

import forks
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text("utf-8")
FILES = dict(re.findall(r'```python title="([\w/.]+)"\n(.*?)```', TEXT, re.S))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the plug-ins and some notes."""
    folder = tmp_path_factory.mktemp("evening")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    notes = {
        f"note {n}": f"The {n}th day was long.\nTODO: write more of it\n"
        + "".join(f"Then we saw {n * k} birds over the river.\n" for k in range(9))
        for n in range(40)
    }
    (folder / "notes.json").write_text(json.dumps(notes | {"nothing": " "}))
    return folder


@pytest.fixture(scope="module")
def server(place):
    with forks.Server(place, cwd=place, JAX_PLATFORMS="cpu") as server:
        yield server


@pytest.fixture(scope="module")
def trained(place, server):
    code, out, err = server.run(
        "--plugins=mine",
        "--config=mine/configs/mine.py:notes=notes.json,debug",
        "--workdir=run",
    )
    assert code == 0, out + err
    return out


def test_every_kind_is_there():
    kinds = {name.split("/")[1] for name in FILES}
    assert kinds == {"sources", "stages", "models", "objectives", "evals", "configs"}


def test_it_trains_and_is_evaluated(place, trained):
    corpus = (place / "run" / "corpus" / "train.jsonl").read_text()
    assert "birds" in corpus and "TODO" not in corpus
    report = json.loads((place / "run" / "prepare_data.json").read_text())
    assert "empty" in json.dumps(report["skipped"])
    result = json.loads((place / "run" / "evaluate.json").read_text())
    assert 0 <= result["distinct"]["distinct"] <= 1
    assert "distinct words" in trained
    assert "bits per byte" in (place / "run" / "report.html").read_text()


def test_it_is_served(place, server, trained):
    pytest.importorskip("fastapi")
    model = server.start(
        "--plugins=mine",
        f"--config={ROOT}/configs/serve.py:debug",
        "--workdir=served",
        "--config.serve.model_dir=run",
        "--config.serve.context=64",
    )
    forks.until(lambda: " at http://" in model.out() or model.over(), 300)
    address = model.out().partition(" at ")[2].split()[0]
    body = {"prompt": "The", "max_tokens": 5, "temperature": 0}
    request = urllib.request.Request(
        f"{address}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    model.kill(signal.SIGTERM)
    assert model.wait()[0] == 0
    assert answer["usage"]["completion_tokens"] <= 5


def test_it_is_compressed(place, server, trained):
    code, out, err = server.run(
        "--plugins=mine",
        f"--config={ROOT}/configs/compress.py:model=run,debug",
        "--workdir=small",
        "--config.compress.text=notes.json",
    )
    assert code == 0, out + err
    assert "times smaller" in out


def test_what_has_no_table_is_not_exported(place, server, trained):
    code, _, err = server.run(
        "--plugins=mine",
        f"--config={ROOT}/configs/convert.py:source=run,to=hf",
        "--workdir=exported",
    )
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert "a parallel, whose file has no table HF" in err


def test_without_the_flag_one_line_names_it(place, server, trained):
    code, _, err = server.run(
        f"--config={ROOT}/configs/generate.py",
        "--workdir=nothing",
        "--config.generate.model_dir=run",
    )
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert "'smoothed'" in err and "pass --plugins=DIR" in err
