"""Files of others in every bad shape: read as far as they go, and said."""

import bz2
import csv
import errno
import gzip
import json
import os
import pathlib
import random
import zlib

import pytest

from llm import config, registry
from llm.corpus import file_reader
from llm.errors import InputError

ROWS = [
    {"id": f"r{i}", "text": f"text {i} é", "url": f"http://a.org/{i}"} for i in "abc"
]


def read(name, **knobs):
    skipped = []
    source = registry.build("sources", {"name": name, **knobs})
    return list(source(lambda *skip: skipped.append(skip))), skipped


def json_lines(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def packed(kind, content):
    if kind == "zst":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.ZstdCompressor(write_checksum=True).compress(content)
    return gzip.compress(content) if kind == "gz" else content


@pytest.mark.parametrize("name", ["a.jsonl.bz2", "a.ndjson.gz", "A.JSON.BZ2"])
def test_packed_files_of_a_folder_are_found(tmp_path, name):
    pack = bz2.compress if name.lower().endswith("bz2") else gzip.compress
    (tmp_path / name).write_bytes(pack(json_lines()))
    documents, skipped = read("jsonl", path=str(tmp_path))
    assert [d.text for d in documents] == [r["text"] for r in ROWS] and not skipped


@pytest.mark.parametrize("kind", ["", "gz", "zst"])
def test_json_lines(tmp_path, kind):
    file = tmp_path / "x.jsonl"
    file.write_bytes(packed(kind, json_lines()))  # told by its bytes, not its name
    documents, skipped = read("jsonl", path=str(file))
    assert [(d.id, d.text) for d in documents] == [(r["id"], r["text"]) for r in ROWS]
    assert documents[0].meta == {"url": "http://a.org/a", "place": "x.jsonl:1"}
    assert not skipped


def test_fields_by_name_and_into_records(tmp_path):
    row = {"body": "x", "meta": {"site": "a.org", "when": 5}, "license": "MIT"}
    (tmp_path / "a.ndjson").write_text(json.dumps(row))
    knobs = {"text": "body", "group": "meta.site", "timestamp": "meta.when"}
    (document,), _ = read("jsonl", path=str(tmp_path), **knobs)
    assert (document.id, document.group) == ("a.ndjson:1", "a.org")
    assert document.meta == {"licence": "MIT", "timestamp": "5"}


def test_bad_lines_are_counted(tmp_path):
    bad = [
        b"\xff\xfe", b"{", b"[1]", b'{"text": 3}', b'{"text": " "}', b"[" * 100_000,
        b'{"text": "' + b"x" * 2**20 + b'"}', b'{"text": "\\ud800 half"}',
        b'{"text": "again", "id": "ra"}',
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(json_lines() + b"\n".join(bad))
    documents, skipped = read("jsonl", path=str(tmp_path), max_line_bytes=2**19)
    assert [d.text for d in documents[3:]] == ["\ufffd half"]
    assert skipped == [
        ("not UTF-8", "a.jsonl:4"), ("not JSON", "a.jsonl:5"),
        ("not a record", "a.jsonl:6"), ("no text in the field 'text'", "a.jsonl:7"),
        ("empty", "a.jsonl:8"), ("not JSON", "a.jsonl:9"),
        ("line longer than 524288 bytes", "a.jsonl:10"),
        ("id seen before", "a.jsonl#ra"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_cut_off_and_flipped(tmp_path, kind):
    many = [{"text": os.urandom(50).hex()} for _ in range(5000)]
    content = packed(kind, json_lines(many))
    (tmp_path / "a.jsonl").write_bytes(content[: len(content) // 2])
    documents, skipped = read("jsonl", path=str(tmp_path))
    assert [d.text for d in documents] == [m["text"] for m in many[: len(documents)]]
    assert (kind == "zst" or documents) and len(documents) < 5000
    assert len(skipped) == 1 and skipped[0][0].startswith(("damaged", "not JSON"))
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    flipped[len(content) // 2 + 1] ^= 0xFF
    (tmp_path / "a.jsonl").write_bytes(flipped)
    _, skipped = read("jsonl", path=str(tmp_path))
    assert any(reason == "damaged: cannot be unpacked" for reason, _ in skipped)


def test_a_bomb_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(file_reader, "_FREE", 2**20)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"0" * 2**25))
    _, skipped = read("jsonl", path=str(tmp_path), max_line_bytes=2**26)
    assert skipped == [("damaged: unpacks to more than 200 times its size",
                        "a.jsonl.gz:1")]  # fmt: skip


def test_a_folder_without_permission_is_counted(tmp_path, monkeypatch):
    for name in ("a", "closed", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jsonl").write_bytes(json_lines(ROWS[:1]))
    (tmp_path / "closed").chmod(0)
    scan = os.scandir

    def refusing(folder):  # as the disk does, unless root asks
        if pathlib.Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    source = registry.build("sources", {"name": "jsonl", "path": str(tmp_path)})
    skipped = []
    found = list(source.files(lambda *skip: skipped.append(skip)))
    assert [file.name for file in found] == ["a/a.jsonl", "z/z.jsonl"]
    assert skipped == [("folder that cannot be read", "closed")]
    with pytest.raises(InputError, match="Permission denied: "):
        read("jsonl", path=str(tmp_path / "closed"))


def test_links_in_circles_end(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.jsonl").write_bytes(json_lines())
    (tmp_path / "d/back").symlink_to(tmp_path)
    (tmp_path / "d/gone.jsonl").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "d/pipe.jsonl")
    documents, skipped = read("jsonl", path=str(tmp_path))
    assert len(documents) == 3
    assert sorted(skipped) == [
        ("link to a folder that was read", "d/back"),
        ("no file, or a link to none", "d/gone.jsonl"),
        ("no file, or a link to none", "d/pipe.jsonl"),
    ]


def test_all_before_the_cut_is_read(tmp_path):
    """As many lines as zlib itself unpacks."""
    rng = random.Random(0)
    rows = [{"text": f"{rng.getrandbits(800):0200x}"} for _ in range(200)]
    content = json_lines(rows)
    for kind, part in (("gz", gzip.compress(content)), ("bz2", bz2.compress(content))):
        part = part[: len(part) * 2 // 3]
        if kind == "gz":
            whole = zlib.decompressobj(31).decompress(part).count(b"\n")
            assert whole > 100
        (tmp_path / f"a.jsonl.{kind}").write_bytes(part)
        documents, skipped = read("jsonl", path=str(tmp_path / f"a.jsonl.{kind}"))
        assert kind == "bz2" or len(documents) == whole
        assert [d.text for d in documents] == [
            r["text"] for r in rows[: len(documents)]
        ]
        assert skipped == [("damaged: cut off", f"a.jsonl.{kind}:{len(documents) + 1}")]


@pytest.mark.parametrize("rows", [3, 300])
def test_behind_a_broken_member_the_next_is_read(tmp_path, rows):
    rng = random.Random(0)
    parts = [
        [{"text": f"{n}.{i} {rng.getrandbits(4000):x}"} for i in range(rows)]
        for n in range(5)
    ]
    members = [bytearray(gzip.compress(json_lines(part))) for part in parts]
    for n in (1, 3):
        middle = len(members[n]) // 2
        members[n][middle : middle + 40] = b"\xff" * 40
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(members) + bytes(70_000))
    documents, skipped = read("jsonl", path=str(tmp_path))
    found = [d.text for d in documents]
    whole = [row["text"] for n in (0, 2, 4) for row in parts[n]]
    assert [text for text in found if text in whole] == whole
    assert len({d.id for d in documents}) == len(found)
    reasons = [reason for reason, _ in skipped if reason != "not JSON"]
    assert reasons == ["damaged: cannot be unpacked"] * 2


def test_members_of_any_length_are_read_as_gzip_reads_them(tmp_path):
    rng = random.Random(0)
    rows = [{"text": f"{n} {rng.getrandbits(9 * n):x}"} for n in range(1, 900)]
    content, members = json_lines(rows), []
    while content:  # cut anywhere, also into members of nothing
        size = rng.choice([0, 1, 700, 90_000])
        members.append(gzip.compress(content[:size], 1))
        content = content[size:]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(members))
    documents, skipped = read("jsonl", path=str(tmp_path))
    assert [d.text for d in documents] == [r["text"] for r in rows] and not skipped


def test_empty_files_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "c.jsonl").write_bytes(json_lines())
    _, skipped = read("jsonl", path=str(tmp_path))
    assert skipped == [("empty file", "a.jsonl"), ("empty file", "b.jsonl.gz")]


def test_a_bucket_is_no_folder():
    with pytest.raises(InputError, match="bucket"):
        read("jsonl", path="gs://bucket/x.jsonl")


def test_no_file_is_one_line(tmp_path):
    for path, got in (("", "no path"), ("nowhere", "does not exist")):
        with pytest.raises(InputError, match=got):
            read("jsonl", path=path)
    with pytest.raises(InputError, match="no JSON lines in"):
        read("jsonl", path=str(tmp_path))


def test_tables(tmp_path):
    rows = [*ROWS, {"id": "", "text": 'two\nlines, "quoted"', "url": ""}]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "url"])
        writer.writeheader()
        writer.writerows(rows)
    documents, skipped = read("csv", path=str(tmp_path))
    assert [d.text for d in documents] == [row["text"] for row in rows]
    assert documents[3].id == "a.csv:5" and not skipped
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,caf\xe9\n2,"open\n' + b"x\n" * 900)
    documents, skipped = read("csv", path=str(tmp_path), max_line_bytes=1000)
    assert [d.text for d in documents] == ["caf\ufffd"]
    assert skipped[0] == ("not UTF-8: letters are lost", "a.csv, line 2")
    assert skipped[1][0].startswith("damaged: field larger than")
    (tmp_path / "t.tsv").write_text("text\tid\na, b\tx\n")
    assert read("csv", path=str(tmp_path / "t.tsv"))[0][0].text == "a, b"


def test_a_quote_that_is_not_closed(tmp_path):
    """Costs what stands up to the next one, which is said; the rest is read."""
    rows = [f"text {n}" for n in range(100)]
    rows[10], rows[60] = '"open', '"well, quoted"'
    (tmp_path / "a.csv").write_text("\n".join(["text", *rows]) + "\n")
    documents, skipped = read("csv", path=str(tmp_path / "a.csv"))
    assert [d.text for d in documents] == rows[:10] + rows[61:]
    ((reason, place),) = skipped
    assert reason.startswith("damaged: ") and place.endswith("51 lines from 12 on")
    (tmp_path / "b.csv").write_text("\n".join(["text", *rows[:60]]) + "\n")
    documents, skipped = read("csv", path=str(tmp_path / "b.csv"))
    assert [d.text for d in documents] == rows[:10]
    assert skipped[0][0] == "damaged: unexpected end of data"
    documents, skipped = read("csv", path=str(tmp_path / "a.csv"), quote="")
    assert [d.text for d in documents] == rows[:60] + rows[61:]
    assert skipped == [("row with more cells than the first row has names", "a.csv:62")]
    with pytest.raises(InputError, match="delimiter"):
        read("csv", path=str(tmp_path / "a.csv"), delimiter="ab")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": f"t{i}", "meta": {"url": f"u{i}"}, "n": i} for i in range(600)]
    rows[5]["text"] = None
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=100)
    documents, skipped = read("parquet", path=str(tmp_path), url="meta.url")
    assert [d.text for d in documents] == [r["text"] for r in rows if r["text"]]
    assert documents[-1].meta == {"url": "u599"}
    assert skipped == [("no text in the field 'text'", "a.parquet:6")]
    assert len(read("parquet", path=str(file), max_documents=7)[0]) == 7
    file.write_bytes(file.read_bytes()[:-100])
    documents, skipped = read("parquet", path=str(file))
    assert not documents and skipped == [("damaged: ArrowInvalid", "a.parquet:1")]


def test_a_config_names_a_source_before_a_path(tmp_path):
    assert config.source("jsonl:a/b.jsonl")["path"] == "a/b.jsonl"
    assert config.source("jsonl:a")["name"] == "jsonl"
    assert config.source("nosuch:a")["name"] == "text"
    assert config.source("stdlib:a")["name"] == "text"  # which has no path
