"""Token shards are read as they were written, or refused with one line."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from llm.data import tokens
from llm.document import Document
from llm.errors import InputError
from llm.tokenizers import sentencepiece_tokenizer

TEXT = "def f(x):\n    return x\n\nclass Thing:\n    name = 'the thing'\n"
SPLITS = {
    "train": [
        Document(f"t{i}", TEXT * (i % 4 + 1) + f"é{i}", "s", "g", "code", 1000 + i)
        for i in range(20)
    ],
    "validation": [Document("v", "", "s", "h", "code", 0)],
    "test": [Document("w", "x\u2581", "s", "i", "code", 4)],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    texts = [TEXT + f"name{i} = {i * i}" for i in range(200)]
    folder = tmp_path_factory.mktemp("tokenizer")
    return sentencepiece_tokenizer.train(texts, folder / "t", vocab_size=310)


@pytest.fixture
def folder(tmp_path, trained):
    tokens.write(tmp_path / "tokens", SPLITS, trained, corpus_hash="abc")
    return tmp_path / "tokens"


@pytest.mark.parametrize("shard_tokens", [1 << 28, 200, 1])
def test_documents_come_back(tmp_path, trained, shard_tokens):
    manifest = tokens.write(
        tmp_path / "tokens", SPLITS, trained, corpus_hash="abc",
        shard_tokens=shard_tokens,
    )  # fmt: skip
    for name, documents in SPLITS.items():
        split = tokens.open_split(tmp_path / "tokens", name, trained.fingerprint)
        assert split.ids == tuple(d.id for d in documents)
        assert split.raw_bytes.tolist() == [d.raw_bytes for d in documents]
        assert split.manifest == manifest
        entry = manifest["splits"][name]
        assert entry["tokens"] == split.offsets[-1] == split.lengths.sum()
        assert entry["text_bytes"] == sum(len(d.text.encode()) for d in documents)
        for i, document in enumerate(documents):
            length = int(split.lengths[i])
            ids = split.read(i, 0, length)
            assert ids.tolist() == [2, *trained.encode(document.text), 3]
            assert split.read(i, 1, length - 2).tolist() == ids[1:-1].tolist()
            assert trained.decode(ids) == document.text
    shards = manifest["splits"]["train"]["shards"]
    assert len(shards) == {1 << 28: 1, 200: len(shards), 1: 20}[shard_tokens]
    assert shard_tokens != 200 or 2 < len(shards) < 20


def test_files_are_what_the_manifest_says(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (shard,) = manifest["splits"]["train"]["shards"]
    content = (folder / shard["file"]).read_bytes()
    assert shard["bytes"] == len(content) == 2 * shard["tokens"]
    assert shard["sha256"] == hashlib.sha256(content).hexdigest()
    assert np.frombuffer(content, "<u2")[0] == manifest["bos_id"]
    assert manifest["corpus"] == "abc" and manifest["dtype"] == "<u2"


def test_large_vocabularies_take_four_bytes(tmp_path, trained):
    pieces = trained.piece_bytes + (b"x",) * 70_000
    large = dataclasses.replace(trained, piece_bytes=pieces)
    manifest = tokens.write(tmp_path / "t", SPLITS, large, corpus_hash="")
    split = tokens.open_split(tmp_path / "t", "train")
    assert manifest["dtype"] == "<u4" and split.shards[0].dtype == np.uint32
    assert trained.decode(split.read(3, 0, int(split.lengths[3]))) == TEXT * 4 + "é3"


@pytest.mark.parametrize(
    ("damage", "words"),
    [("truncate", "truncated or altered"), ("flip", "altered"), ("remove", "no .*bin")],
)
@pytest.mark.parametrize("file", ["train-00000.bin", "train.offsets.npy"])
def test_damaged_file(folder, file, damage, words):
    path = folder / file
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[:-2])
    elif damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.unlink()
    with pytest.raises(InputError, match=words.replace("bin", file[-3:])) as caught:
        tokens.open_split(folder, "train")
    assert "\n" not in str(caught.value) and file in str(caught.value)
    with pytest.raises(InputError):
        tokens.verify(folder)
    tokens.open_split(folder, "test")


def test_large_files_are_hashed_by_verify_alone(folder, monkeypatch):
    monkeypatch.setattr(tokens, "_HASH_ON_OPEN", 100)
    path = folder / "train-00000.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    tokens.open_split(folder, "train")
    with pytest.raises(InputError, match="altered"):
        tokens.verify(folder)
    path.write_bytes(content)
    tokens.verify(folder)


def test_other_tokenizer(folder, tmp_path):
    other = sentencepiece_tokenizer.train([TEXT * 9], tmp_path / "o", vocab_size=301)
    with pytest.raises(InputError, match="fingerprint") as caught:
        tokens.open_split(folder, "train", other.fingerprint)
    assert "\n" not in str(caught.value)


def test_missing_tokens_split_and_manifest(folder, tmp_path):
    with pytest.raises(InputError, match="no tokens in"):
        tokens.open_split(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="split 'dev'"):
        tokens.open_split(folder, "dev")
    (folder / "manifest.json").write_text('{"splits": ')
    with pytest.raises(InputError, match="altered"):
        tokens.open_split(folder, "train")
    (folder / "manifest.json").write_text('{"splits": {"train": {}}}')
    with pytest.raises(InputError, match="altered"):
        tokens.open_split(folder, "train")


def test_pickled_offsets_are_not_loaded(folder):
    content = b"\x93NUMPY\x01\x00" + b"not an array"
    (folder / "train.offsets.npy").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["offsets"] |= {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="altered"):
        tokens.open_split(folder, "train")


def test_a_failed_write_leaves_the_old_tokens(folder, trained):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = {"train": [Document("a", "\ud800", "s", "g", "code", 1)]}
    with pytest.raises(InputError, match="surrogate"):
        tokens.write(folder, broken, trained, corpus_hash="")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["tokens"]
