"""Records of named fields as documents: what JSON lines, CSV and Parquet share.

Which field holds what is told by name; a dot leads into a record, as `meta.url`. Only
the text must be there.

    {"text": "Hello.", "id": "a", "meta": {"url": "http://a.org/"}}
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from llm.corpus.file_reader import Skip
from llm.document import Document
from llm.text import languages

_SURROGATES = re.compile(r"[\ud800-\udfff]")


class Fields(NamedTuple):
    """The names of the fields; '' for none."""

    text: str
    id: str
    group: str
    url: str
    licence: str
    language: str
    timestamp: str


def document(
    record: Any,
    place: str,
    fields: Fields,
    source: str,
    kind: str,
    skip: Skip,
    file: str = "",
) -> Document | None:
    """The document of one record; None, and skipped, if it has no text.

    Args:
      place: where it stands, as `a.jsonl:3`: its id if it has none of its own.
      file: its file, if there are several: ids count rows within one file, so the name
        of the file becomes a part of them.
    """
    if not isinstance(record, dict):
        skip("not a record", place)
        return None
    text = value(record, fields.text)
    if not isinstance(text, str):
        skip(f"no text in the field {fields.text!r}", place)
        return None
    if not text.strip():
        skip("empty", place)
        return None
    text = encodable(text)
    own = _name(record, fields.id)
    id = (f"{file}#{own}" if file else own) if own else place
    meta = {}
    for name in ("url", "licence", "language", "timestamp"):
        found = _name(record, getattr(fields, name))
        if found:
            meta[name] = found
    if "language" in meta and kind == "prose":  # that of code is no human one
        meta["language"] = languages.code(meta["language"])
    if id != place:
        meta["place"] = place
    group = _name(record, fields.group) or id
    return Document(id, text, source, group, kind, len(text.encode()), meta)


def value(record: dict, name: str) -> Any:
    """The field of a record, by a name that may lead into records of it; or None."""
    if not name or name in record:
        return record.get(name) if name else None
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return value(inner, rest) if rest and isinstance(inner, dict) else None


def once(documents: Iterator[Document | None], most: int, skip: Skip):
    """The documents with an id that none before them has; at most so many, 0 for all.

    Of the ids a digest of eight bytes is kept, so that millions fit in memory.
    """
    seen, count = set(), 0
    for found in documents:
        if found is None:
            continue
        digest = hashlib.blake2b(found.id.encode(), digest_size=8).digest()
        if digest in seen:
            skip("id seen before", found.id)
            continue
        seen.add(digest)
        yield found
        count += 1
        if count == most:
            return


def encodable(text: str) -> str:
    """The text with U+FFFD for half characters (surrogates), which UTF-8 lacks."""
    return _SURROGATES.sub("\ufffd", text)


def _name(record: dict, field: str) -> str:
    found = value(record, field)
    return "" if found is None else encodable(str(found)).strip()
