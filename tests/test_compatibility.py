"""Names, commands and files of earlier versions: what `tests/compatibility.py` kept.

A run of an earlier version resumes, answers, and is exported as it was.
"""

import json
import shutil
import signal
import tarfile
import urllib.request

import compatibility
import forks
import pytest
from compatibility import GOLDEN, TRAIN, convert, greedy

from llm import registry

NAMES = json.loads((GOLDEN / "names.json").read_text())
EXPECTED = json.loads((GOLDEN / "run.json").read_text())
TEXT = EXPECTED["greedy"]["samples"][0]


def as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", sorted(NAMES["parameters"]))
def test_models_keep_their_parameters(name):
    """Else no checkpoint of theirs could be read."""
    assert compatibility.parameters([name])[name] == NAMES["parameters"][name]


def test_no_model_is_without_golden_parameters():
    assert set(registry.choices("models")) == set(NAMES["parameters"])


def test_fields_keep_their_names_and_defaults():
    assert as_json(compatibility.fields()) == NAMES["fields"]


def test_configs_keep_their_values():
    pytest.importorskip("sacrebleu")  # seq2seq.py takes the metrics that there are
    assert as_json(compatibility.changes()) == NAMES["configs"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the texts, the run and its exports."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(compatibility.ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(folder / "run", folder / "resumed")
    return folder


@pytest.fixture(scope="module")
def run(place):
    """Runs the words of a command in that folder."""
    with forks.Server(place, cwd=place, JAX_PLATFORMS="cpu") as server:

        def run(words):
            code, out, err = server.run(*words)
            assert code == 0, f"{words}\n{out}\n{err}"
            return out

        run.server = server
        yield run


def test_an_earlier_run_resumes(place, run):
    """The same losses, the same files; what is measured at the end is the same, too."""
    out = run([word.replace("workdir=run", "workdir=resumed") for word in TRAIN])
    # From the beginning, the losses would be the same, too.
    assert "resuming after step 4" in out
    assert compatibility.files(place / "resumed") == EXPECTED["files"]
    losses = compatibility.losses(place / "resumed")
    assert losses == pytest.approx(EXPECTED["losses"], rel=1e-5)
    evaluated = json.loads((place / "resumed/evaluate.json").read_text())
    for name in ("bits_per_byte", "perplexity", "token_accuracy", "tokens"):
        assert evaluated[name] == pytest.approx(EXPECTED["evaluate"][name], rel=1e-5)


@pytest.mark.parametrize("model", ["run", "hf", "gguf/model.gguf"])
def test_an_earlier_model_answers(model, place, run):
    """A run, and its exports, which are imported on the way."""
    if model != "run":
        pytest.importorskip("tokenizers")
    workdir = f"greedy_{model.replace('/', '_')}"
    run(greedy(model, workdir))
    answer = json.loads((place / workdir / "generate.json").read_text())["samples"][0]
    assert (
        answer["prompt"] == TEXT["prompt"]
        and answer["completion"] == TEXT["completion"]
    )


def test_an_earlier_run_is_served(place, run):
    pytest.importorskip("fastapi")
    model = run.server.start(
        f"--config={compatibility.ROOT}/configs/serve.py:debug",
        "--workdir=served",
        "--config.serve.model_dir=run",
        "--config.serve.context=64",
    )
    forks.until(lambda: " at http://" in model.out() or model.over())
    address = model.out().partition(" at ")[2].split()[0]
    body = {"prompt": TEXT["prompt"], "max_tokens": 12, "temperature": 0}
    request = urllib.request.Request(
        f"{address}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        choice = json.load(response)["choices"][0]
    model.kill(signal.SIGTERM)
    assert model.wait()[0] == 0
    assert choice["text"] == TEXT["completion"]


def test_an_earlier_run_is_exported_as_it_was(place, run):
    """To the byte: files of users are compared by their digests."""
    run(convert("run", "hf", "hf_again"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        again = json.loads((place / "hf_again" / name).read_text())
        assert again == json.loads((place / "hf" / name).read_text())
    run(convert("run", "gguf", "gguf_again"))
    for name in ("hf/model.safetensors", "gguf/model.gguf"):
        again = place / name.replace("/", "_again/")
        assert (place / name).read_bytes() == again.read_bytes(), name
