"""Drops lists, menus and broken lines, by the rules that FineWeb added.

Penedo et al. 2024, The FineWeb Datasets (arXiv:2406.17557), 3.4; the thresholds are
those of datatrove's FineWebQualityFilter, whose scores ours equal on the same words. A
test shows it. FineWeb runs this after Gopher's rules and C4's. In scripts without
spaces a line of a third as many characters is as long, and where sentences end in no
mark (Thai, Lao), the rule about ends is skipped. A threshold of 0 switches its rule
off.
"""

from llm.document import Document, Tag
from llm.text.stop_words import marks_ends, unspaced
from llm.text.word_breaks import TERMINAL, words

TINY = {}


def make(
    *,
    least_ended_lines: float = 0.12,
    most_short_lines: float = 0.67,
    short_line: int = 30,
    most_repeated_characters: float = 0.01,
    most_newlines: float = 0.3,
) -> Tag:
    """Makes the stage.

    Args:
      least_ended_lines: share of the lines that end as a sentence does.
      most_short_lines: share of the lines of at most `short_line` characters.
      most_repeated_characters: share of the characters on lines that occurred before.
      most_newlines: newlines for each word.
    """
    most = (
        ("short_lines", most_short_lines, "more than {:.0%} short lines"),
        ("repeated", most_repeated_characters, "more than {:.0%} on repeated lines"),
        ("newlines", most_newlines, "more than {} newlines a word"),
    )

    def decide(scores: dict[str, float]) -> str:
        if not scores["lines"]:
            return "empty"
        if scores["ended_lines"] < least_ended_lines and scores["marks_ends"]:
            return f"less than {least_ended_lines:.0%} of lines end as a sentence"
        for name, threshold, reason in most:
            if threshold and scores[name] > threshold:
                return reason.format(threshold)
        return ""

    return Tag(
        lambda document: score(document, short_line), decide, reads=("short_line",)
    )


def score(document: Document, short_line: int) -> dict[str, float]:
    """The measures that the thresholds of `make` are compared with, and `lines`."""
    text = document.text
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    count, newlines = len(lines) or 1, text.count("\n")
    once = set(lines)
    repeated = sum(map(len, lines)) - sum(map(len, once))
    said = str(document.meta.get("language", ""))
    if unspaced(said, text):
        short_line //= 3
    return {
        "lines": float(len(lines)),
        "ended_lines": sum(line[-1] in TERMINAL for line in lines) / count,
        "short_lines": sum(len(line) <= short_line for line in lines) / count,
        "repeated": repeated / (len(text) - newlines or 1),
        "newlines": newlines / (len(words(text)) or 1),
        "marks_ends": float(marks_ends(said, text)),
    }
