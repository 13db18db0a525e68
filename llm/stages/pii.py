"""Personal data and secrets: e-mail, telephone, IP, card, account and identity numbers.

`policy` says what becomes of a document in which some are found:

    redact  each is replaced by its kind, [EMAIL]; how many there were stands in `meta`
    count   they stay where they are, and are counted there
    drop    the document is dropped, if there are more than `most`

`llm/text/personal_data.py` says how they are found, and what is not found: names above
all.
"""

import dataclasses
from collections import Counter
from typing import Literal

from llm.document import Document, Map, Tag
from llm.errors import InputError
from llm.knobs import Count
from llm.text import personal_data

TINY = {}
POLICIES = ("redact", "drop", "count")


def make(
    *,
    policy: Literal[POLICIES] = "redact",
    kinds: tuple[str, ...] = personal_data.KINDS,
    public_only: bool = True,
    most: Count = 0,
) -> Map | Tag:
    """Makes the stage.

    Args:
      policy: one of the above.
      kinds: what to look for.
      public_only: IP addresses that the internet routes; those of one's own are left.
      most: so many of them do not drop a document yet.

    Raises:
      InputError: no such policy or kind.
    """
    unknown = [kind for kind in kinds if kind not in personal_data.KINDS]
    if unknown or not kinds:
        raise InputError(
            got=f"data.stage.pii.kinds {', '.join(unknown) or 'of nothing'}",
            want=f"some of {', '.join(personal_data.KINDS)}",
        )

    def apply(document: Document) -> list[Document]:
        found = personal_data.find(document.text, kinds, public_only=public_only)
        if not found:
            return [document]
        meta = document.meta | {"pii": dict(Counter(entry.kind for entry in found))}
        text = document.text
        if policy == "redact":
            text = personal_data.redacted(text, found)
        return [dataclasses.replace(document, text=text, meta=meta)]

    def score(document: Document) -> dict[str, float]:
        found = personal_data.find(document.text, kinds, public_only=public_only)
        counts = Counter(entry.kind for entry in found)
        return {kind: float(counts[kind]) for kind in kinds}

    def decide(scores: dict[str, float]) -> str:
        if sum(scores.values()) <= most:
            return ""
        main = max(scores, key=scores.__getitem__)
        return f"personal data or secrets, more than {most}: {main} above all"

    reads = ("kinds", "public_only")
    return Tag(score, decide, reads) if policy == "drop" else Map(apply)
