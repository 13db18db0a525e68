"""Drops documents with words of lists: obscene and hateful ones, by language.

The lists are yours: a folder with a file a language (en.txt, de.txt), such as those of
LDNOOBW that C4 used, or one file; a word or phrase a line. Whole words are compared, in
any case; in scripts without spaces, any run of the letters. C4 dropped every page with
one such word (Raffel et al. 2020), which also drops medicine, news and the speech of
minorities (Dodge et al. 2021, arXiv:2104.08758): a share of the words, or some hits,
may be allowed. A list knows words, not meaning.

A document whose language is known (`meta`, by the stage `language` with `label`) is
compared with the list of that language alone, else with all.
"""

from etils import epath

from llm.document import Document, Tag
from llm.errors import InputError
from llm.text import word_lists
from llm.text.word_breaks import words

TINY = {"listed": ("forbidden",)}


def make(
    *,
    path: str = "",
    listed: tuple[str, ...] = (),
    most_hits: int = 0,
    most_share: float = 0.0,
) -> Tag:
    """Makes the stage.

    Args:
      path: a folder of LANG.txt, or a file, with a word or phrase a line.
      listed: words for all languages beside these.
      most_hits: so many do not drop a document yet.
      most_share: nor does this share of its words.

    Raises:
      InputError: no words, or a file that cannot be read.
    """
    lists = _read(path)
    by_language = {
        code: word_lists.index({code: [*phrases, *listed]})
        for code, phrases in lists.items()
    }
    everything = [phrase for phrases in lists.values() for phrase in phrases]
    all_of_them = word_lists.index({"": {*everything, *listed}})
    only_listed = word_lists.index({"": listed})
    if not all_of_them:
        raise InputError(
            got="no words for the stage 'harm'",
            want="data.stage.harm.path, a folder of LANG.txt with a word a line",
        )

    def score(document: Document) -> dict[str, float]:
        chosen = all_of_them
        code = document.meta.get("language", "")
        if code and set(by_language) - {""}:
            chosen = by_language.get(code, only_listed)
        found = words(document.text.casefold())
        spans = list(word_lists.find(chosen, found))
        within = sum(length for _, length, _ in spans)
        return {"hits": float(len(spans)), "share": within / (len(found) or 1)}

    def decide(scores: dict[str, float]) -> str:
        if scores["hits"] > most_hits and scores["share"] > most_share:
            return f"more than {most_hits} listed words"
        return ""

    return Tag(score, decide, reads=("path", "listed"))


def _read(path: str) -> dict[str, list[str]]:
    """Language to its list; '' to one for all languages."""
    if not path:
        return {}
    folder = epath.Path(path)
    if not folder.is_dir():
        return {"": word_lists.read(path)}
    files = sorted(folder.glob("*.txt"))
    return {file.stem: word_lists.read(file) for file in files}
