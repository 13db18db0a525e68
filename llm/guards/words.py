"""Finds words and phrases of a list: whole words, in any case, spaces of any kind.

It knows nothing of meaning: of the words that one would block, many are harmless in
most texts, which `benchmarks/guard.py` measures on texts of your own.
"""

import re
from collections.abc import Callable
from typing import Any

from llm.errors import InputError
from llm.text import word_lists

TINY = {"words": ("forbidden",)}
_SPACES = 8  # characters of space between two words of a phrase

Found = Callable[[str], list[tuple[int, int]]]


def make(
    *, path: str = "", words: tuple[str, ...] = (), device: Any = None
) -> tuple[Found, int]:
    """(find, reach) of a check.

    Args:
      path: a file with a word or phrase a line; # begins a comment.
      words: more of them.

    Raises:
      InputError: no words, or a file that cannot be read.
    """
    del device
    given = [*words, *(word_lists.read(path) if path else ())]
    listed = [word.split() for word in given if word.split()]
    if not listed:
        raise InputError(
            got="no words for the guard 'words'",
            want="serve.check.words.path, a file with a word a line",
        )
    between = rf"\s{{1,{_SPACES}}}"
    spelled = (between.join(map(re.escape, phrase)) for phrase in listed)
    ordered = sorted(spelled, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(ordered)})(?!\w)", re.IGNORECASE)
    longest = max(sum(map(len, phrase)) + _SPACES * len(phrase) for phrase in listed)

    def find(text):
        return [match.span() for match in pattern.finditer(text)]

    return find, longest + 1
