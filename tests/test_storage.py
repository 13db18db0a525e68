"""A corpus is read as it was written, or refused."""

import pytest

from llm.corpus import storage
from llm.document import Document
from llm.errors import InputError

SPLITS = {
    "train": [
        Document("a", "x\u2028\x0c\r\n\0y é\n", "s", "g", "code", 9, {"k": [1, "v"]}),
        Document("b", "z\n", "s", "h", "prose", 2),
    ],
    "validation": [Document("c", "v", "s", "i", "code", 1)],
    "test": [Document("d", "t", "s", "j", "code", 1)],
}


def pairs(splits):
    """(split, document) of each."""
    return [(name, d) for name, documents in splits.items() for d in documents]


def test_read_gives_what_was_written(tmp_path):
    manifest = storage.write(tmp_path / "corpus", pairs(SPLITS), {"seed": 1})
    for name, documents in SPLITS.items():
        assert storage.read(tmp_path / "corpus", name) == documents
    assert storage.manifest(tmp_path / "corpus") == manifest
    assert manifest["splits"]["train"]["raw_bytes"] == 11
    assert manifest["splits"]["train"]["text_bytes"] == 15
    assert manifest["settings"] == {"seed": 1}


def test_hash_is_that_of_the_documents(tmp_path):
    first = storage.write(tmp_path / "a", pairs(SPLITS), {"seed": 1})
    same = storage.write(tmp_path / "b", pairs(SPLITS), {"seed": 2})
    moved = dict(SPLITS, train=SPLITS["train"][:1], test=SPLITS["test"] * 1)
    other = storage.write(tmp_path / "c", pairs(moved), {"seed": 1})
    assert first["hash"] == same["hash"] != other["hash"]


@pytest.mark.parametrize("damage", ["cut", "edit", "missing"])
def test_altered_file(tmp_path, damage):
    storage.write(tmp_path / "corpus", pairs(SPLITS), {})
    path = tmp_path / "corpus" / "train.jsonl"
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-5] if damage == "cut" else b"#" + content[1:])
    with pytest.raises(InputError, match="altered or truncated"):
        storage.read(tmp_path / "corpus", "train")
    assert storage.read(tmp_path / "corpus", "test") == SPLITS["test"]


def test_missing_corpus_and_split(tmp_path):
    with pytest.raises(InputError, match="no corpus in"):
        storage.read(tmp_path / "corpus", "train")
    storage.write(tmp_path / "corpus", pairs(SPLITS), {})
    with pytest.raises(InputError, match="split 'dev'"):
        storage.read(tmp_path / "corpus", "dev")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hash": 1, "splits": {}}'])
def test_broken_manifest(tmp_path, content):
    storage.write(tmp_path / "corpus", pairs(SPLITS), {})
    (tmp_path / "corpus" / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="broken manifest"):
        storage.read(tmp_path / "corpus", "train")
