"""Control tokens that people type are text: `<|im_end|>` in a message ends nothing.

The library `tokenizers` makes an id of every control token that is spelled out in a
text. Here a text is encoded by a copy of the tokenizer that knows none of them, and
what a chat template writes by the whole tokenizer, in which messages are shielded: a
mark inside each spelling that a person typed, which goes when the text is encoded.

    plain = ordinary(tokenizer_json)         # for texts
    shielded(message, spellings)             # for what a template is given
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from llm.data.chat_template import mark

SHIELD = mark("text")
_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
_NEVER_TYPED = "\ue000"


def spellings(held: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Control tokens of a tokenizer.json, and added tokens that only look like tags.

    The second, such as <think>, are what an assistant may write itself.
    """
    control, tags = [], []
    for token in held.get("added_tokens") or ():
        text = token["content"]
        if token.get("special") or _CONTROL.fullmatch(text):
            control.append(text)
        elif _TAG.fullmatch(text):
            tags.append(text)
    return control, tags


def ordinary(held: Mapping[str, Any], *, inside: bool = False) -> dict[str, Any]:
    """A tokenizer.json that takes the spellings of control tokens for text.

    Args:
      inside: for a piece that stands behind a control token, not at a beginning.
    """
    made = copy.deepcopy(dict(held))
    control = set(spellings(held)[0])
    made["added_tokens"] = [
        token for token in made["added_tokens"] if token["content"] not in control
    ]
    # Some vocabularies hold them as pieces too, which a text must not match.
    model = made["model"]
    hidden = control - {model.get("unk_token")}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {_hide(p, hidden): i for p, i in vocabulary.items()}
    else:
        model["vocab"] = [[_hide(p, hidden), score] for p, score in vocabulary]
    return _unprefixed(made) if inside else made


def shielded(value: Any, pattern: re.Pattern | None) -> Any:
    """Texts, however deep in lists and dicts, with a mark in what the pattern finds."""
    if pattern is None:
        return value
    if isinstance(value, str):
        return pattern.sub(lambda found: found[0][0] + SHIELD + found[0][1:], value)
    if isinstance(value, Mapping):
        return {name: shielded(part, pattern) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [shielded(part, pattern) for part in value]
    return value


def any_of(texts) -> re.Pattern | None:
    """A pattern of all the texts, the longest first; None for no text."""
    ordered = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _hide(piece: str, hidden: set[str]) -> str:
    return _NEVER_TYPED + piece if piece in hidden else piece


def _unprefixed(value: Any) -> Any:
    """Metaspace puts its space before the first piece of a text alone."""
    if isinstance(value, dict):
        return {
            name: "never"
            if (name, part) == ("prepend_scheme", "first")
            else _unprefixed(part)
            for name, part in value.items()
        }
    return [_unprefixed(part) for part in value] if isinstance(value, list) else value
