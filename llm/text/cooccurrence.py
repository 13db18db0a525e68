"""How often a corpus names groups of people, and in the company of which words.

For each group, the times it is named and, of these, the times that a word of a theme
stands within some words of it: `women+career`. Counts are added over documents, so the
same counts before and after filters say whether these remove what speaks of some people
(Dodge et al. 2021, arXiv:2104.08758, found that word lists do). A rate is compared with
the one of all groups together: 2 is twice as often. Words are counted, not meaning:
`white` is mostly a colour, so groups that go by such words are phrases here.

The themes are those of the Word Embedding Association Test (Caliskan et al. 2017), its
tests 5 to 8; groups and themes of one's own come as files.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from llm.document import Document
from llm.errors import InputError
from llm.text import word_lists
from llm.text.word_breaks import words

GROUPS = {
    "women": "woman women girl girls she her hers herself female mother mothers "
             "daughter daughters sister sisters wife wives aunt grandmother lady "
             "ladies",
    "men": "man men boy boys he him his himself male father fathers son sons brother "
           "brothers husband husbands uncle grandfather gentleman gentlemen",
    "christians": "christian christians christianity catholic catholics protestant",
    "muslims": "muslim muslims moslem islam islamic",
    "jews": "jew jews jewish judaism",
    "hindus": "hindu hindus hinduism",
    "buddhists": "buddhist buddhists buddhism",
    "atheists": "atheist atheists atheism",
    "gay people": "gay gays lesbian lesbians homosexual homosexuals bisexual queer "
                  "lgbt",
    "transgender people": "transgender transsexual trans_woman trans_man trans_people",
    "black people": "african_american african_americans black_people black_person "
                    "black_man black_men black_woman black_women",
    "white people": "caucasian caucasians white_people white_person white_man "
                    "white_men white_woman white_women european_american "
                    "european_americans",
    "asians": "asian asians asian_american asian_americans",
    "hispanics": "hispanic hispanics latino latinos latina latinas",
    "immigrants": "immigrant immigrants refugee refugees migrant migrants",
    "old people": "elderly old_people old_man old_woman older_people senior_citizens",
    "young people": "young_people teenager teenagers youth youths youngster youngsters",
    "disabled people": "disabled_people disability disabilities blind_people "
                       "deaf_people",
}  # fmt: skip
THEMES = {
    "career": "executive management professional corporation salary office business "
              "career",
    "family": "home parents children family cousins marriage wedding relatives",
    "science": "science technology physics chemistry experiment astronomy math algebra "
               "geometry calculus equations computation numbers",
    "arts": "poetry art dance literature novel symphony drama sculpture",
    "pleasant": "joy love peace wonderful pleasure friend laughter happy health "
                "freedom honest lucky",
    "unpleasant": "agony terrible horrible nasty evil war awful failure murder death "
                  "hatred prison poison kill violence terrorism crime",
}  # fmt: skip


def lists(path: str, own: Mapping[str, str]) -> dict[str, list[str]]:
    """The lists of a folder of NAME.txt, else those of this file.

    Raises:
      InputError: a folder without any.
    """
    if not path:
        return {name: [term.replace("_", " ") for term in terms.split()]
                for name, terms in own.items()}  # fmt: skip
    files = sorted(epath.Path(path).glob("*.txt"))
    if not files:
        raise InputError(got=f"no lists in {path}", want="NAME.txt, with a word a line")
    return {file.stem: word_lists.read(file) for file in files}


class Finder:
    """The lists of groups and themes, ready to be counted in texts."""

    def __init__(
        self,
        groups: Mapping[str, Iterable[str]],
        themes: Mapping[str, Iterable[str]],
        window: int,
    ):
        both = groups.keys() & themes.keys()
        if both or window < 1:
            twice = ", ".join(sorted(both)) or "no name twice"
            raise InputError(
                got=f"window {window} and {twice}",
                want="a word or more, and names that are a group or a theme, not both",
            )
        self.groups, self.themes, self._window = tuple(groups), tuple(themes), window
        self._groups = word_lists.index(groups)
        self._themes = word_lists.index(themes)

    def count(self, text: str) -> Counter[str]:
        """`words`, each group, each theme, and GROUP+THEME: that near, how many."""
        found = words(text.casefold())
        counts = Counter(words=len(found))
        themes = list(word_lists.find(self._themes, found))
        counts.update(name for _, _, name in themes)
        first = 0
        for place, length, group in word_lists.find(self._groups, found):
            counts[group] += 1
            while first < len(themes) and themes[first][0] < place - self._window:
                first += 1
            near = set()
            for i in range(first, len(themes)):
                other, _, theme = themes[i]
                if other >= place + length + self._window:
                    break
                near.add(theme)
            counts.update(f"{group}+{theme}" for theme in near)
        return counts


def count(documents: Iterable[Document], finder: Finder) -> Counter[str]:
    """The counts of all documents."""
    total = Counter(documents=0)
    for document in documents:
        total.update(finder.count(document.text))
        total["documents"] += 1
    return total


def report(before: Counter[str], after: Counter[str], finder: Finder) -> str:
    """A table of how groups and their company change; counts as `count` gives them."""
    kept = after["words"] / (before["words"] or 1)
    lines = [
        f"words {before['words']:,} -> {after['words']:,} ({kept:.1%} kept)",
        "",
        "| group | named before | a million words | after | a million words | kept |",
        "|---|---|---|---|---|---|",
    ]
    named = [group for group in finder.groups if before[group] or after[group]]
    for group in named:
        cells = (f"{c[group]:,} | {1e6 * c[group] / (c['words'] or 1):.1f}"
                 for c in (before, after))  # fmt: skip
        share = f"{after[group] / before[group]:.1%}" if before[group] else "-"
        lines.append(f"| {group} | {' | '.join(cells)} | {share} |")
    lines += [
        "",
        "Named near a theme, against the rate of all groups, before -> after:",
        "",
        f"| group | {' | '.join(finder.themes)} |",
        f"|---|{'---|' * len(finder.themes)}",
    ]
    for group in named:
        cells = (
            f"{_lift(before, group, theme, finder)} -> "
            f"{_lift(after, group, theme, finder)}"
            for theme in finder.themes
        )
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lift(counts: Mapping[str, int], group: str, theme: str, groups: Sequence[str]):
    """How much more often the theme is near this group than near all; None if never."""
    near = sum(counts.get(f"{other}+{theme}", 0) for other in groups)
    named = sum(counts.get(other, 0) for other in groups)
    own = counts.get(group, 0)
    if not near or not own:
        return None
    return counts.get(f"{group}+{theme}", 0) / own * named / near


def _lift(counts: Counter[str], group: str, theme: str, finder: Finder) -> str:
    found = lift(counts, group, theme, finder.groups)
    return "-" if found is None else f"{found:.2f}"
