"""Web archives, made here: whole, damaged, hostile; and their pages as text."""

import gzip

import pytest

from llm import extract, registry
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


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pages_and_what_is_left_out(tmp_path, pack):
    records = [
        record(1, page("Eins")), record(2, b"\x89PNG", "image/png"),
        record(3, page("Drei"), status="404 Not Found"),
        record(4, "vier é".encode(), "text/plain"), record(5, page("")[:9]),
        record(6, page("caf\xe9").decode().encode("latin-1"),
               "text/html; charset=iso-8859-1"),
        record(7, b"x" * 9000),
    ]  # fmt: skip
    file = tmp_path / "a.warc.gz"
    file.write_bytes(b"".join(map(pack, records)))
    documents, skipped = read(file, max_page_bytes=8000)
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
    assert document.meta == {"url": "http://a.org/", "language": "spa"}


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


def test_a_page_that_ends_its_process():
    with extract.pages("resiliparse", 5) as read_page:
        made = read_page(b"<p>Hello</p>", "no-such-charset")
        assert made.get("text") == "Hello" or "refused" in made
        assert read_page(b"<p>Hello</p>")["text"] == "Hello"


def test_an_unknown_extractor_is_one_line():
    with pytest.raises(InputError, match="resiliparse or trafilatura"):
        registry.build("sources", {"name": "html", "extractor": "justext"})
