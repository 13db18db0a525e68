"""Web archives, made here: whole, damaged, hostile; and their pages as text."""

import bz2
import gzip
import random
import sys

import pytest

from llm import registry
from llm.corpus import extract
from llm.errors import InputError

pytest.importorskip("resiliparse")
pytest.importorskip("fastwarc")


def page(body, head=""):
    words = f"<p>{body} is what this page is about, and nothing but that.</p>"
    return f"<html lang=de>{head}<body><main>{words}</main></body></html>".encode()


def record(n, content, kind="text/html", status="200 OK", more=""):
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode()
    block = http + content
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{n}>\r\n"
        f"WARC-Target-URI: http://h{n}.org/x\r\nWARC-Date: 2026-01-0{n}T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\n{more}"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def read(path, name="warc", **knobs):
    skipped = []
    source = registry.build("sources", {"name": name, "path": str(path), **knobs})
    return list(source(lambda *skip: skipped.append(skip))), skipped


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_pages_and_what_is_left_out(tmp_path, pack):
    records = [
        record(1, page("Eins")), record(2, b"\x89PNG", "image/png"),
        record(3, page("Drei"), status="404 Not Found"),
        record(4, "vier é".encode(), "text/plain"), record(5, page("")[:9]),
        record(6, page("caf\xe9").decode().encode("latin-1"),
               "text/html; charset=iso-8859-1"),
        record(7, b"x" * 9000),
    ]  # fmt: skip
    file = tmp_path / {bz2.compress: "a.warc.bz2"}.get(pack, "a.warc.gz")
    file.write_bytes(b"".join(map(pack, records)))
    documents, skipped = read(tmp_path, max_page_bytes=8000)
    assert [d.id for d in documents] == ["urn:uuid:1", "urn:uuid:4", "urn:uuid:6"]
    first, plain, latin = documents
    assert first.text.startswith("Eins is what") and first.group == "h1.org"
    assert first.meta == {
        "url": "http://h1.org/x", "timestamp": "2026-01-01T00:00:00Z", "language": "de",
    }  # fmt: skip
    assert plain.text == "vier é" and latin.text.startswith("café is")
    assert skipped == [
        ("neither HTML nor plain text", "urn:uuid:2"),
        ("not a page: another status than 200", "urn:uuid:3"),
        ("empty", "urn:uuid:5"), ("larger than 8000 bytes", "urn:uuid:7"),
    ]  # fmt: skip


def test_plain_texts_in_other_charsets(tmp_path):
    """As the response says, else UTF-8, else by a guess."""
    japanese = "テキストは文字である。これは日本語の文章です。" * 5
    records = [
        record(1, "Café naïve".encode("latin-1"), "text/plain; charset=iso-8859-1"),
        record(2, japanese.encode("shift_jis"), "text/plain; charset=Shift_JIS"),
        record(3, "vier é".encode(), "text/plain; charset=nonsense"),
        record(4, japanese.encode("euc_jp"), "text/plain"),
        record(5, "fünf".encode(), "text/plain"),
        record(6, ("Wälder und Flüsse, " * 9 + "größé").encode()[:-1], "text/plain"),
        record(7, "Größe".encode() + b"\xff", "text/plain; charset=utf-8"),
        record(8, "\ufeffAcht für".encode(), "text/plain; charset=us-ascii"),
        record(9, japanese.encode("iso-2022-jp"), "text/plain; charset=iso-2022-jp"),
    ]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    documents, skipped = read(tmp_path)
    texts = [d.text for d in documents]
    assert texts[:5] == ["Café naïve", japanese, "vier é", japanese, "fünf"]
    assert texts[5:7] == ["Wälder und Flüsse, " * 9 + "größ\ufffd", "Größe\ufffd"]
    assert texts[7:] == ["Acht für", japanese]
    lost = "not of its charset: letters are lost"
    assert skipped == [(lost, "urn:uuid:6"), (lost, "urn:uuid:7")]


@pytest.mark.parametrize("cut", [slice(-20), slice(0)])
def test_what_is_left_of_an_archive_in_bzip2_is_read(tmp_path, cut):
    members = [bz2.compress(record(n, page(f"Nummer {n}"))) for n in (1, 2, 3)]
    (tmp_path / "a.warc.bz2").write_bytes(b"".join(members)[cut])
    documents, skipped = read(tmp_path)
    if cut.stop:
        assert [d.id for d in documents] == ["urn:uuid:1", "urn:uuid:2"]
        assert skipped[0][0] == "damaged: no whole record" and len(skipped) == 1
    else:
        assert not documents and skipped == [("empty file", "a.warc.bz2")]


def test_a_broken_member_is_passed_over(tmp_path):
    members = [gzip.compress(record(n, page(f"Nummer {n}"))) for n in (1, 2, 3, 4)]
    broken = bytearray(members[1])
    broken[40:80] = b"\xff" * 40
    (tmp_path / "a.warc.gz").write_bytes(
        members[0] + broken + members[2] + members[3][:-60]
    )
    documents, skipped = read(tmp_path)
    assert [d.id for d in documents] == ["urn:uuid:1", "urn:uuid:3"]
    assert len(skipped) == 2, skipped


def chunked(content):
    cut = len(content) // 2
    parts = (content[:cut], content[cut:], b"")
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize(
    ("said", "pack"),
    [
        ("Transfer-Encoding: chunked", chunked),
        ("Transfer-Encoding: chunked", bytes),
        ("Content-Encoding: gzip", gzip.compress),
        ("Content-Encoding: gzip", bytes),
        *(
            ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked", pack)
            for pack in (lambda c: chunked(gzip.compress(c)), gzip.compress, chunked)
        ),
    ],
)
def test_a_content_that_is_not_packed_as_it_says_is_read(tmp_path, said, pack):
    kind = f"text/html; charset=utf-8\r\n{said}"
    content = b"".join(record(n, pack(page(f"Nummer {n}")), kind) for n in (1, 2))
    (tmp_path / "a.warc").write_bytes(content)
    documents, skipped = read(tmp_path, max_page_bytes=8000)
    assert [d.text[:8] for d in documents] == ["Nummer 1", "Nummer 2"]
    assert not skipped


def test_reasons_hold_nothing_of_a_page(tmp_path):
    """Whatever is damaged: they are printed, and stand in reports."""
    content = b"Jane Doe, 1 High Street, jane@mail.org. " * 9
    (tmp_path / "a.warc").write_bytes(
        record(1, chunked(content).replace(b"\r\nJane", b"\nJane", 1)[:-9],
               "text/plain\r\nTransfer-Encoding: chunked")
        + record(2, content + b"\0", "text/plain\r\nTransfer-Encoding: chunked")
        + record(3, gzip.compress(content)[:-30] + content,
                 "text/plain\r\nContent-Encoding: gzip")
        + record(4, content, "text/plain").replace(b"HTTP/1.1 200", content, 1)
        + record(5, content, "text/plain").replace(b"Content-Length: ", content, 1)
        + record(6, content, "text/plain")
        + record(7, content, "text/plain")[:-100]
    )  # fmt: skip
    documents, skipped = read(tmp_path, max_page_bytes=8000)
    assert "urn:uuid:6" in [d.id for d in documents] and len(skipped) >= 5
    assert skipped[-1] == ("cut off", "urn:uuid:7")
    assert {reason for reason, _ in skipped} == {
        "damaged: no HTTP response", "damaged: no whole record", "cut off",
        "not a page: another status than 200",
    }  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
def test_a_record_that_is_cut_off_is_left_out(tmp_path, pack, kind):
    content = record(1, page("Eins")) + record(2, page("Zwei" * 99), kind)[:-300]
    (tmp_path / "a.warc.gz").write_bytes(pack(content))
    documents, skipped = read(tmp_path)
    assert [d.id for d in documents] == ["urn:uuid:1"]
    assert skipped == [("cut off", "urn:uuid:2")]


def test_texts_of_common_crawl(tmp_path):
    text = "Texto de una página.".encode()
    head = (
        "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.org/\r\n"
        "WARC-Record-ID: <urn:uuid:a>\r\nWARC-Identified-Content-Language: spa,eng\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    (tmp_path / "a.warc.wet").write_bytes(head.encode() + text + b"\r\n\r\n")
    (document,), skipped = read(tmp_path)
    assert document.text.encode() == text and not skipped
    assert document.meta == {"url": "http://a.org/", "language": "es"}


def test_a_page_that_hangs_is_left_and_the_next_one_read(tmp_path):
    (tmp_path / "a.html").write_bytes(page("Anfang"))
    (tmp_path / "b.html").write_bytes(b"<div>" * 100_000 + b"tief")
    (tmp_path / "c.html").write_bytes(page("Ende"))
    (tmp_path / "d.html").write_bytes(b"")
    licence = '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
    (tmp_path / "e.html").write_bytes(page("frei", f"<head>{licence}</head>"))
    documents, skipped = read(tmp_path, "html", seconds=1.0)
    assert [d.id for d in documents] == ["a.html", "c.html", "e.html"]
    assert documents[2].meta["licence"].endswith("by/4.0/")
    assert skipped == [("not extracted: takes over 1 s", "b.html"), ("empty", "d.html")]


WORDS = "Ein Café in Zürich, das schöne Brötchen und größere Kuchen führt. "


@pytest.mark.parametrize(
    ("charset", "meta", "encoding"),
    [
        ("utf8mb4", "", "utf-8"), ("none", "", "utf-8"), ("unicode", "", "utf-8"),
        ("UTF-8,UTF-8", "", "utf-8"), ("en", "", "utf-8"), ("hex", "", "utf-8"),
        ("undefined", "", "utf-8"), ("idna", "", "utf-8"), ("a\0b", "", "utf-8"),
        ("", "utf8mb4", "utf-8"), ("", "utf-16", "utf-8"), ("'utf-8'", "", "utf-8"),
        ("utf8mb4", "iso-8859-2", "iso-8859-2"), ("none", "macintosh", "mac-roman"),
        ("latin1", "utf-8", "iso-8859-1"), ("unicode", "", "utf-16-le"),
    ],
)  # fmt: skip
def test_the_charset_is_one_that_is_known(children, charset, meta, encoding):
    head = f"<meta charset={meta}>" if meta else ""
    html = f"<html>{head}<body><main><p>{WORDS * 4}</p></main></body></html>"
    made = children(html.encode(encoding), charset)
    assert made == {"text": (WORDS * 4).strip(), "language": "", "licence": ""}


@pytest.fixture(scope="module")
def children():
    with extract.pages("resiliparse", 5) as read_page:
        yield read_page


_ASKING = """
import sys
sys.path[:] = {path!r}
from llm.corpus import extract, extract_child

def extracted(html, charset, extractor):
    size = 2 * extract.MEMORY if html == b"large" else 1
    return {{"text": str(len(bytearray(size)))}}

extract_child.extracted = extracted
answer = extract_child.answer
"""


def test_a_page_that_asks_for_all_memory_is_left(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(_ASKING.format(path=sys.path))
    monkeypatch.setattr(extract, "_CHILD", tmp_path / "child.py")
    with extract.pages("resiliparse", 10) as read_page:
        assert read_page(b"small") == {"text": "1"}
        assert read_page(b"large") == {"refused": "MemoryError"}
        assert read_page(b"small") == {"text": "1"}


def test_a_page_that_ends_its_process_is_left(tmp_path, monkeypatch):
    child = _ASKING.format(path=sys.path).replace("2 * extract.MEMORY", "sys.exit()")
    (tmp_path / "child.py").write_text(child)
    monkeypatch.setattr(extract, "_CHILD", tmp_path / "child.py")
    with extract.pages("resiliparse", 10) as read_page:
        assert read_page(b"large") == {"refused": "ends its process"}
        assert read_page(b"small") == {"text": "1"}


def test_an_unknown_extractor_is_one_line():
    with pytest.raises(InputError, match="resiliparse or trafilatura"):
        registry.build("sources", {"name": "html", "extractor": "justext"})


@pytest.mark.parametrize("bytes_of_a_piece", [300, 1000, 7000])
def test_pieces_of_a_file_are_the_whole(tmp_path, bytes_of_a_piece):
    """Each record is in the piece that it begins in, and in no other."""
    rng = random.Random(0)
    content = b""
    for n in range(60):
        # Of random bytes, which deflate stores, so that false beginnings are in them.
        noise = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
        body = f"Text {n}. ".encode() * 20 + noise.hex().encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:x:{n}>\r\n"
            "WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        content += gzip.compress(head.encode() + body + b"\r\n\r\n")
        if n % 7 == 0:  # an extra field that looks like a member
            fake = b"\x1f\x8b\x08\x00" + bytes(6)
            content += gzip_with_extra(b"\r\n", fake)
    file = tmp_path / "a.warc.gz"
    file.write_bytes(content)
    source = registry.build("sources", {"name": "warc", "path": str(file)})
    whole, skipped = [], []
    whole = list(source(lambda *skip: skipped.append(skip)))
    assert len(whole) == 60 and not skipped
    (found,) = source.files(None)
    assert source.cut(found)
    made = []
    for start in range(0, len(content), bytes_of_a_piece):
        piece = found._replace(start=start, stop=start + bytes_of_a_piece)
        made += source.read([piece], lambda *skip: skipped.append(skip))
    assert made == whole and not skipped


@pytest.mark.parametrize("records_of_a_member", [1, 7, 60])
@pytest.mark.parametrize("version", ["0.18", "1.0", "1.1"])
def test_pieces_are_the_whole_however_long_a_member_is(
    tmp_path, version, records_of_a_member
):
    """As `gzip crawl.warc` makes one member of all; ClueWeb09 has the form 0.18."""
    rng = random.Random(0)
    records = []
    for n in range(60):
        body = f"Text {n}: {rng.getrandbits(8000):02000x}"
        named = f"WARC-Record-ID: <urn:x:{n}>\r\n" if n % 2 else ""
        records.append(
            f"WARC/{version}\r\nWARC-Type: conversion\r\n{named}"
            "WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}\r\n\r\n".encode()
        )
    size = records_of_a_member
    members = (b"".join(records[n : n + size]) for n in range(0, 60, size))
    file = tmp_path / "a.warc.gz"
    file.write_bytes(b"".join(map(gzip.compress, members)))
    source = registry.build("sources", {"name": "warc", "path": str(file)})
    (found,) = source.files(None)
    made, skipped, begun = [], [], 0
    for start in range(0, file.stat().st_size, 5000):
        piece = found._replace(start=start, stop=start + 5000)
        some = list(source.read([piece], lambda *skip: skipped.append(skip)))
        made, begun = made + some, begun + bool(some)
    assert [d.text.partition(":")[0] for d in made] == [f"Text {n}" for n in range(60)]
    assert len({d.id for d in made}) == 60 and not skipped
    assert begun == 1 if size == 60 else begun > 4, "members begin in several pieces"


def gzip_with_extra(content, extra):
    """A member of gzip with an extra field."""
    plain = gzip.compress(content)
    head = bytearray(plain[:10])
    head[3] |= 4
    return bytes(head) + len(extra).to_bytes(2, "little") + extra + plain[10:]


@pytest.mark.parametrize("extractor", extract.EXTRACTORS)
def test_extractors_keep_the_article(extractor):
    if extractor == "trafilatura":
        pytest.importorskip("trafilatura")
    paragraphs = [
        f"Paragraph {n} says how the old town came to the sea, and why it went away "
        f"again in the year {1700 + n}."
        for n in range(5)
    ]
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    html = (
        "<html lang=en><body><nav><ul><li><a href=/>Home</a></li></ul></nav>"
        f"<article><h1>The town</h1>{body}</article><footer>Imprint</footer></body>"
    )
    with extract.pages(extractor, seconds=30) as page:
        made = page(html.encode())
    assert "refused" not in made, made
    assert all(paragraph in made["text"] for paragraph in paragraphs)
    assert "Imprint" not in made["text"] and "Home" not in made["text"]
    assert made["language"] == "en"


def test_two_damaged_members_cost_no_other(tmp_path):
    members = []
    for n in range(12):
        body = f"Text {n}. ".encode() * 30
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:x:{n}>\r\n"
            "WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        members.append(gzip.compress(head.encode() + body + b"\r\n\r\n"))
    for n in (3, 8):
        members[n] = members[n][:40] + b"\xff" * 20 + members[n][60:]
    file = tmp_path / "a.warc.gz"
    file.write_bytes(b"".join(members))
    skipped = []
    source = registry.build("sources", {"name": "warc", "path": str(file)})
    found = [d.id for d in source(lambda *skip: skipped.append(skip))]
    whole = {f"urn:x:{n}" for n in range(12) if n not in (3, 8)}
    assert whole <= set(found) and len(found) == len(set(found))
    assert len(skipped) == 2
