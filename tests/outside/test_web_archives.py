"""Archives as other crawlers and servers write them: no page is lost uncounted."""

import gzip
import lzma

import pytest

from llm import registry

pytest.importorskip("resiliparse")
pytest.importorskip("fastwarc")

PAGE = (
    b"<html><body><main><p>The tide rises twice a day along this coast, and falls."
    b"</p></main></body></html>"
)
TEXT = "The tide rises twice a day along this coast, and falls."


def record(block, number=1, **headers):
    """A record; `None` takes out a header."""
    named = {
        "WARC-Type": "response", "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": f"http://h{number}.org/",
        "WARC-Date": "2026-01-01T00:00:00Z",
        "Content-Type": "application/http; msgtype=response",
    } | {name.replace("_", "-"): value for name, value in headers.items()}  # fmt: skip
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    head = "\r\n".join(["WARC/1.0", *lines, f"Content-Length: {len(block)}"])
    return head.encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def read(path, **knobs):
    skipped = []
    source = registry.build("sources", {"name": "warc", "path": str(path), **knobs})
    return list(source(lambda *skip: skipped.append(skip))), skipped


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n",
        b"HTTP/1.0 200 OK\nServer: x\ncontent-type:text/html; charset=utf-8\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\n\n",
        b"HTTP/1.1 200 OK\nContent-Type: text/html\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\n",
        b"HTTP/1.1 200\r\nContent-Type: text/html\r\n\r\n",
        b"HTTP/2 200\r\ncontent-type: text/html\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Type:\r\n text/html\r\n\r\n",
    ],
)
def test_headers_of_any_server_are_read(tmp_path, head):
    body = PAGE + b"\n\n<!-- the end\n\nof it -->"
    content = record(head + body, 1) + record(head + body, 2)
    (tmp_path / "a.warc").write_bytes(content)
    documents, skipped = read(tmp_path)
    assert [d.text for d in documents] == [TEXT] * 2 and not skipped


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_a_packed_body_behind_lf_alone(tmp_path, pack):
    head = b"HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: gzip\n\n"
    (tmp_path / "a.warc").write_bytes(record(head + pack(PAGE)))
    documents, skipped = read(tmp_path)
    assert [d.text for d in documents] == [TEXT] and not skipped


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        # wget, wpull and browsertrix
        ({"WARC_Target_URI": "<metadata://gnu.org/software/wget/warc/MANIFEST.txt>"},
         "not a page: metadata: and no address of the web"),
        ({"WARC_Target_URI": "metadata://gnu.org/software/wget/warc/wget.log"},
         "not a page: metadata: and no address of the web"),
        ({"WARC_Target_URI": "urn:X-wpull:log"},
         "not a page: urn: and no address of the web"),
        ({"WARC_Target_URI": "urn:text:https://a.org/"},
         "not a page: urn: and no address of the web"),
        ({"WARC_Target_URI": "dns:a.org"},
         "not a page: dns: and no address of the web"),
        ({"WARC_Segment_Number": "1"}, "not a page: a segment of one"),
        ({"WARC_Type": "continuation", "WARC_Segment_Number": "2"},
         "not a page: a segment of one"),
    ],
)  # fmt: skip
def test_what_a_crawler_writes_about_itself_is_counted(tmp_path, headers, reason):
    own = {"WARC_Type": "resource", "Content_Type": "text/plain"} | headers
    page = record(PAGE, 2, WARC_Type="resource", Content_Type="text/html")
    (tmp_path / "a.warc").write_bytes(record(b"a list of records", 1, **own) + page)
    documents, skipped = read(tmp_path)
    assert [d.id for d in documents] == ["urn:uuid:2"]
    assert skipped == [(reason, "urn:uuid:1")]


def test_metadata_requests_and_info_are_no_documents(tmp_path):
    kinds = {"warcinfo": "application/warc-fields", "metadata": "text/plain",
             "request": "application/http; msgtype=request"}  # fmt: skip
    content = b"".join(
        record(b"GET / HTTP/1.1\r\n\r\n", n, WARC_Type=kind, Content_Type=type_)
        for n, (kind, type_) in enumerate(kinds.items())
    )
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    (tmp_path / "a.warc").write_bytes(content + record(http + PAGE, 9))
    assert [d.id for d in read(tmp_path)[0]] == ["urn:uuid:9"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("301 Moved Permanently", "not a page: a redirect"),
        ("302 Found", "not a page: a redirect"),
        ("308 Permanent Redirect", "not a page: a redirect"),
        ("404 Not Found", "not a page: another status than 200"),
        ("206 Partial Content", "not a page: another status than 200"),
    ],
)
def test_redirects_and_errors_are_counted(tmp_path, status, reason):
    http = f"HTTP/1.1 {status}\nLocation: /x\nContent-Type: text/html\n\n".encode()
    (tmp_path / "a.warc").write_bytes(record(http + PAGE))
    assert read(tmp_path) == ([], [(reason, "urn:uuid:1")])


def test_revisits_and_cut_pages_are_counted(tmp_path):
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    (tmp_path / "a.warc").write_bytes(
        record(http, 1, WARC_Type="revisit", WARC_Refers_To="<urn:uuid:7>")
        + record(http + PAGE, 2, WARC_Truncated="length")
    )
    documents, skipped = read(tmp_path)
    assert [d.id for d in documents] == ["urn:uuid:2"]
    assert skipped == [
        ("not a page: a revisit, whose text is in another record", "urn:uuid:1"),
        ("page cut short when it was archived, kept", "urn:uuid:2"),
    ]


def test_bombs_are_counted(tmp_path):
    """In the body, and in the member of the archive."""
    http = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    )
    body = http + gzip.compress(b"<p>" + b"0" * 2**25)
    plain = http.replace(b"Content-Encoding: gzip\r\n", b"") + PAGE
    (tmp_path / "a.warc.gz").write_bytes(
        gzip.compress(record(body, 1))
        + gzip.compress(record(plain + b" " * 2**24, 2))
        + gzip.compress(record(plain, 3))
    )
    documents, skipped = read(tmp_path, max_page_bytes=2**20)
    assert [d.id for d in documents] == ["urn:uuid:3"]
    assert skipped == [
        ("larger than 1048576 bytes", "urn:uuid:1"),
        ("larger than 1048576 bytes", "urn:uuid:2"),
    ]


@pytest.mark.parametrize("kind", ["xz", "zst"])
def test_archives_packed_in_one_piece(tmp_path, kind):
    http = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n"
    content = b"".join(record(http + PAGE, n) for n in range(200))
    if kind == "xz":
        packed = lzma.compress(content)
    else:
        zstandard = pytest.importorskip("zstandard")
        packed = zstandard.ZstdCompressor().compress(content)
    file = tmp_path / f"a.warc.{kind}"
    file.write_bytes(packed)
    documents, skipped = read(tmp_path)
    assert len(documents) == 200 and not skipped
    file.write_bytes(packed[:-20])
    documents, skipped = read(tmp_path)
    assert [reason for reason, _ in skipped] == ["damaged: no whole record"]
