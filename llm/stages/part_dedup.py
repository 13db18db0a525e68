"""Removes paragraphs, or lines, that stood in an earlier place of the corpus.

Menus, notices, licences and quotations come back in texts that are otherwise their own.
The first place, in document order, keeps the part; of the others a document keeps the
rest, and is dropped if nothing is left. Parts are compared by a 128-bit hash of their
characters, with any white space as one space, as in CCNet and Dolma (Wenzek et al.
2020; Soldaini et al. 2024). Short ones (headings, closing brackets) are left alone. For
code, `unit='line'` would take away what every program has; it is meant for prose.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from llm.document import Document, Group
from llm.errors import InputError
from llm.text import hashing

TINY = {"least_characters": 10}

_UNITS = {"paragraph": re.compile(r"(\n\s*\n)"), "line": re.compile(r"(\n)")}


def make(*, unit: str = "paragraph", least_characters: int = 60) -> Group:
    """Makes the stage.

    Args:
      unit: paragraph, between blank lines; or line.
      least_characters: of a part that is compared.
    """
    if unit not in _UNITS:
        raise InputError(
            got=f"data.stage.part_dedup.unit {unit!r}", want=" or ".join(_UNITS)
        )
    reason = f"{unit} of an earlier place"

    def places(pieces: list[str]) -> list[int]:
        return [n for n in range(0, len(pieces), 2) if long_enough(pieces[n])]

    def long_enough(piece: str) -> bool:
        return len(piece.strip()) >= least_characters

    def rows(document: Document) -> np.ndarray:
        pieces = _UNITS[unit].split(document.text)
        return hashing.rows(" ".join(pieces[n].split()) for n in places(pieces))

    def cut(document: Document, parts: Sequence[int]) -> Document | None:
        # Pieces and what stands between them, by turns.
        pieces = _UNITS[unit].split(document.text)
        compared = places(pieces)
        gone = {compared[part] for part in parts}
        kept = [
            "".join(pieces[n : n + 2])
            for n in range(0, len(pieces), 2)
            if n not in gone
        ]
        text = "".join(kept).strip("\n")
        if not text.strip():
            return None
        return dataclasses.replace(document, text=text + "\n")

    return Group(
        hashing.SIZE, rows, hashing.keys, lambda rows: hashing.same(rows, reason), cut
    )
