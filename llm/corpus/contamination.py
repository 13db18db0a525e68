"""Which items of an examination a corpus holds: runs of words that both have.

As GPT-3 did it (Brown et al. 2020, arXiv:2005.14165, appendix C): words are runs of
letters and digits in lower case (each letter, where a script has no spaces), and an
item is in a document if they share a run of thirteen of them. An item of fewer words is
looked for whole, if it has eight; shorter ones say nothing. Runs that many items share,
such as a common instruction, are left out.

Items are read by lines, those of tables too: only their words count, so no column needs
a name, and a damaged letter is no error.

    index = Index(items("benchmarks/"))
    index.found(document.text)      # {"gsm8k.jsonl:7": 3}, runs by item
"""

import collections
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from llm.corpus import file_reader
from llm.errors import InputError
from llm.text.word_breaks import UNSPACED

WORDS, LEAST = 13, 8
_COMMON = 10  # items that share a run which then says nothing
_LONGEST = 1 << 22  # bytes of a line
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")


class Index:
    """The runs of words of items.

    Attributes:
      items: ids of the items that are long enough to be found.
      short: how many are not.
    """

    def __init__(self, items: Iterable[tuple[str, str]], words: int = WORDS):
        if words < LEAST:
            raise InputError(got=f"runs of {words} words", want=f"{LEAST} or more")
        held: dict[tuple[str, ...], set[int]] = collections.defaultdict(set)
        self._words, self.items, self.short = words, [], 0
        for id, text in items:
            own = _words(text)
            if len(own) < LEAST:
                self.short += 1
                continue
            length = min(words, len(own))
            for start in range(len(own) - length + 1):
                held[tuple(own[start : start + length])].add(len(self.items))
            self.items.append(id)
        if not self.items:
            raise InputError(
                got=f"{self.short} items, none of {LEAST} words or more",
                want="texts of an examination",
            )
        self._held = {run: who for run, who in held.items() if len(who) < _COMMON}
        # Most places of a text begin no run: what does is told by two words.
        self._lengths = collections.defaultdict(set)
        for run in self._held:
            self._lengths[run[:2]].add(len(run))

    def found(self, text: str) -> dict[str, int]:
        """{item: how many runs of it the text holds}, most first."""
        words, counts = _words(text), collections.Counter()
        for start, pair in enumerate(itertools.pairwise(words)):
            for length in self._lengths.get(pair, ()):
                run = tuple(words[start : start + length])
                counts.update(self._held.get(run, ()))
        return {self.items[n]: count for n, count in counts.most_common()}


def items(path: str) -> Iterator[tuple[str, str]]:
    """(id, text) of a file of items, or of a folder of them.

    A line is an item: all texts of a JSON record (.jsonl), else the line itself.

    Raises:
      InputError: no such files, or a line of .jsonl that is no JSON.
    """
    wanted = file_reader.ending(".jsonl", ".txt", ".csv", ".tsv")
    for file, name, *_ in file_reader.files(path, "items", wanted, _refuse):
        records = ".jsonl" in name
        for number, line in file_reader.lines(file, name, _LONGEST, _refuse):
            text = line.decode("utf-8", errors="replace")
            if not text.strip():
                continue
            if records:
                try:
                    text = "\n".join(_texts(json.loads(text)))
                except (ValueError, RecursionError) as error:
                    raise InputError(
                        got=f"{name}:{number}, which is no JSON ({error})",
                        want="a record a line",
                    ) from error
            yield f"{name}:{number}", text


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _refuse(reason: str, id: str) -> None:
    # An item that is not read is one that is not looked for.
    raise InputError(got=f"{id}: {reason}", want="items that can be read")
