"""The runner applies the three kinds in order and its counts add up."""

import pytest

from llm.data import runner
from llm.document import Document, Group, Map, Match, Tag
from llm.errors import InputError


def documents(texts):
    return [Document(i, t, "s", "g", "prose", len(t)) for i, t in texts.items()]


def pair_reduce(key, values):
    return [Match(second, values[0], "same length") for second in values[1:]]


STAGES = [
    ("cut", Map(lambda d: [d] if "é" in d.text else [])),
    (
        "short",
        Tag(
            lambda d: {"length": float(len(d.text))},
            lambda scores: "under 3" if scores["length"] < 3 else "",
        ),
    ),
    ("pair", Group(lambda d: [(len(d.text), d.id)], pair_reduce)),
]


def test_counts_of_a_written_out_case():
    result = runner.run(
        STAGES, documents({"a": "éab", "b": "abc", "c": "é", "d": "écd", "e": "éabcd"})
    )
    assert [d.id for d in result.documents] == ["a", "e"]
    assert result.links == [("a", "d")]
    cut, short, pair = result.counts
    assert cut == {
        "name": "cut", "documents_in": 5, "documents_out": 4,
        "bytes_in": 4 + 3 + 2 + 4 + 6, "bytes_out": 16,
        "dropped": {"no text left": {"documents": 1, "bytes": 3, "examples": ["b"]}},
    }  # fmt: skip
    assert short["dropped"] == {
        "under 3": {"documents": 1, "bytes": 2, "examples": ["c"]}
    }
    assert (pair["documents_in"], pair["documents_out"]) == (3, 2)
    assert pair["dropped"]["same length"]["examples"] == ["d"]


def test_a_link_without_a_reason_drops_nothing():
    stage = Group(
        lambda d: [("all", d.id)], lambda key, ids: [Match(ids[1], ids[0], "")]
    )
    result = runner.run([("link", stage)], documents({"a": "x", "b": "y"}))
    assert len(result.documents) == 2 and result.links == [("a", "b")]
    assert result.counts[0]["dropped"] == {}


def test_map_may_make_several():
    stage = Map(lambda d: documents({d.id + "1": "x", d.id + "2": "yy"}))
    result = runner.run([("two", stage)], documents({"a": "abc"}))
    assert [d.id for d in result.documents] == ["a1", "a2"]
    assert result.counts[0]["bytes_out"] == 3


def test_three_examples_at_most():
    stage = Map(lambda d: [])
    result = runner.run([("none", stage)], documents(dict.fromkeys("abcde", "x")))
    assert result.counts[0]["dropped"]["no text left"] == {
        "documents": 5, "bytes": 5, "examples": ["a", "b", "c"],
    }  # fmt: skip


def test_ids_are_unique():
    with pytest.raises(InputError, match="2 documents with the id 'a'"):
        runner.run([], documents({"a": "x"}) + documents({"a": "y"}))
