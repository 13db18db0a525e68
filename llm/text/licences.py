"""Which licence a text says it is under: by an SPDX line, or by the wording it has.

    stated("# SPDX-License-Identifier: MIT OR ISC")     ["MIT OR ISC"]
    named("// Licensed under the Apache License, …")    ["Apache-2.0"]
    of_file(whole text of a file LICENSE)               "GPL-3.0"

The wordings are those that are common in heads of source files and in licence files;
names are SPDX identifiers.
"""

import re
from collections.abc import Iterator

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r*]+)")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*|[()]")
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
    ("ISC", r"permission to use, copy, modify, and (?:or )?distribute this software"
            r" for any purpose with or without fee is hereby granted, provided"),
    ("0BSD", r"permission to use, copy, modify, and (?:or )?distribute this software"
             r" for any purpose with or without fee is hereby granted\. the software"),
    ("PostgreSQL", r"permission to use, copy, modify, and distribute this software and"
                   r" its documentation for any purpose, without fee, and without a"),
    ("MPL-2.0", r"mozilla public licen[cs]e,? (?:\(mpl\) )?(?:v\.? ?|version )2\.0"),
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
_EXTENT = re.compile(r"-(?:only|or-later)\Z")


def stated(head: str) -> list[str]:
    """The expressions of the SPDX lines of a text."""
    return list(filter(None, map(_trimmed, _SPDX.findall(head))))


def named(head: str) -> list[str]:
    """The licences whose wording the head of a file has."""
    return list(dict.fromkeys(name for _, name in _places(head)))


def of_file(text: str) -> str:
    """The licence that a licence file has, '' if none is known.

    It is the first that is named: licences speak of others further down, and those of
    bundled parts follow. That of GNU alone does not say whether a later one will do.
    """
    _, name = min(_places(text), default=(0, ""))
    return _EXTENT.sub("", name)


def parts(expression: str) -> list[str]:
    """The names, operators and parentheses of an SPDX expression."""
    return _PART.findall(expression)


def _places(text: str) -> Iterator[tuple[int, str]]:
    """(place, licence) of the wordings in a text."""
    if not _MAY_NAME_ONE.search(text):
        return
    # Twice: one that stood before signs may have become one after a space.
    text = _SIGNS.sub(" ", _SIGNS.sub(" ", text)).lower()
    for name, wording in _WORDINGS:
        if match := wording.search(text):
            yield match.start(), name
    if (place := text.find(_BSD)) >= 0:
        third = "neither the name" in text or "may not be used to endorse" in text
        fourth = "all advertising materials mentioning" in text
        yield place, f"BSD-{4 if fourth else 3 if third else 2}-Clause"
    gnu = [(_gnu(match), match.start()) for match in _GNU.finditer(text)]
    yield from ((place, name) for name, place in sorted(gnu) if name)


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
    for part in parts(line):
        joins = part in ("OR", "AND", "WITH", ")")
        if found and not joins and before not in ("OR", "AND", "WITH", "("):
            break
        found.append(part)
        before = part
    return " ".join(found).replace("( ", "(").replace(" )", ")")
