"""Answers as texts: the part of one that counts, and when two say the same.

Evaluations and rewards compare alike: numbers as numbers (`llm/text/numerals.py`),
other texts in lower case, without punctuation and articles.
"""

import collections
import re
import unicodedata

from llm.text import numerals

_SAID = "%#&*/@"  # punctuation that is a part of what is said
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A character is a word in scripts without spaces: Chinese, Japanese, Thai and others.
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]|\S+?(?=[\u0e00-\u0eff"
    r"\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\s]|$)"
)
_NUMBER = "number"  # an extraction that is no regular expression


def extracted(text: str, pattern: str) -> str:
    """The last match of a pattern, or the last number; '' without one, all of the text
    without a pattern.

    >>> extracted("so #### 1,200", r"#### (-?[0-9,.]+)")
    '1,200'
    """
    if not pattern:
        return text
    if pattern == _NUMBER:
        return numerals.last(text)
    found = list(re.finditer(pattern, text))
    if not found:
        return ""
    return (found[-1][1] if found[-1].re.groups else found[-1][0]) or ""


def normalised(text: str, exact: bool = False, point: str = ".") -> str:
    """As it is compared: a number in one way to write it, one space between words."""
    if exact:
        return text.strip()
    number = numerals.read(text, point=point)
    if number is not None:
        return numerals.written(number)
    words = [_normalised_word(word, point) for word in text.lower().split()]
    # Of punctuation alone nothing would be left, as of no answer.
    return " ".join(_ARTICLES.sub(" ", " ".join(words)).split()) or text.strip()


def _normalised_word(word: str, point: str) -> str:
    """A number in one way to write it, or a word without punctuation."""
    if any(char.isdigit() for char in word):
        number = numerals.read(word.rstrip(",;:!?.)").lstrip("("), point=point)
        if number is not None:
            return numerals.written(number)
    word = word.strip("*_`$")  # of Markdown and TeX
    # Not between digits: 12,5 is not 125, whatever it is. A minus in front counts, too.
    return "".join(
        char
        for n, char in enumerate(word)
        if char in _SAID
        or not unicodedata.category(char).startswith("P")
        or word[n - 1 : n].isdigit() & word[n + 1 : n + 2].isdigit()
        or (n == 0 and char in "-−" and word[1:].strip("-−"))
    )


def words_of(text: str) -> list[str]:
    """Words, which are single characters in scripts without spaces."""
    return _WORD.findall(text)


def f1(said: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, both texts normalised."""
    mine, theirs = words_of(said), words_of(reference)
    shared = sum((collections.Counter(mine) & collections.Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs)) if shared else float(mine == theirs)
