"""Texts that a command is given: in its config, or in a file with one a line."""

from collections.abc import Sequence

from etils import epath

from llm import files
from llm.errors import InputError


def texts_given(path: str, texts: Sequence[str], where: str) -> list[str]:
    """The texts of `<where>.path` or of `<where>.texts`, whichever is there.

    Raises:
      InputError: no texts, an empty one, or a file that cannot be read.
    """
    if bool(path) == bool(texts):
        raise InputError(
            got=f"{where}.path and {where}.texts" if path else "no texts",
            want=f"{where}.path, a file with a text a line, or {where}.texts",
        )
    found = _lines(path) if path else list(texts)
    if not all(isinstance(text, str) for text in found):
        raise InputError(got=f"{where}.texts {texts}", want="texts, such as ('a', 'b')")
    empty = [number for number, text in enumerate(found, 1) if not text.strip()]
    if empty or not found:
        which = f"text {empty[0]}" if empty else "no text at all"
        raise InputError(
            got=f"{which} in {path or f'{where}.texts'}"
            + (" without a word" if empty else ""),
            want="one or more texts, none of them empty",
            do="remove empty lines: each is answered by a row",
        )
    return found


def _lines(path: str) -> list[str]:
    try:
        text = epath.Path(path).read_text("utf-8")
    except OSError as error:
        raise InputError(
            got=f"{path} ({error.strerror or error}){files.relative_to(path)}",
            want="a file with a text a line",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            got=f"{path}, which is not UTF-8", want="a file with a text a line"
        ) from error
    return text.removesuffix("\n").split("\n") if text else []
