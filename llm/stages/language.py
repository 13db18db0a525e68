"""Says what language a text is in, and keeps those of some languages.

By py3langid (extra `data`; 130 languages, its model is in the package), or by a
fastText model of your own, such as lid.176.bin or GlotLID (extra `fasttext`). LOG.md
has the figures of `benchmarks/language.py` for both. Probabilities of the two are not
alike, so the threshold belongs to the identifier.

With `label`, the language goes to `meta` (`language`, `language_probability`), where
later stages such as `harm` read it, and nothing is dropped.
"""

import dataclasses
import functools
from collections.abc import Callable

from llm.document import Document, Map, Tag
from llm.errors import InputError

TINY = {"languages": ("en",), "least": 0.2}

_KEPT = 3  # languages of a text whose probabilities are written down

Identify = Callable[[str], list[tuple[str, float]]]


def make(
    *,
    languages: tuple[str, ...] = (),
    least: float = 0.5,
    model_path: str = "",
    characters: int = 2000,
    label: bool = False,
) -> Tag | Map:
    """Makes the stage.

    Args:
      languages: what to keep, by the codes of the identifier (en, de); () keeps any.
      least: a text is kept if one of these, or its best one, is as probable.
      model_path: a fastText model; '' is py3langid.
      characters: so many of a text are looked at; 0 takes all.
      label: writes the language down instead, and drops nothing.

    Raises:
      InputError: a probability beyond 0 to 1.
    """
    if not 0 <= least <= 1:
        raise InputError(
            got=f"data.stage.language.least {least}", want="a probability, 0 to 1"
        )

    def score(document: Document) -> dict[str, float]:
        identify, known = identifier(model_path)
        unknown = [code for code in languages if code not in known]
        if unknown:
            raise InputError(
                got=f"data.stage.language.languages {', '.join(unknown)}",
                want=f"some of {', '.join(sorted(known))}",
            )
        text = document.text[:characters] if characters else document.text
        return dict(identify(" ".join(text.split()))[:_KEPT])

    def decide(scores: dict[str, float]) -> str:
        wanted = [scores.get(code, 0.0) for code in languages] or scores.values()
        if max(wanted, default=0.0) >= least:
            return ""
        among = ", ".join(languages) or "any language"
        return f"not {among} with probability {least:g}"

    def apply(document: Document) -> list[Document]:
        found = score(document)
        code = max(found, key=found.get, default="")
        meta = {"language": code, "language_probability": found.get(code, 0.0)}
        return [dataclasses.replace(document, meta=document.meta | meta)]

    reads = ("model_path", "characters")
    return Map(apply) if label else Tag(score, decide, reads)


@functools.cache
def identifier(model_path: str = "") -> tuple[Identify, frozenset[str]]:
    """What gives the languages of a line, the most probable first; all its codes."""
    identify, known = _fasttext(model_path) if model_path else _py3langid()
    return identify, frozenset(known)


def _py3langid() -> tuple[Identify, list[str]]:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise _missing("data") from error
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Of a text without any letter, it calls all languages alike.
    return lambda text: model.rank(text) if text else [], model.labels


def _fasttext(path: str) -> tuple[Identify, list[str]]:
    try:
        import fasttext
    except ModuleNotFoundError as error:
        raise _missing("fasttext") from error
    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise InputError(
            got=f"data.stage.language.model_path {path} ({error})",
            want="a fastText model that identifies languages",
        ) from error
    prefix = "__label__"

    def identify(text: str) -> list[tuple[str, float]]:
        if not text:
            return []
        labels, probabilities = model.predict(text, k=_KEPT)
        codes = (label.removeprefix(prefix) for label in labels)
        # In its own arithmetic, some are 1.00001.
        sure = (min(float(p), 1.0) for p in probabilities)
        return list(zip(codes, sure, strict=True))

    return identify, [label.removeprefix(prefix) for label in model.labels]


def _missing(extra: str) -> InputError:
    return InputError(
        got="data.stages with 'language' and no package that identifies languages",
        want=f"the extra {extra}",
        do=f"pip install -c constraints.txt -e .[{extra}]",
    )
