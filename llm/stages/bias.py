"""Counts how often a document names groups of people, and near which themes.

It drops nothing: the counts stand beside the document, to be added up before and after
other stages, which `llm/text/cooccurrence.py` explains and `benchmarks/bias.py` does
for two corpora. Groups and themes are those of that file, or lists of one's own.
"""

from llm.document import Document, Tag
from llm.text.cooccurrence import GROUPS, THEMES, Finder, lists

TINY = {}


def make(*, groups_path: str = "", themes_path: str = "", window: int = 10) -> Tag:
    """Makes the stage.

    Args:
      groups_path, themes_path: folders of NAME.txt with a word or phrase a line; ''
        takes those that are built in.
      window: words on either side of a group in which a theme is near.

    Raises:
      InputError: a folder without lists, or a name that is a group and a theme.
    """
    finder = Finder(lists(groups_path, GROUPS), lists(themes_path, THEMES), window)

    def score(document: Document) -> dict[str, float]:
        return {name: float(n) for name, n in finder.count(document.text).items()}

    return Tag(score, lambda scores: "")
