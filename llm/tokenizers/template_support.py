"""What a chat template writes, found by rendering small conversations with it.

Templates differ in what they read: contents as texts or as lists of parts, arguments of
tool calls as objects or as JSON, reasoning under one of four names. Some leave out in
silence what they do not know, such as a system message. So each template is tried once
with words that nothing else holds; whoever has something to say that it would leave out
is refused.

    support = of(template, tokens=())
    messages = adapted(messages, tools, support)
"""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm.errors import InputError, MachineError
from llm.tokenizers.template_process import rendered

REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
_USER, _ANSWER, _SYSTEM, _REASONS = "quagga", "okapi", "kinkajou", "pangolin"
_LATER = "tamandua"
_TOOL, _KEY, _VALUE, _RESULT = "axolotl", "dugong", "numbat", "fossa"
_DEFINITION = {
    "type": "function",
    "function": {
        "name": _TOOL,
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": ""}},
            "required": ["city"],
        },
    },
}


class Support(NamedTuple):
    """How a template wants its messages, and what it writes of them.

    Attributes:
      parts: whether contents are lists of {"type": "text", "text": ...}.
      system: whether a system message at the beginning is written.
      lost: places of another system message, as `_PLACES` has them, at which it or
        the one at the beginning is left out.
      tools: whether definitions of tools are.
      calls: whether tool calls and their results are.
      reasoning: the field for the reasoning before an answer; '' if it is left out.
      nothing: the content of a message that only calls tools.
      json: whether arguments of calls are JSON texts, not objects.
    """

    parts: bool = False
    system: bool = True
    lost: frozenset[tuple[bool, str]] = frozenset()
    tools: bool = True
    calls: bool = True
    reasoning: str = REASONING[0]
    nothing: str | None = None
    json: bool = False


@functools.lru_cache(maxsize=64)
def of(template: str, tokens: tuple[tuple[str, str], ...]) -> Support:
    """What a template writes; all of it if it refuses the plainest question, which the
    rendering of the real messages then reports."""
    base, asked = Support(), [{"role": "user", "content": _USER}]

    def tried(messages, support=base, tools=()) -> str | None:
        """The text, or None if the template refuses: a refusal is not silent."""
        try:
            return rendered(
                template,
                _formed(messages, support),
                reply=False,
                tools=tools,
                tokens=dict(tokens),
                marks=("", ""),
            )
        except MachineError:
            raise
        except InputError:
            return None

    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    for parts in (False, True):
        base = base._replace(parts=parts)
        text = tried(answered, base)
        if text and _USER in text and _ANSWER in text:
            break
    else:
        return Support()

    def written(word, messages, tools=()):
        text = tried(messages, base, tools)
        return text is None or word in text

    def keeps(leads, behind):
        text = tried(_with_systems(leads, behind, answered), base)
        return text is None or (_LATER in text and (not leads or _SYSTEM in text))

    reasoned = (
        name
        for name in REASONING
        if _REASONS in (tried([*asked, answered[1] | {name: _REASONS}], base) or "")
    )
    base = base._replace(
        system=written(_SYSTEM, [{"role": "system", "content": _SYSTEM}, *answered]),
        lost=frozenset(place for place in _PLACES if not keeps(*place)),
        tools=written(_TOOL, asked, [_DEFINITION]),
        reasoning=next(reasoned, ""),
    )
    refused = True
    for as_json in (False, True):
        forms = [base._replace(json=as_json, nothing=nothing) for nothing in (None, "")]
        with_none, with_text = (tried(_CALL, form, [_DEFINITION]) for form in forms)
        refused &= with_none is None and with_text is None
        # An absent content is what most templates ask for; some write it as 'None'.
        says = (with_none or "").count("None") > (with_text or "").count("None")
        if with_none and not says and _faithful(with_none):
            return forms[0]
        if with_text and _faithful(with_text):
            return forms[1]
    return base._replace(calls=refused)


_CALL = (
    {"role": "user", "content": _USER},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "abcdef123",
                "type": "function",
                "function": {"name": _TOOL, "arguments": {_KEY: _VALUE}},
            }
        ],
    },
    {"role": "tool", "content": _RESULT, "tool_call_id": "abcdef123", "name": _TOOL},
    {"role": "assistant", "content": _ANSWER},
)


# Whether a system message leads, and behind what another one stands.
_PLACES = (
    (True, "system"), (True, "user"), (True, "assistant"),
    (False, "user"), (False, "assistant"),
)  # fmt: skip


def _with_systems(leads: bool, behind: str, answered) -> list[dict[str, Any]]:
    later = {"role": "system", "content": _LATER}
    first = [{"role": "system", "content": _SYSTEM}] if leads else []
    if behind == "system":
        return [*first, later, *answered]
    if behind == "user":
        return [*first, answered[0], later, answered[1]]
    return [*first, *answered, later, *answered]


def _places(messages: Sequence[Mapping[str, Any]]) -> set[tuple[bool, str]]:
    """Where system messages stand that are not the first message."""
    roles = [message["role"] for message in messages]
    before = {"tool": "assistant"}
    return {
        (roles[0] == "system", before.get(one, one))
        for one, role in itertools.pairwise(roles)
        if role == "system"
    }


def _faithful(text: str) -> bool:
    """Whether a call and its result are there, neither as Python writes a dict, nor as
    JSON within JSON."""
    return (
        all(word in text for word in (_VALUE, _RESULT, _ANSWER))
        and f"'{_KEY}'" not in text
        and f'\\"{_KEY}' not in text
    )


def adapted(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    support: Support,
) -> list[dict[str, Any]]:
    """The messages as a template reads them.

    Raises:
      InputError: something that it would leave out.
    """
    roles = {message["role"] for message in messages}
    lacking = {
        "a system message": messages[:1]
        and messages[0]["role"] == "system"
        and not support.system,
        "a system message behind the first message, or the first beside it": bool(
            _places(messages) & support.lost
        ),
        "definitions of tools": bool(tools) and not support.tools,
        "tool calls or results": not support.calls
        and ("tool" in roles or any(m.get("tool_calls") for m in messages)),
        "reasoning_content": not support.reasoning
        and any(m.get("reasoning_content") for m in messages),
    }
    for what, lacks in lacking.items():
        if lacks:
            raise InputError(
                got=f"{what}, which this chat template leaves out",
                want="messages that it writes whole",
                do="use another tokenizer.chat_template, or take it out of the records"
                + (" or into the content" if "reasoning" in what else ""),
            )
    return _formed(messages, support)


def _formed(messages, support: Support) -> list[dict[str, Any]]:
    formed = []
    for message in messages:
        new = {name: value for name, value in message.items() if name != "weight"}
        if new.get("content") is None:
            new["content"] = support.nothing
        elif support.parts:
            new["content"] = [{"type": "text", "text": new["content"]}]
        if "reasoning_content" in new:
            new[support.reasoning or REASONING[0]] = new.pop("reasoning_content")
        if "tool_calls" in new:
            new["tool_calls"] = [_call(call, support) for call in new["tool_calls"]]
        formed.append(new)
    return formed


def _call(call: Mapping[str, Any], support: Support) -> dict[str, Any]:
    """A tool call with its arguments as an object, or as JSON."""
    function = dict(call["function"])
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise InputError(
                got=f"arguments of the tool call {function.get('name')!r} that are not "
                f"JSON ({error})",
                want="a JSON object",
            ) from error
    if support.json:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
