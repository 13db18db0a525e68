"""Articles of a Wikipedia dump: pages-articles.xml, plain or packed (.bz2, .gz).

    enwiki-20260101-pages-articles.xml.bz2      of dumps.wikimedia.org

Pages are parsed one at a time; redirects and other name spaces (talk, users) are left
out. Wiki markup becomes plain text by rules of our own: templates, tables, references
and files go, links keep their words, headings stand alone. What only a template says is
lost with it. A document is named by its page; meta has its title, URL and timestamp and
the language and licence of the project.

    --config=configs/quickstart.py:text=wikipedia:DUMP.xml.bz2
"""

import html
import pathlib
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from xml.parsers import expat

from llm import columns, reading
from llm.document import Document, Source
from llm.source_files import Files

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.xml"))}

_WANTED = reading.ending(".xml")
_INNER = {  # without another one inside; from within, until none is left
    "template": re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.S),
    "table": re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.S),
}
_GONE = re.compile(
    r"(?is)<!--.*?-->|<ref\b[^>]*/>|<(ref|math|gallery|timeline|score)\b[^>]*>.{0,20000}?</\1>"
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_MEDIA = re.compile(r"(?i)^[^\W\d_]+:")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_WEB = re.compile(r"\[(?:https?:)?//[^\s\]]+ ?([^\]]*)\]")
_HEADING = re.compile(r"(?m)^=+\s*(.*?)\s*=+\s*$")
_BLANK = re.compile(r"\n{3,}")
_DEPTH = 40


def make(
    *,
    path: str = "",
    licence: str = "CC-BY-SA-4.0",
    max_page_bytes: int = 4 * 2**20,
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a dump, or a folder of them.
      licence: what the project's texts are under.
      max_page_bytes: a larger page is left out.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such file, or a folder without any.
    """

    def files(skip: reading.Skip) -> Iterator[reading.File]:
        return reading.files(path, "XML of Wikipedia", _WANTED, skip)

    def read(
        files: Iterable[reading.File], skip: reading.Skip
    ) -> Iterator[Document | None]:
        for file, name, *_ in files:
            site, seen = "", ""
            try:
                for kind, found in _pages(file):
                    if kind == "base":
                        site = found
                        continue
                    seen, title = f"{name}:{found['id']}", found["title"]
                    if found["ns"] != "0" or "redirect" in found:
                        continue
                    if len(found["text"]) > max_page_bytes:
                        skip(f"larger than {max_page_bytes} bytes", seen)
                        continue
                    text = plain(found["text"])
                    if not text:
                        skip("empty", seen)
                        continue
                    text = columns.encodable(f"{title}\n\n{text}\n")
                    host = urllib.parse.urlsplit(site).hostname or ""
                    address = urllib.parse.quote(title.replace(" ", "_"))
                    meta = {
                        "title": title,
                        "url": urllib.parse.urljoin(site, address) if site else "",
                        "timestamp": found["timestamp"],
                        "language": host.partition(".")[0] if "." in host else "",
                        "licence": licence,
                    }
                    yield Document(
                        f"{host or name}/{found['id']}", text, "wikipedia", title,
                        "prose", len(text.encode()),
                        {key: value for key, value in meta.items() if value},
                    )  # fmt: skip
            except ElementTree.ParseError as error:
                # Its message may hold a part of a page.
                why = expat.ErrorString(error.code)
                skip(f"damaged: {why}", f"after {seen or name}")
            except reading.Damaged as error:
                skip(f"damaged: {error}", f"after {seen or name}")

    return Files(files, read, max_documents)


def plain(markup: str) -> str:
    """Wiki markup as plain text.

    >>> plain("'''Tides''' {{x|{{y}}}}are [[sea level|levels]].<ref>A.</ref>")
    'Tides are levels.'
    """
    text = _GONE.sub("", markup)
    for pattern in _INNER.values():
        for _ in range(_DEPTH):
            text, count = pattern.subn("", text)
            if not count:
                break
    for _ in range(3):  # pictures hold links in their captions
        text = _LINK.sub(_words, text)
    text = _WEB.sub(r"\1", text)
    text = _HEADING.sub(r"\n\1\n", _TAG.sub("", text))
    text = html.unescape(re.sub(r"'{2,}|__[A-Z]+__", "", text))
    lines = [re.sub(r"^[*#:;]+\s*", "- ", line).rstrip() for line in text.split("\n")]
    return _BLANK.sub("\n\n", "\n".join(lines)).strip()


def _words(link: re.Match) -> str:
    target, _, rest = link[1].partition("|")
    if _MEDIA.match(target):
        return ""
    return rest.rpartition("|")[2] or target.lstrip(":")


def _pages(file: pathlib.Path):
    """("base", URL of the project), then ("page", its fields) for each page."""
    with reading.opened(file) as stream:
        events = ElementTree.iterparse(stream, events=("start", "end"))
        _, root = next(events)
        for event, element in events:
            tag = element.tag.rpartition("}")[2]
            if event == "end" and tag == "base":
                yield "base", element.text or ""
            elif event == "end" and tag == "page":
                fields = dict.fromkeys(("id", "title", "ns", "text", "timestamp"), "")
                for part in reversed(list(element.iter())):  # the page's id comes first
                    name = part.tag.rpartition("}")[2]
                    if name in fields or name == "redirect":
                        fields[name] = part.text or ""
                yield "page", fields
                root.clear()
