"""Drops tables that a program wrote: character maps, entity lists, build variables.

They are text only in name, cost a model capacity, and fill held-out text with digits.
A line belongs to a table if nothing but literals (quoted strings, numbers, None, True,
False), punctuation and a comment stands on it; comment lines and blank lines do not
count, and a triple-quoted text is no literal. The score is the share of characters on
such lines, of which there must be 20 at least.

Measured on the standard library of Python 3.12: the character maps of `encodings`,
`html/entities.py` and the `sysconfig` variables score 0.89 to 1.00, and most of them
say that they were generated. Between 0.70 and 0.89 lie `_compat_pickle`, `stringprep`
and `locale` (tables and aliases) and the menus of idlelib; next comes
`html/__init__.py` with 0.59.
"""

import re

from llm.document import Document, Tag

TINY = {}

# How a table line starts. Most lines of code and prose fail here, which is fast.
_START = re.compile(
    r"[ \t\[\](){},:;+=-]*"
    r"(?:[rbuRBU]{0,2}(?:\"(?!\"\")|'(?!''))|\d|None\b|True\b|False\b)"
)
_ITEMS = re.compile(
    r"""[rbuRBU]{0,2}"[^"\\]*(?:\\.[^"\\]*)*"|[rbuRBU]{0,2}'[^'\\]*(?:\\.[^'\\]*)*'"""
    r"""|\b(?:\d[\w.]*|None|True|False)\b|[\s\[\](){},:;+-]+|\#.*"""
)
_MARK = re.compile(
    r"(?i)\bauto(?:matical)?(?:ly)?[ -]?generated|\bgenerated (?:from|by|and used)\b"
    r"|\bmachine[ -]generated|\bdo not edit\b"
)
_LINES = 20  # table lines that make a table
_HEAD = 2000  # characters in which a file says where it comes from


def make(*, share: float = 0.7, marked_share: float = 0.5) -> Tag:
    """Makes the stage.

    Args:
      share: drop a document with at least this share of characters on table lines.
      marked_share: the same for one whose first lines say that it was generated.
    """

    def decide(scores: dict[str, float]) -> str:
        if scores["table_share"] >= share:
            return f"table: at least {share:.0%} of its characters on lines of literals"
        if scores["says_generated"] and scores["table_share"] >= marked_share:
            return (
                f"table: says it is generated, and at least {marked_share:.0%} of its "
                "characters on lines of literals"
            )
        return ""

    return Tag(score, decide, reads=())


def score(document: Document) -> dict[str, float]:
    """`table_share` in 0..1, `says_generated` 0 or 1."""
    table = lines = whole = 0
    for line in document.text.split("\n"):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        whole += len(bare)
        if _START.match(bare) and not _ITEMS.sub("", bare):
            table += len(bare)
            lines += 1
    return {
        "table_share": table / whole if lines >= _LINES else 0.0,
        "says_generated": float(bool(_MARK.search(document.text[:_HEAD]))),
    }
