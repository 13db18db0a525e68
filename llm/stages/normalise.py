"""One form for what reads the same: line ends, Unicode, white space, control codes.

Byte order marks go; line ends become newlines; characters are composed (NFC); white
space at the end of a line goes; runs of more than two blank lines become two, the
distance that PEP 8 gives top-level definitions; control characters go, but a form feed
or vertical tab inside a line, which separates words, becomes a space. Lone surrogates,
which no encoding can hold, become U+FFFD. The text ends in one newline.

More is asked for by knobs: text that was decoded wrongly is repaired (`Ã¼` to `ü`, by
ftfy), compatible characters become one (NFKC), letters small, and characters of a
pattern go.

Source code still parses to the same tree, but for the insides of string literals (a
test parses the whole standard library): tabs and leading spaces stay, and NFC cannot
change a name, since Python itself folds names further (NFKC).
"""

import dataclasses
import re
import unicodedata

from llm.document import Document, Map
from llm.errors import InputError

TINY = {}

_FORMS = ("NFC", "NFKC")

_NEWLINES = re.compile(r"\r\n?")
_PAGE_BREAKS = re.compile(r"(?m)^[\f\v]+")
_SPACES = re.compile(r"[\f\v\x85]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n{4,}")


def make(
    *,
    form: str = "NFC",
    repair: bool = False,
    lowercase: bool = False,
    remove: str = "",
) -> Map:
    """Makes the stage; a document without any text left is dropped.

    Args:
      form: of Unicode: NFC, or NFKC, which also makes `ﬁ` to `fi` and `²` to `2`.
      repair: whether text in a wrong encoding is repaired (extra `data`).
      lowercase: whether letters become small.
      remove: regular expression of characters that go, such as `[^\\w\\s.,]`.

    Raises:
      InputError: another form, a pattern that is none, or no package ftfy.
    """
    if form not in _FORMS:
        raise InputError(got=f"form {form!r}", want=" or ".join(_FORMS))
    try:
        unwanted = re.compile(remove) if remove else None
    except re.error as error:
        raise InputError(
            got=f"remove {remove!r} ({error})", want="a regular expression"
        ) from error
    repaired = _ftfy() if repair else None

    def apply(document: Document) -> list[Document]:
        text = _SURROGATES.sub("\ufffd", document.text)
        if repaired:
            text = repaired(text)
        if form != "NFC":
            text = unicodedata.normalize(form, text)
        if lowercase:
            text = unicodedata.normalize(form, text.lower())
        if unwanted:
            text = unwanted.sub("", text)
        text = normalise(text)
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


def _ftfy():
    try:
        import ftfy
    except ModuleNotFoundError as error:
        raise InputError(
            got="normalise.repair without the package ftfy",
            want="the extra `data`",
            do="pip install 'llm-lifecycle[data]', or ftfy alone",
        ) from error
    # Its other habits, such as straight quotes, are no repairs.
    config = ftfy.TextFixerConfig(
        unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False,
        fix_character_width=False, normalization=None,
    )  # fmt: skip
    return lambda text: ftfy.fix_text(text, config)
