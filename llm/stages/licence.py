"""Keeps code under the licences of a list, by what its head says.

Looked for: what the source says (`licence` or `license` in `meta`, an SPDX identifier),
`SPDX-License-Identifier:` lines, and wordings, as `llm/text/licences.py` knows them.
Where several stand in one file, all must be allowed; of `A OR B` one must be, of
`A AND B` both. The default list has the permissive ones, that ask for no more than
attribution. A file that names no licence may still have one, in a file beside it: that
is for the source to say.
"""

from llm.document import Document, Tag
from llm.text import licences

TINY = {"unknown": True}

PERMISSIVE = (
    "0BSD", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "NCSA", "PSF-2.0", "Python-2.0", "PostgreSQL",
    "Unlicense", "WTFPL", "X11", "Zlib",
)  # fmt: skip


def make(
    *,
    allow: tuple[str, ...] = PERMISSIVE,
    unknown: bool = False,
    characters: int = 8000,
) -> Tag:
    """Makes the stage.

    Args:
      allow: SPDX identifiers, in any case; `GPL-2.0-or-later` is one of its own.
      unknown: keeps documents that name no licence.
      characters: so many of a text, from its beginning, are looked at.
    """
    allowed = {name.casefold() for name in allow}

    def decide(scores: dict[str, float]) -> str:
        if not scores:
            return "" if unknown else "no licence named"
        refused = [name for name in scores if not _holds(name, allowed)]
        return f"licence {refused[0]}" if refused else ""

    return Tag(
        lambda document: score(document, characters), decide, reads=("characters",)
    )


def score(document: Document, characters: int = 8000) -> dict[str, float]:
    """1 for each licence, an SPDX expression, that a document names."""
    said = document.meta.get("licence") or document.meta.get("license")
    if said:
        return dict.fromkeys([said] if isinstance(said, str) else said, 1.0)
    head = document.text[:characters]
    return dict.fromkeys(licences.stated(head) or licences.named(head), 1.0)


def _holds(expression: str, allowed: set[str]) -> bool:
    """Whether one may use what is under an SPDX expression, these licences allowed."""
    parts = licences.parts(expression)

    def either() -> bool:
        held = both()
        while parts and parts[0].upper() == "OR":
            parts.pop(0)
            held = both() or held
        return held

    def both() -> bool:
        held = one()
        while parts and parts[0].upper() == "AND":
            parts.pop(0)
            held = one() and held
        return held

    def one() -> bool:
        if not parts:
            return False
        name = parts.pop(0)
        if name == "(":
            held = either()
            if parts:
                parts.pop(0)
            return held
        if parts and parts[0].upper() == "WITH":  # an exception only permits more
            del parts[:2]
        return name.casefold() in allowed

    held = either()
    return held and not parts
