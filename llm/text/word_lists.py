"""Lists of words and phrases, read from files and found among the words of a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from etils import epath

from llm import files
from llm.errors import InputError
from llm.text.word_breaks import words

# The first word of a phrase, to the rest of it and the name of its list.
Index = Mapping[str, Sequence[tuple[tuple[str, ...], str]]]


def read(path: epath.PathLike) -> list[str]:
    """The lines of a file with a word or phrase a line; # begins a comment.

    Raises:
      InputError: a file that cannot be read.
    """
    try:
        lines = epath.Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            got=f"{path} ({error}){files.relative_to(path)}",
            want="a file of UTF-8 with a word a line",
        ) from error
    found = (line.partition("#")[0].strip() for line in lines)
    return [line for line in found if line]


def index(lists: Mapping[str, Iterable[str]]) -> Index:
    """What `find` looks up: words and phrases, in any case, by the names of lists."""
    made: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name, phrases in lists.items():
        for phrase in phrases:
            first, *rest = words(phrase.casefold()) or ("",)
            made.setdefault(first, []).append((tuple(rest), name))
    made.pop("", None)
    for entries in made.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return made


def find(index: Index, found: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(place, number of words, name of its list) of the phrases among casefolded words.

    The longest phrase at a place counts, and for each list; phrases do not overlap but
    for those of other lists at the same place.
    """
    if index.keys().isdisjoint(found):
        return
    free = 0
    for place, word in enumerate(found):
        if place < free or word not in index:
            continue
        longest = -1
        for rest, name in index[word]:
            if len(rest) < longest:
                break
            if found[place + 1 : place + 1 + len(rest)] == rest:
                longest = len(rest)
                yield place, len(rest) + 1, name
        free = place + longest + 1
