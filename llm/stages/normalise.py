"""One form for what reads the same: line ends, Unicode, white space, control codes.

Byte order marks go; line ends become newlines; characters are composed (NFC); white
space at the end of a line goes; runs of more than two blank lines become two, the
distance that PEP 8 gives top-level definitions; control characters go, but a form feed
or vertical tab inside a line, which separates words, becomes a space. Lone surrogates,
which no encoding can hold, become U+FFFD. The text ends in one newline.

Source code still parses to the same tree, but for the insides of string literals (a
test parses the whole standard library): tabs and leading spaces stay, and NFC cannot
change a name, since Python itself folds names further (NFKC).
"""

import dataclasses
import re
import unicodedata

from llm.document import Document, Map

TINY = {}

_NEWLINES = re.compile(r"\r\n?")
_PAGE_BREAKS = re.compile(r"(?m)^[\f\v]+")
_SPACES = re.compile(r"[\f\v\x85]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n{4,}")


def make() -> Map:
    """Makes the stage; a document without any text left is dropped."""

    def apply(document: Document) -> list[Document]:
        text = normalise(document.text)
        return [dataclasses.replace(document, text=text)] if text else []

    return Map(apply)


def normalise(text: str) -> str:
    """The one form of `text`; '' if nothing is left. Idempotent."""
    text = _PAGE_BREAKS.sub("", _NEWLINES.sub("\n", _SURROGATES.sub("\ufffd", text)))
    text = unicodedata.normalize("NFC", _CONTROL.sub("", _SPACES.sub(" ", text)))
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    text = _BLANK_LINES.sub("\n\n\n", text)
    text = text.lstrip("\n\ufeff").rstrip("\n")
    return text + "\n" if text else ""
