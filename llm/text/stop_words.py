"""Frequent words of languages, and by them which language's rules a text is under.

The rules about quality (Gopher, C4, FineWeb) were made for English: they ask for
English stop words, for words of 3 to 10 letters, for lines that end in `.`. A text of
another language fails them whatever its quality. So a rule is applied to a text if it
is made for its language, with the stop words of that language where there is a list;
else it is skipped.

The language is what the document says (`meta`, by its source or by the stage `language`
with `label`), else the one of whose list it has the most words, else told by its
script. A text in Latin letters without any of these words is under English rules: it is
a list or a menu, or in a language that only `language` can tell.

    >>> rules("", {"der", "die", "und", "haus"}, "das Haus")
    Rules(language='de', stop_words=3, spaced=True, english=False)
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from llm.text import languages
from llm.text.word_breaks import UNSPACED

ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")  # as Gopher has them
# Of languages whose words are told by spaces. In lower case.
_LISTS = {
    "en": " ".join(ENGLISH),
    "de": "der die und das ist nicht mit von den auch ein eine zu sich auf für",
    "fr": "le la les de des et est que qui dans une pour par pas du en",
    "es": "el la los de que y en un una por con para las del se es",
    "it": "il di che e la per un una non con del della sono le gli è",
    "pt": "o de que e do da em um uma para com não os no na se",
    "nl": "de het een van en dat niet met voor zijn op te is aan",
    "sv": "och att det som en är av för på den med inte till har",
    "da": "og at det som en er af for på den med ikke til har",
    "nb": "og å det som en er av for på den med ikke til har",
    "fi": "ja on ei että se hän oli joka mutta tai kuin ovat myös sen",
    "pl": "i w na z się nie do że jest to o jak oraz przez",
    "cs": "a v na se je že s z o do to jako by nebo",
    "sk": "a v na sa je že s z o do to ako by alebo",
    "hr": "i u na se je da su za od koji s kao ili",
    "sl": "in v na se je da za so ki z kot ali ne pri",
    "ru": "и в не на что с как по это к но он из для",
    "uk": "і в не на що з як до це та але він із для",
    "bg": "и в на не да се за с от по са като е или",
    "sr": "и у на се је да су за од који као или",
    "el": "και το να του η της με για που την από δεν είναι στο",
    "tr": "ve bir bu da de için ile olarak gibi daha çok olan her veya",
    "hu": "a az és hogy nem is egy van de meg ez vagy csak mint",
    "ro": "de și în a la cu pe că nu este din un sau pentru",
    "ca": "el la de que i en un una per amb els les no és",
    "id": "yang dan di untuk dengan dari pada ini itu tidak adalah dalam atau oleh",
    "vi": "và của là có được các một không cho những trong này với người",
    "sw": "na ya wa kwa ni katika za la kuwa cha au haki kila ili",
    "lt": "ir kad yra į iš su tai kaip bet buvo arba ar jo turi",
    "lv": "un ir ka uz no ar par tas kas bet vai arī pie tiek",
    "et": "ja on ei et see kui oli ta ning või ka oma tema mis",
    "ar": "في من على أن إلى التي هذا كان عن لا كل أو ما مع",
    "fa": "و در به از که این را با است برای آن یا هر باید",
    "ur": "کے کی میں اور ہے کا سے کو یہ نہیں اس ہر یا پر",
    "he": "של את על לא זה הוא עם כי או כל אם לכל גם אדם",
    "hi": "के में की है और को से का यह नहीं पर कि या भी",
    "bn": "ও এই এবং না করে থেকে তার জন্য যে বা হয় একটি প্রত্যেকের",
    "ko": "및 그 이 등 또는 수 것 있다 모든 의하여 이러한 대한 그리고 누구도",
}
_STOP_WORDS = {name: frozenset(line.split()) for name, line in _LISTS.items()}
_SAME = {"no": "nb", "nn": "nb", "bs": "hr", "ms": "id"}
_LEAST = 2  # words of a list that tell its language
# Syllables stand alone in these, so that their words are short.
_SHORT_WORDS = frozenset({"ko", "vi"})
_UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo", "dz", "jv"})
_UNSPACED_LETTER = re.compile(rf"[{UNSPACED}]")
_THAI_LAO = re.compile(r"[\u0e01-\u0e30\u0e81-\u0eb0]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_LETTER = re.compile(r"[^\W\d_]")
_LOOKED_AT = 2000  # characters, for the script


class Rules(NamedTuple):
    """What rules a text is under.

    Attributes:
      language: its code, '' for one that is not known and not English.
      stop_words: how many different ones of its language it has; None without a list.
      spaced: whether its words are told by spaces and as long as those of English.
      english: whether the rules apply as they were published.
    """

    language: str
    stop_words: int | None
    spaced: bool
    english: bool


def rules(said: str, found: Collection[str], text: str) -> Rules:
    """The rules for a text.

    Args:
      said: its language as the document says it, '' if it does not.
      found: its words.
    """
    code = languages.code(said) if said else ""
    lower = {word.lower() for word in found}
    counts = {name: len(lower & some) for name, some in _STOP_WORDS.items()}
    if not code:
        best = max(counts, key=counts.get)  # English first, if several are best
        code = best if counts[best] >= _LEAST else _by_script(text)
    code = _SAME.get(code, code)
    if code == "en":  # in the case of the list, as published
        return Rules(code, len(_STOP_WORDS["en"] & set(found)), True, True)
    spaced = code in _STOP_WORDS and code not in _SHORT_WORDS | _UNSPACED_LANGUAGES
    return Rules(code, counts.get(code), spaced, False)


def unspaced(said: str, text: str) -> bool:
    """Whether a text that is not said to be English has no spaces between words."""
    if languages.code(said) == "en":
        return False
    looked = text[:_LOOKED_AT]
    letters = len(_LETTER.findall(looked))
    return 2 * len(_UNSPACED_LETTER.findall(looked)) > letters > 0


def marks_ends(said: str, text: str) -> bool:
    """Whether sentences of a text end in a mark; those of Thai and Lao do not."""
    if languages.code(said) == "en":
        return True
    looked = text[:_LOOKED_AT]
    return 2 * len(_THAI_LAO.findall(looked)) <= len(_LETTER.findall(looked))


def _by_script(text: str) -> str:
    """`en` for Latin letters, or none at all; '' for others."""
    looked = text[:_LOOKED_AT]
    letters = len(_LETTER.findall(looked))
    return "en" if 2 * len(_LATIN.findall(looked)) >= letters else ""
