"""Removes lines that are no sentences, by the line rules of C4.

Raffel et al. 2020 (arXiv:1910.10683), 2.2, and their code: menus, buttons and notices
end in no punctuation, are short, or speak of JavaScript and cookies. It changes the
text, so it is a `Map`; what it removed, and by which rule, stands in `meta`. The rules
that drop a whole document are the stage `c4`, a `Tag`, which follows it and sees what
it left. A line that such a rule looks for (lorem ipsum, a curly bracket) stays for it
where C4's order of rules has it so; the two then decide as datatrove's C4QualityFilter
does and leave the same text, which a test shows. In other languages than English
(`llm/text/stop_words.py`), a line may end in the punctuation of any script, in Thai and
Lao in none, and where words are not told by spaces their letters are counted. A rule is
switched off by 0 or False.
"""

import dataclasses
import re
from collections import Counter

from llm.document import Document, Map
from llm.text.stop_words import marks_ends, rules, unspaced
from llm.text.word_breaks import TERMINAL, words

TINY = {}

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_ENDS = (".", "?", "!", '"', "'")
_ALL_ENDS = (*_ENDS, *sorted(TERMINAL), *"»”’」』）)】", "፡፡")
_POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
)


def make(
    *,
    least_words: int = 3,
    longest_word: int = 1000,
    ended: bool = True,
    citations: bool = True,
    javascript: bool = True,
    policy: bool = True,
) -> Map:
    """Makes the stage; a document of which no line stays is dropped.

    Args:
      least_words: words between spaces of a line.
      longest_word: characters of its longest word.
      ended: a line must end in . ? ! or a quote, and not in an ellipsis.
      citations: removes [1], [edit] and [citation needed] from lines.
      javascript, policy: no lines about JavaScript, cookies and terms of use.
    """

    def rule(line: str, ends: tuple[str, ...], letters: bool) -> tuple[str, str]:
        """(the line, the rule that removes it or '')."""
        line = line.strip()
        found = words(line) if letters else line.split()
        if len(line) > longest_word > 0 and max(map(len, found)) > longest_word:
            return line, "longest_word"
        if citations and "[" in line:
            line = _CITATION.sub("", line)
        if ended and (not line.endswith(ends) or line.endswith("...")):
            return line, "ended"
        if len(found) < least_words:
            return line, "least_words"
        lowered = line.lower()
        if "lorem ipsum" in lowered:
            return line, ""
        if javascript and "javascript" in lowered:
            return line, "javascript"
        if "{" in line:
            return line, ""
        if policy and _POLICY.search(lowered):
            return line, "policy"
        return line, ""

    def apply(document: Document) -> list[Document]:
        kept, removed, text = [], Counter(), document.text
        said = str(document.meta.get("language", ""))
        english = rules(said, set(words(text)), text).english
        ends = _ENDS if english else _ALL_ENDS
        if not marks_ends(said, text):
            ends = ("",)  # which every line ends in
        letters = not english and unspaced(said, text)
        for line in text.splitlines():
            line, broken = rule(line, ends, letters)
            if broken:
                removed[broken] += 1
            else:
                kept.append(line)
        text = "\n".join(kept).strip()
        meta = document.meta | {"c4_lines": dict(removed)}
        return [dataclasses.replace(document, text=text, meta=meta)] if text else []

    return Map(apply)
