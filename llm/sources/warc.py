"""Pages of web archives: WARC and WET, plain or compressed; the form of Common Crawl.

Records are read one at a time by fastwarc. The main text of an HTML response is taken
out in a process of its own (`llm/extract.py`); plain text, and the texts of a WET, are
taken as they are. A document is named by its record, its group is the host, and meta
has url, timestamp and, where the page says so, language and licence. What is damaged is
left out and counted: behind a broken member, reading goes on at the next whole one.

    --config=configs/quickstart.py:text=warc:crawl/
"""

import pathlib
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator

from llm import columns, extract, languages, reading
from llm.document import Document, Source
from llm.errors import InputError
from llm.source_files import Files

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.warc"))}
NEEDS = ("fastwarc", "resiliparse")

_WANTED = reading.ending(".warc", ".wet")
_GZIP = b"\x1f\x8b\x08"
_GROUPS = ("host", "page")
_HTML = ("text/html", "application/xhtml+xml")


def make(
    *,
    path: str = "",
    extractor: str = "resiliparse",
    seconds: float = 10.0,
    max_page_bytes: int = 8 * 2**20,
    group: str = "host",
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a file, or a folder of them.
      extractor: resiliparse (fast) or trafilatura (drops more around the article).
      seconds: a page that takes longer is left out.
      max_page_bytes: so is a larger one.
      group: what a split may not cut: host, or page, where there are few hosts.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, no such extractor, or a package that is missing.
    """
    if group not in _GROUPS:
        raise InputError(got=f"group {group!r}", want=" or ".join(_GROUPS))
    if extractor not in extract.EXTRACTORS:
        raise InputError(
            got=f"extractor {extractor!r}", want=" or ".join(extract.EXTRACTORS)
        )

    def files(skip: reading.Skip) -> Iterator[reading.File]:
        return reading.files(path, "WARC or WET", _WANTED, skip)

    def read(
        files: Iterable[reading.File], skip: reading.Skip
    ) -> Iterator[Document | None]:
        warc = reading.package("fastwarc", "fastwarc", _fastwarc)
        with extract.pages(extractor, seconds) as page:
            for file in files:
                for record in _records(warc, file, max_page_bytes, skip):
                    yield _document(*record, group, page, skip)

    return Files(files, read, max_documents, _compressed)


def _compressed(file: reading.File) -> bool:
    """Whether each record is a member of its own, which can be found from anywhere."""
    with file.path.open("rb") as stream:
        return stream.read(2) == _GZIP[:2]


def _records(warc, file: reading.File, most: int, skip: reading.Skip):
    """(id, headers, type, charset, content) of responses and texts, past damage."""
    types = warc.WarcRecordType
    types = types.response | types.conversion | types.resource
    name, start, told = file.name, file.start, False
    with file.path.open("rb") as stream:
        mark = _GZIP if stream.peek(2)[:2] == _GZIP[:2] else b"WARC/1."
        if start:
            start = _find(stream, mark, start)
        while start >= 0:
            stream.seek(start)
            at = start
            try:
                for record in warc.ArchiveIterator(
                    stream, record_types=types, auto_decode="all"
                ):
                    at, told = record.stream_pos, False
                    if file.stop and at >= file.stop:
                        return
                    id = (record.record_id or "").strip("<>") or f"{name}@{at}"
                    content = record.reader.read(most + 1)
                    if len(content) > most:
                        skip(f"larger than {most} bytes", id)
                        continue
                    http = record.http_headers
                    encoded = http and (
                        http.get("Content-Encoding") or http.get("Transfer-Encoding")
                    )
                    if len(content) < record.content_length and not encoded:
                        skip("cut off", id)
                        continue
                    if http and record.http_headers.status_code != 200:
                        skip("not a page: another status than 200", id)
                        continue
                    kind = record.http_content_type or ""
                    charset = record.http_charset or ""
                    if not http:
                        kind = record.headers.get("Content-Type", "").lower()
                        kind = kind.partition(";")[0].strip()
                    yield id, dict(record.headers), kind.lower(), charset, content
                return
            except (OSError, ValueError) as error:
                if not told:
                    skip(f"damaged: {error}", f"{name}, after byte {at}")
                told = True
            start = _find(stream, mark, at + 1)
            if file.stop and start >= file.stop:
                return


def _find(stream, mark: bytes, start: int) -> int:
    """Where a record next begins in the stream, from `start` on; -1 if nowhere."""
    stream.seek(start)
    kept = b""
    while part := stream.read(2**20):
        place, whole = -1, kept + part
        while (place := whole.find(mark, place + 1)) >= 0:
            at = start - len(kept) + place
            if mark != _GZIP or _begins(stream, at, start + len(part)):
                return at
        start += len(part)
        kept = whole[-len(mark) + 1 :]
    return -1


def _begins(stream, at: int, back: int) -> bool:
    """Whether a record begins there, and not just three bytes that look like one."""
    stream.seek(at)
    try:
        found = zlib.decompressobj(31).decompress(stream.read(512), 8)
    except zlib.error:
        found = b""
    stream.seek(back)
    return found.startswith(b"WARC/1.")


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
        text = content.decode("utf-8", "replace")
        said = headers.get("WARC-Identified-Content-Language", "")
        meta["language"] = languages.code(said.partition(",")[0])
    else:
        skip("neither HTML nor plain text", id)
        return None
    if not text.strip():
        skip("empty", id)
        return None
    text = columns.encodable(text)
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
