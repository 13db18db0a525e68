"""Articles of a Wikipedia dump: pages-articles.xml, plain or packed (.bz2, .gz).

    enwiki-20260101-pages-articles.xml.bz2                 of dumps.wikimedia.org
    enwiki-20260101-pages-articles1.xml-p1p41242.bz2       or a part of it

Pages are parsed one at a time. Redirects and pages of other namespaces (talk, users)
are left out and counted; the namespace of a page is what the dump says it is, since a
title may have a colon (`Alien: Covenant`). Of a dump with the history of pages, the
last revision is read. Wiki markup becomes plain text by rules of our own: templates,
tables, references and files go, links keep their words, headings stand alone, formulas
and code stay as they are written. Templates that show their words in a sentence, such
as {{lang}} and {{convert}}, leave these; what only another one says is lost with it. A
document is named by its page; meta has its title, URL and timestamp and the language
and licence of the project.

    --config=configs/quickstart.py:text=wikipedia:DUMP.xml.bz2
"""

import functools
import html
import pathlib
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from xml.parsers import expat

from llm.corpus import file_reader, record_fields
from llm.corpus.file_source import Files, each
from llm.document import NOTE, Document, Source
from llm.text import languages

TINY = {"path": str(pathlib.Path(__file__).with_suffix(".example.xml"))}

_NAME = re.compile(r"(?i)\.xml(?:-p\d+p\d+)?\Z")
_ARTICLES = "0"  # the key of their namespace
# Namespaces of which a link shows nothing where it stands: pictures and categories. A
# dump names them in its own language, too.
_HIDDEN_KEYS = ("-2", "6", "14")
_HIDDEN = frozenset({"media", "file", "image", "category"})
# Canonical names, which every wiki takes beside its own.
_SUBJECTS = (
    "user", "project", "wikipedia", "file", "mediawiki", "template", "help", "category",
    "portal", "draft", "module", "timedtext", "book", "gadget",
)  # fmt: skip
_NAMESPACES = (
    _HIDDEN
    | {"special", "talk", *_SUBJECTS}
    | {f"{subject}_talk" for subject in _SUBJECTS}
)
_INNER = {  # without another one inside; from within, until none is left
    "template": re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.S),
    "table": re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.S),
}
# Templates that show the first, or the last, of what they are given.
_FIRST = frozenset({
    "nowrap", "nobr", "small", "big", "em", "strong", "abbr", "nihongo", "sic", "code",
    "mono", "circa", "as of", "ill", "interlanguage link", "keypress", "key",
    "not a typo",
})  # fmt: skip
_LAST = frozenset({"lang", "transliteration", "transl", "langx", "color", "font color"})
_BAR = re.compile(r"\|(?![^\[\]]*\]\])")  # not one within a link
_NAMED = re.compile(r"\s*[A-Za-z][\w -]*=")  # an argument with a name
_COMMENT = re.compile(r"(?s)<!--.*?(?:-->|\Z)")
# Text that is no markup inside: kept as it is written.
_CODE = ("pre", "source", "syntaxhighlight")
_VERBATIM = (*_CODE, "nowiki", "math", "chem", "ce")
_ENTITIES_IN = ("nowiki", "pre")
_GONE = (
    "ref", "gallery", "timeline", "score", "graph", "mapframe", "maplink", "imagemap",
    "hiero", "templatedata", "templatestyles", "inputbox", "indicator",
)  # fmt: skip
_LONGEST_GONE = 20_000  # characters; more are behind a tag that is not closed
_OPENING = re.compile(rf"(?i)<({'|'.join(_VERBATIM + _GONE)})\b([^<>]{{0,500}})>")
_CLOSING = {
    tag: re.compile(rf"(?i)</{tag}\s*>") for tag in (*_VERBATIM, *_GONE)
}  # fmt: skip
# Other angle brackets are text: MediaWiki shows tags that it does not know.
_TAG = re.compile(
    r"(?i)</?(?:a|abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|data|dd|del|"
    r"dfn|div|dl|dt|em|font|h[1-6]|hr|i|includeonly|ins|kbd|li|mark|math|noinclude|nowiki|"
    r"ol|onlyinclude|p|poem|pre|q|rb|ref|references|rp|rt|rtc|ruby|s|samp|section|small|"
    r"source|span|strike|strong|sub|sup|syntaxhighlight|table|td|th|time|tr|tt|u|ul|var|"
    r"wbr|templatestyles|gallery|chem|ce|score|timeline|graph|mapframe|maplink|hiero)"
    r"(?:\s[^<>]*|/)?>"
)
# Where a page shows a new line, or a new cell.
_BREAK = re.compile(
    r"(?i)\A</?(?:br|hr|p|div|li|ol|ul|dl|dd|dt|tr|td|th|table|caption|center|blockquote|"
    r"poem|h[1-6])\b"
)
_LINK_PART = re.compile(r"\[\[|\]\]")
_PREFIX = re.compile(r"\s*([^:|\[\]]+?)\s*:")
_WEB = re.compile(r"\[(?:https?:)?//[^\s\]]+ ?([^\]]*)\]")
_HEADING = re.compile(r"(?m)^=+[ \t]*(.*?)[ \t]*=+[ \t]*$")
_BLANK = re.compile(r"\n{3,}")
_REDIRECT = re.compile(r"\s*#[^\W\d_]+\s*:?\s*\[\[[^\]\n]*\]\]")
_KEPT = re.compile(r"\0(\d+)\0")
_DEPTH = 40
_LANGUAGES = languages.CODES | {"simple"}


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

    def documents(file, name, skip):
        site, seen = _Site(), ""
        try:
            for kind, found in _pages(file):
                if kind == "base":
                    site.base = found
                elif kind == "namespace":
                    site.add(*found)
                else:
                    seen = f"{name}:{found['id']}"
                    reason = _no_article(found, site, max_page_bytes)
                    text = "" if reason else plain(found["text"], site.hidden)
                    if not text:
                        skip(reason or "empty", seen)
                        continue
                    if "{|" in found["text"]:
                        skip(f"{NOTE}the tables of a page are not read", seen)
                    yield _document(found, text, site, name, licence)
        except ElementTree.ParseError as error:
            # Its message may hold a part of a page.
            why = expat.ErrorString(error.code)
            skip(f"damaged: {why}", f"after {seen or name}")
        except file_reader.Damaged as error:
            skip(f"damaged: {error}", f"after {seen or name}")

    files = functools.partial(file_reader.files, path, "XML of Wikipedia", _wanted)
    return Files(files, each(documents), max_documents)


class _Site:
    """What the head of a dump says: its address, and the names of its namespaces."""

    def __init__(self):
        self.base, self.names, self.hidden = "", {}, _HIDDEN

    def add(self, key: str, name: str) -> None:
        """A namespace."""
        self.names[key] = name
        if key in _HIDDEN_KEYS and name:
            self.hidden = self.hidden | {_folded(name)}


def _wanted(name: str) -> bool:
    """Whether a file is one of a dump, such as `…-articles1.xml-p1p41242.bz2`."""
    for compression in file_reader.COMPRESSED:
        if name.lower().endswith(compression):
            stem = name[: len(name) - len(compression)]
            if _NAME.search(stem):
                return True
    return False


def _no_article(page, site: _Site, most: int) -> str:
    """Why a page is left out, or ''."""
    key = page["ns"].strip()
    if not key:  # as in dumps before export-0.5
        prefix = _PREFIX.match(page["title"])
        known = _NAMESPACES | {_folded(name) for name in site.names.values() if name}
        key = _folded(prefix[1]) if prefix and _folded(prefix[1]) in known else "0"
    if key != _ARTICLES:
        return f"not an article: namespace {site.names.get(key) or key:.40}"
    if "redirect" in page or _REDIRECT.match(page["text"]):
        return "not an article: a redirect"
    if len(page["text"]) > most:
        return f"larger than {most} bytes"
    return ""


def _document(page, text: str, site: _Site, name: str, licence: str) -> Document:
    title = page["title"]
    text = record_fields.encodable(f"{title}\n\n{text}\n")
    host = urllib.parse.urlsplit(site.base).hostname or ""
    address = urllib.parse.quote(title.replace(" ", "_"))
    meta = {
        "title": title,
        # As a path, or `Alien: Covenant` would be taken for an address of its own.
        "url": urllib.parse.urljoin(site.base, f"./{address}") if site.base else "",
        "timestamp": page["timestamp"],
        "language": host.partition(".")[0] if "." in host else "",
        "licence": licence,
    }
    return Document(
        f"{host or name}/{page['id']}", text, "wikipedia", title, "prose",
        len(text.encode()), {key: value for key, value in meta.items() if value},
    )  # fmt: skip


def plain(markup: str, hidden: Collection[str] = _HIDDEN) -> str:
    """Wiki markup as plain text.

    Args:
      hidden: namespaces, in lower case, of which a link shows nothing.

    >>> plain("'''Tides''' {{x|{{y}}}}are [[sea level|levels]].<ref>A.</ref>")
    'Tides are levels.'
    """
    text, kept = _set_aside(_COMMENT.sub("", markup.replace("\0", "")))
    for pattern in _INNER.values():
        for _ in range(_DEPTH):
            text, count = pattern.subn(_shown, text)
            if not count:
                break
    text = _linked(_WEB.sub(r"\1", text), hidden)
    text = _HEADING.sub(r"\n\1\n", _TAG.sub(_space, text))
    text = html.unescape(re.sub(r"'{2,}|__[A-Z]+__", "", text))
    lines = [re.sub(r"^[*#:;]+\s*", "- ", line).rstrip() for line in text.split("\n")]
    text = _BLANK.sub("\n\n", "\n".join(lines)).strip("\n")
    return _KEPT.sub(lambda match: kept[int(match[1])], text).strip()


def _shown(inner: re.Match) -> str:
    """What a template shows in its sentence; nothing of a table or of another one."""
    name, *parts = _BAR.split(inner[0][2:-2])
    name, _, argument = name.partition(":")
    name = name.strip().lower().replace("_", " ")
    given = [part.strip() for part in parts if not _NAMED.match(part)]
    if name == "formatnum":
        return argument.strip()
    if not (given and given[0]) or not inner[0].startswith("{{"):
        return ""
    if name in _FIRST:
        return given[0]
    if name in _LAST:
        return given[-1]
    if name in ("convert", "cvt"):
        # A range: 10|to|20|m.
        count = 3 if len(given) > 3 and not given[1][:1].isdigit() else 1
        count = count if given[count - 1][:1].isdigit() else 1
        return " ".join(given[: count + 1])
    if name == "val":
        unit = next((p.partition("=")[2] for p in parts if p.strip()[:2] == "u="), "")
        return f"{given[0]} {unit.strip()}".strip()
    if name in ("frac", "fraction", "sfrac"):
        whole = f"{given[0]} " if len(given) > 2 else ""
        return whole + "/".join(["1", *given][-2:])
    return ""


def _set_aside(text: str) -> tuple[str, list[str]]:
    """The text without elements that are no markup, and those of them that come back.

    `\0n\0` stands for the n-th. One pass, so that tags without an end cost no more.
    """
    parts, kept, at, ends = [], [], 0, {}
    for opening in _OPENING.finditer(text):
        if opening.start() < at:
            continue
        tag = opening[1].lower()
        closed = opening[2].endswith("/")
        end = None if closed else _end(text, tag, opening.end(), ends)
        gone = tag in _GONE
        if not closed and (
            end is None or (gone and end.start() - opening.end() > _LONGEST_GONE)
        ):
            continue
        parts.append(text[at : opening.start()])
        at = opening.end() if closed else end.end()
        if closed or gone:
            continue
        inner = text[opening.end() : end.start()]
        inner = html.unescape(inner) if tag in _ENTITIES_IN else inner
        block = tag in _CODE and "inline" not in opening[2]
        parts.append(f"\n\0{len(kept)}\0\n" if block else f"\0{len(kept)}\0")
        kept.append(inner.strip("\n") if block else inner)
    return "".join([*parts, text[at:]]), kept


def _end(text: str, tag: str, start: int, ends: dict[str, re.Match | None]):
    """The next closing tag; those that were seen are in `ends`."""
    if tag not in ends or (ends[tag] and ends[tag].start() < start):
        ends[tag] = _CLOSING[tag].search(text, start)
    return ends[tag]


def _space(tag: re.Match) -> str:
    return "\n" if _BREAK.match(tag[0]) else ""


def _linked(text: str, hidden: Collection[str]) -> str:
    """The text with the words of links in their place, from the inside out."""
    open_, at = [[]], 0
    for mark in _LINK_PART.finditer(text):
        open_[-1].append(text[at : mark.start()])
        at = mark.end()
        if mark[0] == "[[":
            open_.append([])
        elif len(open_) > 1:
            inner = "".join(open_.pop())
            open_[-1].append(_words(inner, hidden))
        else:
            open_[-1].append(mark[0])
    open_[-1].append(text[at:])
    return "[[".join("".join(part) for part in open_)


def _words(link: str, hidden: Collection[str]) -> str:
    """What a link shows."""
    target, bar, rest = link.partition("|")
    prefix = _PREFIX.match(target)
    if prefix and _folded(prefix[1]) in hidden:
        return ""
    if not bar and prefix:
        name = prefix[1]
        if _folded(name) in _NAMESPACES:
            return ""
        # The same article in another language, which the page does not show.
        if name in _LANGUAGES and not target.startswith(":"):
            return ""
    return rest.rpartition("|")[2] or target.strip().lstrip(":")


def _folded(name: str) -> str:
    return name.strip().replace(" ", "_").casefold()


def _pages(file: pathlib.Path):
    """("base", URL), ("namespace", (key, name)), then ("page", fields) of each page."""
    with file_reader.opened(file) as stream:
        events = ElementTree.iterparse(stream, events=("start", "end"))
        _, root = next(events)
        for event, element in events:
            tag = element.tag.rpartition("}")[2]
            if event == "end" and tag == "base":
                yield "base", element.text or ""
            elif event == "end" and tag == "namespace":
                yield "namespace", (element.get("key", ""), element.text or "")
            elif event == "end" and tag == "page":
                yield "page", _fields(element)
                root.clear()


def _fields(page: ElementTree.Element) -> dict[str, str]:
    """The fields of a page and of its last revision."""
    fields = dict.fromkeys(("id", "title", "ns", "text", "timestamp"), "")
    for part in page:
        name = part.tag.rpartition("}")[2]
        if name == "revision":
            for inner in part:
                inner_name = inner.tag.rpartition("}")[2]
                if inner_name in ("text", "timestamp"):
                    fields[inner_name] = inner.text or ""
        elif name in fields or name == "redirect":
            fields[name] = part.text or ""
    return fields
