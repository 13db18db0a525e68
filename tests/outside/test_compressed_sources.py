"""Compressed files that others cut, damage, or pack in ways we do not read."""

import bz2
import gzip
import json
import lzma
import random

import pytest

from llm import registry
from llm.corpus import file_reader

ROWS = [
    {"text": f"{n} {random.Random(n).getrandbits(400):x}"} for n in range(3000)
]  # of random digits, so that the file does not shrink to one block
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(content, **settings):
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor(**settings).compress(content)


def frames(content):
    """As `cat a.zst b.zst`, with an empty frame and one to skip between them."""
    half = content.index(b"\n", len(content) // 2) + 1
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"table"
    return zstd(content[:half]) + zstd(b"") + skippable + zstd(content[half:])


def skippable_first(content):
    return b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"pzst" + zstd(content)


PACKERS = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd,
    "zstd": lambda content: zstd(content, write_checksum=True),
    "frames.zst": frames, "pzstd.zst": skippable_first,
}  # fmt: skip


def read(path, name="jsonl", **knobs):
    skipped = []
    source = registry.build("sources", {"name": name, "path": str(path), **knobs})
    return list(source(lambda *skip: skipped.append(skip))), skipped


@pytest.mark.parametrize("kind", PACKERS)
def test_every_compression_is_read_whole(tmp_path, kind):
    suffix = kind.rpartition(".")[2]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(PACKERS[kind](CONTENT))
    documents, skipped = read(tmp_path)
    assert [d.text for d in documents] == [row["text"] for row in ROWS]
    assert not skipped


@pytest.mark.parametrize("lost", [1, 4, 0.1, 0.41, 0.97])
@pytest.mark.parametrize("kind", PACKERS)
def test_a_file_that_is_cut_off_is_counted(tmp_path, kind, lost):
    """What stands before the cut is read; that more is missing has a name."""
    packed = PACKERS[kind](CONTENT)
    left = len(packed) - (lost if lost >= 1 else int(lost * len(packed)))
    (tmp_path / "a.jsonl").write_bytes(packed[:left])
    documents, skipped = read(tmp_path)
    texts = [row["text"] for row in ROWS]
    assert [d.text for d in documents] == texts[: len(documents)]
    assert [reason for reason, _ in skipped] == ["damaged: cut off"]


@pytest.mark.parametrize("kind", [k for k in PACKERS if "." not in k])
def test_what_unpacks_to_far_more_than_its_size_is_counted(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(file_reader, "_FREE", 2**20)
    bomb = PACKERS[kind](b"0" * 2**25)
    (tmp_path / "a.jsonl").write_bytes(bomb)
    _, skipped = read(tmp_path, max_line_bytes=2**26)
    assert skipped == [
        ("damaged: unpacks to more than 200 times its size", "a.jsonl:1")
    ]


@pytest.mark.parametrize(
    ("name", "first"),
    [("zip", b"PK\x03\x04"), ("lz4", b"\x04\x22\x4d\x18"), ("7z", b"7z\xbc\xaf\x27"),
     ("z", b"\x1f\x9d\x90"), ("lz", b"LZIP\1")],
)  # fmt: skip
def test_a_compression_that_is_not_read_is_counted(tmp_path, name, first):
    """In a folder by its name, and where it is named itself by its first bytes."""
    (tmp_path / "good.jsonl").write_bytes(CONTENT[: CONTENT.index(b"\n") + 1])
    packed = tmp_path / f"bad.jsonl.{name}"
    packed.write_bytes(first + bytes(range(256)) * 9)
    (tmp_path / f"other.{name}").write_bytes(first)
    documents, skipped = read(tmp_path)
    assert len(documents) == 1
    assert skipped == [(f"compression that is not read: .{name}", packed.name)]
    documents, ((reason, _),) = read(packed)
    assert not documents and reason.startswith("damaged: compressed by ")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_other_sources_count_a_cut_too(tmp_path, kind):
    table = ("text\n" + "".join(row["text"] + "\n" for row in ROWS)).encode()
    (tmp_path / f"a.csv.{kind}").write_bytes(PACKERS[kind](table)[:-9])
    page = b"<html><body><p>" + CONTENT + b"</p></body></html>"
    (tmp_path / f"a.html.{kind}").write_bytes(PACKERS[kind](page)[:-9])
    _, skipped = read(tmp_path, "csv")
    assert [reason for reason, _ in skipped] == ["damaged: cut off"]
    pytest.importorskip("resiliparse")
    documents, skipped = read(tmp_path, "html")
    assert not documents and skipped == [("damaged: cut off", f"a.html.{kind}")]
