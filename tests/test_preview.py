"""What a preview prints, of rows written out."""

import json
import pathlib

import numpy as np

from llm import config
from llm.corpus import storage
from llm.tokenizers import Tokenizer
from llm.training import preview
from llm.workloads import pipeline

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


class Letters(Tokenizer):
    """Tokens are letters: 1 is a."""

    vocab_size = 27

    def pieces(self, ids):
        return [" abcdefghijklmnopqrstuvwxyz"[i] for i in ids]


def row(*documents, room=0):
    """A packed row of (text, weights of its targets), each token but the first."""
    made = {"tokens": [], "targets": [], "weights": [], "segments": []}
    for number, (text, weights) in enumerate(documents, start=1):
        ids = [ord(letter) - 96 for letter in text]
        made["tokens"] += ids[:-1]
        made["targets"] += ids[1:]
        made["weights"] += weights
        made["segments"] += [number] * (len(ids) - 1)
    return {k: np.array(v + [0] * room) for k, v in made.items()}


def test_learned_tokens_stand_in_brackets(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    rows = [row(("abc", [0, 1]), ("de", [1]), room=2), row(("fg", [0]))]
    preview.show(rows, Letters(), 8)
    assert capsys.readouterr().out.splitlines() == [
        "--- 1", "a\u2502b\u2502[[c]]", "--- 2", "d\u2502[[e]]", "--- 3", "f\u2502",
    ]  # fmt: skip
    preview.show(rows, Letters(), 1)
    assert capsys.readouterr().out.count("---") == 1


def test_colours(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    preview.show([row(("ab", [1]))], Letters(), 1)
    said = capsys.readouterr().out.splitlines()[1]
    assert said == "\033[2ma\033[0m\u2502\033[1;32mb\033[0m\u2502"


def test_what_is_masked_shows_in_its_place(capsys, monkeypatch):
    """Of a masked model a target is no next token; unknown ids show as numbers."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    masked = {
        "tokens": np.array([1, 30, 3]), "targets": np.array([9, 2, 9]),
        "weights": np.array([0, 1, 0]), "segments": np.array([1, 1, 1]),
    }  # fmt: skip
    preview.show([masked], Letters(), 1)
    assert capsys.readouterr().out.splitlines()[1] == "a\u2502[[<30>]]c\u2502"


def test_a_source_stands_above_its_target(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    pair = {
        "source_tokens": np.array([1, 2, 0]), "source_segments": np.array([1, 1, 0]),
        "tokens": np.array([0, 3]), "targets": np.array([3, 4]),
        "weights": np.array([1, 1]), "segments": np.array([1, 1]),
    }  # fmt: skip
    preview.show([pair], Letters(), 1)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "a\u2502b\u2502", "[[c]][[d]]",
    ]  # fmt: skip


def test_few_records_are_shown_once(tmp_path, capsys, monkeypatch):
    """A loader goes round and round; a preview does not."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    said = [{"prompt": f"{n} and ", "completion": f"{n + 1}."} for n in range(40)]
    (tmp_path / "data.json").write_text(json.dumps(said))
    c = config.load(str(CONFIGS / "x"), "sft", f"debug,data={tmp_path / 'data.json'}")
    c.tokenizer.vocab_size = 300
    c.preview = 100
    pipeline.run(c.lock(), str(tmp_path / "run"))
    _, *shown = capsys.readouterr().out.split("--- ")
    texts = [part.partition("\n")[2].strip() for part in shown]
    trained = storage.read(tmp_path / "run" / "corpus", "train")
    assert len(set(texts)) == len(texts) == len(list(trained))
