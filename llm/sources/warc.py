"""Pages of web archives: WARC and WET, plain or compressed; the form of Common Crawl.

Records are read one at a time by fastwarc. The main text of an HTML response is taken
out in a process of its own (`llm/corpus/extract.py`); plain text, and the texts of a
WET, are taken as they are. A document is named by its record, its group is the host,
and meta has url, timestamp and, where the page says so, language and licence. What is
damaged is left out and counted: behind a broken member, reading goes on at the next
whole one. Records that are no page are counted by what they are: redirects, revisits,
segments, and what a crawler writes about itself (`metadata:` and `urn:` addresses of
wget, wpull and browsertrix). Pages that were cut short when they were archived are kept
and counted.

    --config=configs/quickstart.py:text=warc:crawl/
"""

import bz2
import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import urllib.parse
import zlib
from collections.abc import Iterable

from llm.corpus import extract, extract_child, file_reader, record_fields
from llm.corpus.file_source import Documents, Files
from llm.document import Document, Source
from llm.errors import InputError
from llm.knobs import maker
from llm.text import languages

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.warc"))}
NEEDS = ("fastwarc", "resiliparse")

_WANTED = file_reader.ending(".warc", ".wet")
_UNSEEKABLE = (b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0")  # zstd and xz
_GZIP, _PLAIN = b"\x1f\x8b\x08", b"WARC/"
_PACKED = b"BZh"  # in one piece, of which no member is found
_BEGINNING = re.compile(rb"WARC/[01]\.\d")  # 0.18 is that of ClueWeb09
_CHUNK = re.compile(rb"[0-9A-Fa-f]+[ \t]*(;[^\r\n]*)?\r?\n")
_HEADERS_END, _LINE_END = re.compile(rb"\r?\n\r?\n"), re.compile(rb"\r?\n")
_HEADERS = 2**16  # bytes of a response's, at most
_GROUPS = ("host", "page")
_HTML = ("text/html", "application/xhtml+xml")
# Of pages; crawlers name records of their own by others, such as `metadata:`.
_SCHEMES = ("http", "https", "ftp", "ftps", "file")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TAG = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!doctype html|<html)", re.I)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs(extract.Knobs):
    """Those of web archives."""

    group: str = "host"  # what a split may not cut: host, or page, where hosts are few

    def __post_init__(self):
        if self.group not in _GROUPS:
            raise InputError(got=f"group {self.group!r}", want=" or ".join(_GROUPS))
        super().__post_init__()


def _build(knobs: Knobs) -> Source:
    def read(files: Iterable[file_reader.File], skip: file_reader.Skip) -> Documents:
        warc = file_reader.package("fastwarc", "fastwarc", _fastwarc)
        with extract.pages(knobs.extractor, knobs.seconds) as page:
            for file in files:
                for record in _records(warc, file, knobs.max_page_bytes, skip):
                    yield _document(*record, knobs.group, page, skip)

    files = functools.partial(file_reader.files, knobs.path, "WARC or WET", _WANTED)
    return Files(files, read, knobs.max_documents, _compressed)


make = maker(_build, Knobs)


def _compressed(file: file_reader.File) -> bool:
    """Whether records may be members of their own, which are found from anywhere."""
    with file.path.open("rb") as stream:
        return stream.read(2) == _GZIP[:2]


def _records(warc, file: file_reader.File, most: int, skip: file_reader.Skip):
    """(id, headers, type, charset, content) of responses and texts, past damage.

    A stretch is read from the first member that begins in it up to the first that
    begins behind it, so that stretches are the whole file, however long a member is.
    """
    name, stop, told = file.name, 0, False
    with _stream(file) as (stream, mark):
        if not mark:
            skip("empty file", name)
        find = functools.partial(file_reader.find, stream, mark, _begins(mark))
        start = find(file.start, file.stop) if file.start else 0
        if file.stop and start >= 0:
            stop = max(find(file.stop), 0)
        while start >= 0:
            if stream.seekable():
                stream.seek(start)
            at, same = start, -1
            try:
                for record in warc.ArchiveIterator(
                    _Until(stream, stop), record_types=_types(warc), parse_http=False
                ):
                    # Records behind the first of a member may all be at its end.
                    now = record.stream_pos
                    same = same + 1 if now == at else int(now == stop)
                    at, told = now, False
                    place = f"{name}@{at}" + (f"+{same}" if same else "")
                    id = (record.record_id or "").strip("<>") or place
                    headers = dict(record.headers)
                    refused = _no_page(warc, record, headers)
                    if not refused:
                        block = record.reader.read(2 * most + _HEADERS + 1)
                        refused, made = _content(warc, record, block, most)
                    if refused:
                        skip(refused, id)
                        continue
                    if headers.get("WARC-Truncated"):
                        skip("page cut short when it was archived, kept", id)
                    yield id, headers, *made
                return
            except (OSError, ValueError, EOFError):
                # What the error says may hold a part of a page.
                if not told:
                    skip("damaged: no whole record", f"{name}, after byte {at}")
                told = True
            if mark not in (_GZIP, _PLAIN) or not stream.seekable():
                return  # in which nothing is found behind what is damaged
            start = find(at + 1, stop)


@contextlib.contextmanager
def _stream(file: file_reader.File):
    """(bytes to read, what a record or member of them begins with, b"" for none)."""
    with file.path.open("rb") as raw:
        first = raw.peek(6)[:6]
        if first.startswith(_UNSEEKABLE):
            with file_reader.opened(file.path) as unpacked:
                yield unpacked, _PACKED
        elif first.startswith(_PACKED):
            yield bz2.BZ2File(raw), _PACKED
        elif first:
            yield raw, _GZIP if first[:2] == _GZIP[:2] else _PLAIN
        else:
            yield raw, b""


def _no_page(warc, record, headers) -> str:
    """Why a record is none that holds a page or a text, or ''."""
    if record.record_type == warc.WarcRecordType.revisit:
        return "not a page: a revisit, whose text is in another record"
    if record.record_type == warc.WarcRecordType.continuation or headers.get(
        "WARC-Segment-Number"
    ):
        return "not a page: a segment of one"
    scheme = _SCHEME.match(headers.get("WARC-Target-URI", "").strip("<>"))
    if scheme and scheme[1].lower() not in _SCHEMES:
        return f"not a page: {scheme[1].lower():.20}: and no address of the web"
    return ""


def _content(warc, record, block: bytes, most: int):
    """(why not, (type, charset, content)) of a record; `block` is what it holds."""
    if len(block) > 2 * most + _HEADERS:
        return f"larger than {most} bytes", ()
    if len(block) < record.content_length:
        return "cut off", ()
    kind, charset, content = record.headers.get("Content-Type", ""), "", block
    if record.is_http:
        http, content = _decoded(warc, block, most)
        if http is None:
            return "damaged: no HTTP response", ()
        kind, charset = http.http_content_type or "", http.http_charset or ""
    if len(content) > most:
        return f"larger than {most} bytes", ()
    if record.is_http:
        status = http.http_headers.status_code or 0
        if 300 <= status < 400:
            return "not a page: a redirect", ()
        if status != 200:
            return "not a page: another status than 200", ()
    kind = kind.partition(";")[0].strip().lower()
    if record.is_http and not kind:
        kind = _HTML[0] if _TAG.match(content) else ""
    return "", (kind, charset, content)


def _decoded(warc, block: bytes, most: int):
    """A response and its content; (None, b"") if it cannot be read.

    Archives may hold a content that is unpacked already under the headers of before.
    """
    block = _with_crlf(block)
    for encodings in ("all", "content", "transfer", "none"):
        http = warc.WarcRecord()
        http.is_http = True
        http.set_bytes_content(block)
        try:
            http.parse_http(auto_decode=encodings)
            content = http.reader.read(most + 1)
        except (OSError, ValueError):
            continue
        if encodings == "all" or not (b"\0" in content or _CHUNK.match(content)):
            return http, content
    return None, b""


def _with_crlf(block: bytes) -> bytes:
    """A response whose headers end in CRLF, as fastwarc reads them.

    Servers end lines in LF alone, and RFC 9112 (2.2) tells readers to take that.
    """
    end = _HEADERS_END.search(block)
    head = block[: end.end()] if end else b""
    if head.count(b"\n") == head.count(b"\r\n"):
        return block
    return _LINE_END.sub(b"\r\n", head) + block[len(head) :]


def _types(warc):
    types = warc.WarcRecordType
    read = types.response | types.conversion | types.resource
    return read | types.revisit | types.continuation


class _Until(io.RawIOBase):
    """A stream that ends before byte `stop`; at its own end if that is 0."""

    def __init__(self, stream, stop: int):
        self._stream, self._stop = stream, stop
        self._at = stream.tell() if stream.seekable() else 0

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is in the whole stream."""
        return self._at

    def readinto(self, buffer) -> int:
        """Fills a part of the buffer."""
        size = len(buffer)
        if self._stop:
            size = max(min(size, self._stop - self._at), 0)
        try:
            count = self._stream.readinto1(memoryview(buffer)[:size])
        except file_reader.Damaged as error:  # fastwarc knows no errors but of reading
            raise OSError(str(error)) from error
        self._at += count
        return count


def _begins(mark: bytes):
    """Whether bytes that begin with the mark are a record, or a member with one."""

    def begins(first: bytes) -> bool:
        if mark == _GZIP:
            try:
                first = zlib.decompressobj(31).decompress(first, 16)
            except zlib.error:
                return False
        return bool(_BEGINNING.match(first))

    return begins


def _document(
    id, headers, kind, charset, content, group, page, skip
) -> Document | None:
    meta = {"url": headers.get("WARC-Target-URI", "").strip("<>")}
    meta["timestamp"] = headers.get("WARC-Date", "")
    if kind in _HTML:
        made = page(content, charset)
        if "refused" in made:
            skip(f"not extracted: {made['refused']}", id)
            return None
        text = made.pop("text")
        meta |= made
    elif kind == "text/plain":
        text = extract_child.decoded(content, charset)
        if "\ufffd" in text and "\ufffd".encode() not in content:
            skip("not of its charset: letters are lost", id)
        said = headers.get("WARC-Identified-Content-Language", "")
        meta["language"] = languages.code(said.partition(",")[0])
    else:
        skip("neither HTML nor plain text", id)
        return None
    if not text.strip():
        skip("empty", id)
        return None
    text = record_fields.encodable(text)
    host = id
    if group == "host" and _url(meta):
        host = urllib.parse.urlsplit(meta["url"]).hostname
    meta = {name: found for name, found in meta.items() if found}
    return Document(id, text, "warc", host, "prose", len(text.encode()), meta)


def _url(meta) -> bool:
    try:
        return bool(urllib.parse.urlsplit(meta["url"]).hostname)
    except ValueError:  # such as brackets without an address
        return False


def _fastwarc():
    import fastwarc.warc

    return fastwarc.warc
