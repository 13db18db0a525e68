"""Words and sentences of a text, and what counts as punctuation.

A word is a run of letters, digits and marks, with an apostrophe, a full stop or a comma
inside (don't, U.S, 10,000); any other character that is no space is a word of its own,
but a run of full stops, hyphens and the like is one. Where a script has no spaces
(Chinese, Japanese, Thai, Lao, Khmer, Burmese), each letter is a word. The rules about
quality were published for the words of other tokenizers, and the words are part of a
rule: LOG.md says how far decisions agree with those by spaCy's words.

Tokenisation is fast since no word spans a space: each piece between spaces is cut once
and remembered. The words of a text serve all rules that look at it one after the other.

    >>> words("Don't pay $10,000 -- yet.")
    ("Don't", 'pay', '$', '10,000', '--', 'yet', '.')
"""

import functools
import itertools
import re
import string
import unicodedata

# Thai, Lao, Burmese and Khmer; Tai scripts, Balinese, Yi, Javanese; signs of
# repetition and bopomofo; kana; Han.
UNSPACED = (
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u109f\u1780-\u17d3"
    "\u1950-\u19df\u1a20-\u1a9f\u1b05-\u1b4c\ua000-\ua48c\ua980-\ua9c0\uaa80-\uaadf"
    "\u3005-\u3007\u3105-\u312f\u31a0-\u31bf"
    "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U000323af"
)
# Where Unicode has combining marks, which are no letters to `\w`.
_MARKED = (
    (0x300, 0x3100), (0xA660, 0xAC00), (0xFB1E, 0xFB1F), (0xFE00, 0xFE30),
    (0x10000, 0x12000), (0x16A00, 0x17000), (0x1BC00, 0x1F000),
)  # fmt: skip
# What ends a sentence in any script: Unicode's Sentence_Terminal, and three of Khmer.
_TERMINAL = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 "
    "1367-1368 166e 1735-1736 17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab "
    "1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c "
    "2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 "
    "aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 "
    "10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd "
    "111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 "
    "11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 "
    "11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f 1da88"
)
TERMINAL = frozenset(
    chr(code)
    for first, _, last in (part.partition("-") for part in _TERMINAL.split())
    for code in range(int(first, 16), int(last or first, 16) + 1)
)
# The punctuation that cc_net folds (Wenzek et al. 2020), what ends a sentence, and
# control codes. Words of these alone are no words to Gopher's rules.
PUNCTUATION = "".join(
    sorted(
        {
            *string.punctuation,
            *"«´»–—’“”„…∶━►、〈〉《》「」【】％（），１：；～",
            *TERMINAL,
        }
        | {chr(code) for code in (*range(32), *range(127, 160))}
    )
)

_REMEMBERED = 200_000  # pieces between spaces, of at most 40 characters
_LONGEST = 40

_TITLES = {"Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Sr", "Jr", "vs", "Vol", "Fig"}
# A mark of the end, closing quotes, a space, and what may begin a sentence.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+(?=[^\sa-z])")
_FULL_WIDTH_END = re.compile(r"[。！？｡]+[”’」』）]*(?=[^\s。！？｡”’」』）])")


@functools.lru_cache(maxsize=2)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, in order; every character but space is in one of them."""
    return tuple(itertools.chain.from_iterable(map(_CUT.__getitem__, text.split())))


def sentences(line: str) -> int:
    """How many sentences a line has; its last one need not end in a full stop."""
    line = line.strip()
    if not line:
        return 0
    ends = sum(not _is_title(line, end.start()) for end in _END.finditer(line))
    if not line.isascii():
        ends += len(_FULL_WIDTH_END.findall(line))
    return ends + 1


def _is_title(line: str, stop: int) -> bool:
    """Whether the full stop at `stop` is one of `Mr.` or of an initial."""
    before = line[max(stop - 6, 0) : stop].split()
    word = before[-1].lstrip("(\"'“‘") if before and line[stop] == "." else ""
    return word in _TITLES or (len(word) == 1 and word.isupper())


class _Cut(dict):
    """Piece between spaces to its words; cleared when it has grown too large."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        cut = tuple(_pattern().findall(piece))
        if len(piece) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[piece] = cut
        return cut


_CUT = _Cut()


@functools.cache
def _pattern() -> re.Pattern:
    marks = "".join(
        chr(code)
        for first, end in _MARKED
        for code in range(first, end)
        if unicodedata.category(chr(code))[0] == "M"
    )
    letter = rf"[^\W{UNSPACED}]"
    run = rf"{letter}(?:{letter}|[{marks}])*"
    return re.compile(
        rf"{run}(?:['’.,]{run})*|[{UNSPACED}]|\.+|-+|=+|\*+|#+|~+|[^\w\s]"
    )
