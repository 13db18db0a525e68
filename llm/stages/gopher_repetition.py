"""Drops texts that repeat themselves, by the rules of Gopher.

Rae et al. 2021, Scaling Language Models (arXiv:2112.11446), table A1; the thresholds
are theirs, each the greatest share of a text's characters (of its lines and paragraphs,
where so said). Scores equal those of datatrove's GopherRepetitionFilter on the same
words, which a test shows, so they share what it has made of the paper: characters count
against the text with its spaces; a repeated run of five words or more counts from its
second occurrence on, and the next one is looked for behind its end. In scripts without
spaces, where words are letters, runs of three times as many are compared: five letters
repeat in any text. A threshold of 0 switches its rule off.
"""

import re
from collections.abc import Sequence

from llm.document import Document, Tag
from llm.text.ngrams import Runs, most_frequent, repeated
from llm.text.stop_words import unspaced
from llm.text.word_breaks import words

TINY = {}

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")
_TOP = range(2, 5)
_DUPLICATE = range(5, 11)
_LETTERS = 3  # that are as long as a word, where there are no spaces


def make(
    *,
    lines: float = 0.3,
    paragraphs: float = 0.3,
    line_characters: float = 0.2,
    paragraph_characters: float = 0.2,
    top_2_gram: float = 0.2,
    top_3_gram: float = 0.18,
    top_4_gram: float = 0.16,
    duplicate_5_grams: float = 0.15,
    duplicate_6_grams: float = 0.14,
    duplicate_7_grams: float = 0.13,
    duplicate_8_grams: float = 0.12,
    duplicate_9_grams: float = 0.11,
    duplicate_10_grams: float = 0.1,
) -> Tag:
    """Makes the stage.

    Args:
      lines, paragraphs: share of those that occurred before.
      line_characters, paragraph_characters: the same, by characters.
      top_2_gram, top_3_gram, top_4_gram: characters of the most frequent run of so many
        words.
      duplicate_5_grams, duplicate_6_grams, duplicate_7_grams, duplicate_8_grams,
        duplicate_9_grams, duplicate_10_grams: characters of runs that occurred before.
    """
    thresholds = dict(locals())

    def decide(scores: dict[str, float]) -> str:
        if not scores["characters"]:
            return "empty"
        for name, threshold in thresholds.items():
            if threshold and scores[name] > threshold:
                return f"more than {threshold:.0%} repeated: {name.replace('_', ' ')}"
        return ""

    return Tag(score, decide, reads=())


def score(document: Document) -> dict[str, float]:
    """The measures that the thresholds of `make` go by, and `characters`."""
    text = document.text
    size = len(text) or 1
    paragraphs, lines = _PARAGRAPHS.split(text.strip()), _LINES.split(text)
    again, characters = _again(paragraphs)
    scores = {
        "characters": float(len(text)),
        "paragraphs": again / len(paragraphs),
        "paragraph_characters": characters / size,
    }
    again, characters = _again(lines)
    scores["lines"] = again / len(lines)
    scores["line_characters"] = characters / size
    found = words(text)
    said = str(document.meta.get("language", ""))
    times = _LETTERS if unspaced(said, text) else 1
    runs = Runs(found, " " if times == 1 else "")
    for n in _TOP:
        scores[f"top_{n}_gram"] = _top(runs, times * n) / size
    runs = Runs(found, "")
    for n in _DUPLICATE:
        scores[f"duplicate_{n}_grams"] = _duplicate(runs, times * n) / size
    return scores


def _again(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts equal an earlier one, and their characters."""
    once = set(parts)
    if len(once) == len(parts):
        return 0, 0
    return len(parts) - len(once), sum(map(len, parts)) - sum(map(len, once))


def _top(runs: Runs, n: int) -> int:
    """Characters of all occurrences of the most frequent run of n words."""
    codes, characters = runs.of(n)
    if not len(codes):
        return 0
    place, count = most_frequent(codes)
    return int(characters[place]) * count


def _duplicate(runs: Runs, n: int) -> int:
    """Characters of the runs of n words that occurred before, which do not overlap."""
    codes, characters = runs.of(n)
    places = repeated(codes)
    seen, total, free = set(), 0, 0
    for place, code in zip(places.tolist(), codes[places].tolist(), strict=True):
        if place < free:
            continue
        if code in seen:
            total += int(characters[place])
            free = place + n
        seen.add(code)
    return total
