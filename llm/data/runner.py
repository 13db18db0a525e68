"""Runs stages over documents, in order, and counts what each of them did.

The whole corpus is held in memory, which does up to a few GB; a larger one takes the
same stages elsewhere, since `Map`, `Tag` and `Group` are pure functions and this file
is all that knows how they are executed here.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from llm.document import Document, Group, Map, Match, Stage, Tag
from llm.errors import InputError

_EXAMPLES = 3  # ids shown for each reason of a drop


class Result(NamedTuple):
    """What is left.

    Attributes:
      documents: the survivors, in order.
      links: pairs of document ids that must end on one side of a split. An id may be
        of a dropped document that stands between two survivors.
      counts: one entry a stage: name, documents_in, documents_out, bytes_in, bytes_out
        (UTF-8 bytes of the text), dropped {reason: {documents, bytes, examples}}.
    """

    documents: list[Document]
    links: list[tuple[str, str]]
    counts: list[dict[str, Any]]


def run(stages: Sequence[tuple[str, Stage]], documents: Iterable[Document]) -> Result:
    """Runs the (name, stage) pairs one after the other.

    Raises:
      InputError: two documents with the same id.
    """
    documents, links, counts = list(documents), [], []
    _check_ids(documents)
    for name, stage in stages:
        if isinstance(stage, Map):
            kept, reasons = _map(stage, documents)
            _check_ids(kept)
        elif isinstance(stage, Tag):
            kept, reasons = _tag(stage, documents)
        else:
            kept, reasons, linked = _group(stage, documents)
            links += linked
        counts.append(_count(name, documents, kept, reasons))
        documents = kept
    return Result(documents, links, counts)


def text_bytes(documents: Iterable[Document]) -> int:
    """UTF-8 bytes of the texts."""
    return sum(_bytes(document) for document in documents)


def _map(stage: Map, documents: list[Document]):
    kept, reasons = [], {}
    for document in documents:
        made = stage.apply(document)
        if not made:
            reasons[document.id] = "no text left"
        kept += made
    return kept, reasons


def _tag(stage: Tag, documents: list[Document]):
    decisions = {d.id: stage.decide(stage.score(d)) for d in documents}
    reasons = {id: reason for id, reason in decisions.items() if reason}
    return [d for d in documents if d.id not in reasons], reasons


def _group(stage: Group, documents: list[Document]):
    buckets = collections.defaultdict(list)
    for document in documents:
        for key, value in stage.key(document):
            buckets[key].append(value)
    matches: list[Match] = []
    for key, values in buckets.items():
        if len(values) > 1:
            matches += stage.reduce(key, values)
    reasons = {match.id: match.reason for match in matches if match.reason}
    links = sorted({(match.of, match.id) for match in matches})
    return [d for d in documents if d.id not in reasons], reasons, links


def _count(name: str, before, after, reasons: dict[str, str]) -> dict[str, Any]:
    dropped = {}
    for document in before:
        if document.id in reasons:
            nothing = {"documents": 0, "bytes": 0, "examples": []}
            entry = dropped.setdefault(reasons[document.id], nothing)
            entry["documents"] += 1
            entry["bytes"] += _bytes(document)
            if len(entry["examples"]) < _EXAMPLES:
                entry["examples"].append(document.id)
    return {
        "name": name,
        "documents_in": len(before),
        "documents_out": len(after),
        "bytes_in": text_bytes(before),
        "bytes_out": text_bytes(after),
        "dropped": dropped,
    }


def _bytes(document: Document) -> int:
    return len(document.text.encode("utf-8", errors="surrogatepass"))


def _check_ids(documents: list[Document]) -> None:
    seen = collections.Counter(document.id for document in documents)
    twice = next((id for id, count in seen.items() if count > 1), None)
    if twice is not None:
        raise InputError(
            got=f"{seen[twice]} documents with the id {twice!r}", want="one of each id"
        )
