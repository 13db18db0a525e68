"""The first of equal texts stays."""

import data_config

from llm.document import Document
from llm.stages import exact_dedup


def test_first_copy_stays():
    texts = {"a": "x", "b": "y", "c": "x", "d": "x ", "e": "y", "f": "x"}
    documents = [Document(i, t, "s", i, "prose", 1) for i, t in texts.items()]
    result = data_config.through([("exact_dedup", exact_dedup.make())], documents)
    assert [document.id for document in result.documents] == ["a", "b", "d"]
    assert result.links == [("a", "c"), ("a", "f"), ("b", "e")]
    (entry,) = result.counts
    assert entry["dropped"] == {
        "exact copy of an earlier document": {
            "documents": 3, "bytes": 3,
            "examples": [["c", "x"], ["e", "y"], ["f", "x"]],
        }
    }  # fmt: skip
