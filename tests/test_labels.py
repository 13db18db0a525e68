"""Labels of tokens against a loop over the characters of each token."""

import numpy as np
import pytest

from llm.data import labels, tokens
from llm.document import Document
from llm.tokenizers import sentencepiece_tokenizer

TEXTS = {
    "a": "def naïve(x):\n    return x  # ⇒ done\n",
    "b": "import os\n\nprint('é')\n",
}


def document(name, **meta):
    text = TEXTS[name]
    return Document(name, text, "made", name, "code", len(text.encode()), meta)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return sentencepiece_tokenizer.train(
        list(TEXTS.values()) * 9, folder, vocab_size=300
    )


def test_names_are_those_that_occur():
    made = [document("a", label="x"), document("b", labels=[[0, 1, "z"], [1, 2, "y"]])]
    assert labels.names_of(made) == ["x", "y", "z"]
    assert labels.names_of([document("a")]) == []


def test_a_document_has_one_label_for_all_of_it(trained):
    ids = [trained.bos_id, *trained.encode(TEXTS["a"]), trained.eos_id]
    made = labels.of_tokens(document("a", label="y"), ids, trained, ["x", "y"])
    assert made.dtype == np.int16 and made.tolist() == [1] * len(ids)


def test_stretches_by_a_loop_over_characters(trained):
    text = TEXTS["a"]
    word, arrow = text.index("naïve"), text.index("⇒")
    stretches = [[0, 3, "keyword"], [word, word + 5, "name"], [arrow, arrow + 1, "it"]]
    names = ["it", "keyword", "name"]
    ids = [trained.bos_id, *trained.encode(text), trained.eos_id]
    made = labels.of_tokens(document("a", labels=stretches), ids, trained, names)
    # Bytes of every character, one by one.
    owner = []
    for at, char in enumerate(text):
        own = [names.index(n) for start, end, n in stretches if start <= at < end]
        owner += [(own[0] if own else -1, char)] * len(char.encode())
    want, at = [], 0
    for token in ids:
        piece = trained.piece_bytes[token]
        mine = [o for o, char in owner[at : at + len(piece)] if not char.isspace()]
        want.append(mine[0] if mine else -1)
        at += len(piece)
    assert at == len(owner)
    assert made.tolist() == want
    assert {-1, 0, 1, 2} <= set(want)


def test_shards_keep_them(trained, tmp_path):
    parts = {"train": [document("a", label="x"), document("b", label="y")]}
    about = tokens.write(tmp_path / "tokens", parts, trained, corpus_hash="c")
    assert about["labels"] == ["x", "y"]
    split = tokens.open_split(tmp_path / "tokens", "train")
    assert set(split.read_labels(0, 0, int(split.lengths[0]))) == {0}
    assert set(split.read_labels(1, 2, 3)) == {1}
    assert len(split.labels) == split.offsets[-1]


def test_texts_without_labels_have_no_file(trained, tmp_path):
    tokens.write(
        tmp_path / "tokens", {"train": [document("a")]}, trained, corpus_hash="c"
    )
    split = tokens.open_split(tmp_path / "tokens", "train")
    assert split.labels is None
    assert not list((tmp_path / "tokens").glob("*.labels.bin"))
