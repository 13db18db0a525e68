"""Keeps code under the licences of a list, by what its head says.

Looked for: what the source says (`licence` or `license` in `meta`, an SPDX identifier),
`SPDX-License-Identifier:` lines, and the wording of the licences that are common in
heads of files. Where several stand in one file, all must be allowed; of `A OR B` one
must be, of `A AND B` both. The default list has the permissive ones, that ask for no
more than attribution. A file that names no licence may still have one, in a file beside
it: that is for the source to say.
"""

import re

from llm.document import Document, Tag

TINY = {"unknown": True}

PERMISSIVE = (
    "0BSD", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "NCSA", "PSF-2.0", "Python-2.0", "PostgreSQL",
    "Unlicense", "WTFPL", "X11", "Zlib",
)  # fmt: skip

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r*]+)")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*|[()]")
# Comment signs and line ends within a sentence become one space.
_SIGNS = re.compile(r"[\s#*/;%!\"']+|(?<=\s)(?:--+|\.\.|rem\b|dnl\b)\s")
_MAY_NAME_ONE = re.compile(r"(?i)licen[cs]e|permission|redistribution|public domain")
_GNU = re.compile(
    r"gnu (?P<which>lesser |library |affero )?general public licen[cs]e"
    r"(?P<rest>.{0,200})"
)
_VERSION = re.compile(r"(?:version|v\.?) ?(\d(?:\.\d)?)|\b[al]?gpl-?v?(\d)")
_LATER = re.compile(r"(?:or (?:\(?at your option\)? )?any later|or later|or newer)")
_BSD = "redistribution and use in source and binary forms"
_WORDINGS = (
    ("Apache-2.0", r"apache licen[cs]e,? (?:\(the license\),? )?version 2\.0"
                   r"|licensed under the apache licen[cs]e"
                   r"|apache\.org licenses license-2"),
    ("MIT", r"permission is hereby granted, free of charge, to any person obtaining a"
            r" copy of this software and associated documentation"
            r"|(?:under|released under|licensed under) (?:the )?(?:terms of the )?mit"
            r" licen[cs]e|licen[cs]e: mit\b"),
    ("ISC", r"permission to use, copy, modify, and or distribute this software for any"
            r" purpose with or without fee is hereby granted, provided"),
    ("MPL-2.0", r"mozilla public licen[cs]e,? (?:v\.? ?|version )2\.0"),
    ("EPL-2.0", r"eclipse public licen[cs]e,? (?:- )?v(?:ersion)? ?2\.0"),
    ("BSL-1.0", r"boost software licen[cs]e,? (?:- )?version 1\.0"),
    ("Unlicense", r"this is free and unencumbered software released into the public"),
    ("CC0-1.0", r"cc0 1\.0 universal|creativecommons\.org publicdomain zero"),
    ("Zlib", r"this software is provided as-is, without any express or implied"
             r" warranty\. in no event will the authors"),
    ("PSF-2.0", r"licensed to (?:the )?psf under a contributor agreement"
                r"|python software foundation licen[cs]e"),
    ("LicenseRef-Proprietary", r"all rights reserved\.? (?:unauthorized|confidential|"
     r"proprietary)|proprietary and confidential"),
)  # fmt: skip
_WORDINGS = tuple((name, re.compile(pattern)) for name, pattern in _WORDINGS)


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
    tagged = [_trimmed(line) for line in _SPDX.findall(head)]
    return dict.fromkeys([t for t in tagged if t] or named(head), 1.0)


def named(head: str) -> list[str]:
    """The licences, as SPDX identifiers, whose wording the head of a file has."""
    if not _MAY_NAME_ONE.search(head):
        return []
    # Twice: one that stood before signs may have become one after a space.
    text = _SIGNS.sub(" ", _SIGNS.sub(" ", head)).lower()
    found = [name for name, wording in _WORDINGS if wording.search(text)]
    if _BSD in text:
        third = "neither the name" in text or "may not be used to endorse" in text
        fourth = "all advertising materials mentioning" in text
        found.append(f"BSD-{4 if fourth else 3 if third else 2}-Clause")
    return found + sorted({_gnu(match) for match in _GNU.finditer(text)} - {""})


def _gnu(match: re.Match) -> str:
    """`GPL-2.0-or-later` and its kin; '' where the text only speaks of one."""
    version = _VERSION.search(match["rest"])
    if not version:
        return ""
    letters = {"lesser ": "LGPL", "library ": "LGPL", "affero ": "AGPL"}
    number = version[1] or version[2]
    number = number if "." in number else f"{number}.0"
    later = "or-later" if _LATER.search(match["rest"]) else "only"
    return f"{letters.get(match['which'], 'GPL')}-{number}-{later}"


def _trimmed(line: str) -> str:
    """The expression at the beginning of what follows an SPDX tag."""
    found, before = [], ""
    for part in _IDENTIFIER.findall(line):
        joins = part in ("OR", "AND", "WITH", ")")
        if found and not joins and before not in ("OR", "AND", "WITH", "("):
            break
        found.append(part)
        before = part
    return " ".join(found).replace("( ", "(").replace(" )", ")")


def _holds(expression: str, allowed: set[str]) -> bool:
    """Whether one may use what is under an SPDX expression, these licences allowed."""
    parts = _IDENTIFIER.findall(expression)

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
