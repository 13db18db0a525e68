"""Texts encoded by several processes are those of one, in their order."""

import os
import random
import signal

import pytest

from llm.data import tokens
from llm.document import Document
from llm.errors import InputError
from llm.tokenizers import parallel_encode, sentencepiece_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tokenizer in `t`."""
    folder = tmp_path_factory.mktemp("encoding")
    sentencepiece_tokenizer.train(texts(300, 0), folder / "t", vocab_size=310)
    return folder


def texts(count, seed):
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdeé ", k=rng.randrange(1, 9))) for _ in range(200)]
    return [" ".join(rng.choices(words, k=rng.randrange(40))) for _ in range(count)]


@pytest.mark.parametrize("block", [1, 2000, 1 << 20])
def test_the_order_is_that_of_the_texts(place, monkeypatch, block):
    monkeypatch.setattr(parallel_encode, "_BLOCK", block)
    made = sentencepiece_tokenizer.load(place / "t")
    some = [*texts(60, 1), "", "x"]
    with parallel_encode.encoder(made, place / "t", processes=2) as encode:
        assert list(encode(iter(some))) == [made.encode(text) for text in some]
        assert list(encode([])) == []
        ahead = []
        taken = encode(ahead.append(text) or text for text in some)
        next(taken)
        assert len(ahead) < len(some) or block > 1  # memory does not hold them all


def test_tokens_are_equal_to_the_byte(place, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel_encode, "_BLOCK", 500)
    made = sentencepiece_tokenizer.load(place / "t")
    splits = {
        name: [Document(f"{name}{n}", text, "s", "g", "prose", len(text))
               for n, text in enumerate(texts(40, seed))]
        for seed, name in enumerate(("train", "validation", "test"))
    }  # fmt: skip
    tokens.write(tmp_path / "1", splits, made, corpus_hash="x")
    with parallel_encode.encoder(made, place / "t", processes=2) as encode:
        tokens.write(tmp_path / "2", splits, made, corpus_hash="x", encode=encode)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in "12"
    )
    assert one == two and len(one) == 10


def test_a_process_that_is_ended_is_said(place):
    made = sentencepiece_tokenizer.load(place / "t")
    with (
        pytest.raises(InputError, match="a process that was ended"),
        parallel_encode.encoder(made, place / "t", processes=2) as encode,
    ):
        pool = encode.args[0]
        list(encode(["a"]))
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        list(encode(texts(50, 2)))
