"""The three figures, by hand."""

import math

import pytest

from llm.document import Document
from llm.evals import Context, perplexity
from llm.inference.requests import Rolling, Scored


def document(text, raw_bytes):
    return Document("id", text, "text", "group", "prose", raw_bytes)


def test_by_hand():
    # Texts were longer before cleaning: their raw bytes count.
    documents = [document("ab", 10), document("cdé", 30)]
    task = perplexity.make(context=Context(documents, lambda: [], len))
    assert list(task.examples) == documents
    assert task.requests(documents[1]) == [Rolling("cdé")]
    figures = [
        task.measure(documents[0], [Scored(8 * math.log(2), 3, 1)]),
        task.measure(documents[1], [Scored(32 * math.log(2), 5, 3)]),
    ]
    got = task.summarise(figures)
    assert got["bits_per_byte"] == pytest.approx(40 / 40)
    assert got["perplexity"] == pytest.approx(2 ** (40 / 8))
    assert got["token_accuracy"] == pytest.approx(4 / 8)
    assert (got["tokens"], got["bytes"], got["documents"]) == (8, 40, 2)


def test_a_hopeless_model_has_a_finite_perplexity():
    figure = {"nats": 1e9, "tokens": 10, "correct": 0, "bytes": 10}
    assert math.isfinite(perplexity.summarise([figure])["perplexity"])
