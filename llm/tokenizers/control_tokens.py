"""Control tokens that people type are text: `<|im_end|>` in a message ends nothing.

The library `tokenizers` makes an id of every control token that is spelled out in a
text. Here a text is encoded by a copy of the tokenizer that knows none of them, and
what a chat template writes by the whole tokenizer, in which messages are shielded: a
mark before each letter of a spelling that a person typed, which goes when the text is
encoded. Tags that are no control tokens, such as <think>, are text where a user types
them, and tokens where an assistant writes them.

    plain = ordinary(tokenizer_json)         # for texts
    shielded(message, spellings)             # for what a template is given
"""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from llm.errors import InputError
from llm.tokenizers.chat_template import mark

SHIELD = mark("text")
_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|◁[^\s◁▷]+▷")
_NEVER_TYPED = "\ue000"
# Names that templates look for, not words of a person.
_STRUCTURE = re.compile(
    "role|content|type|text|function|name|arguments|parameters|properties|required"
    "|description|tool_calls|tool_call_id|id|items|enum|weight"
)


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


def normalised(held: Mapping[str, Any]) -> bool:
    """Whether other spellings, such as capitals, become control tokens too."""
    flags = (token.get("normalized") for token in held.get("added_tokens") or ())
    return bool(held.get("normalizer")) and any(flags)


def ordinary(
    held: Mapping[str, Any], *, inside: bool = False, tags: bool = True
) -> dict[str, Any]:
    """A tokenizer.json that takes the spellings of control tokens for text.

    Args:
      inside: for a piece that stands behind a control token, not at a beginning.
      tags: whether tags stay tokens.
    """
    made = copy.deepcopy(dict(held))
    control, others = spellings(held)
    control = set(control) if tags else {*control, *others}
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
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if not _makes(m, hidden)]
    return _unprefixed(made) if inside else made


def _makes(merge: Any, hidden: set[str]) -> bool:
    """Whether a merge makes or takes one of the pieces."""
    one, other = merge.split(" ") if isinstance(merge, str) else merge
    return not hidden.isdisjoint((one, other, one + other))


def shielded(value: Any, pattern: re.Pattern | None) -> Any:
    """Texts and names, however deep, with marks in what the pattern finds."""
    if pattern is None:
        return value
    if isinstance(value, str):
        return pattern.sub(lambda match: SHIELD + SHIELD.join(match[0]), value)
    if isinstance(value, Mapping):
        return {
            name if _STRUCTURE.fullmatch(name) else shielded(name, pattern): part
            if name == "role"
            else shielded(_parsed(name, part), pattern)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [shielded(part, pattern) for part in value]
    return value


def _parsed(name: Any, part: Any) -> Any:
    """Arguments of a call without their JSON, whose escapes would hide a spelling."""
    if name == "arguments" and isinstance(part, str):
        try:
            made = json.loads(part)
        except (ValueError, RecursionError):
            return part  # which is refused where it is read
        return made if isinstance(made, dict) else part
    return part


def check_whole(text: str) -> None:
    """Raises InputError for a text whose template has changed the marks in it."""
    rest = text.replace(SHIELD, "").lower()
    secret = SHIELD.split()[1].rstrip(">").lower()
    if secret in rest or secret[::-1] in rest:
        raise InputError(
            got="a chat template that changes the letters of messages, in which "
            "control tokens are spelled out",
            want="messages without them, or a template that writes them as they are",
        )


def any_of(texts) -> re.Pattern | None:
    """A pattern of all the texts, the longest first; None for no text."""
    ordered = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def unshielded(texts) -> re.Pattern | None:
    """As `any_of`, of what nobody typed."""
    pattern = any_of(texts)
    before = f"(?<!{re.escape(SHIELD)})"
    return pattern and re.compile(f"{before}(?:{pattern.pattern})")


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
