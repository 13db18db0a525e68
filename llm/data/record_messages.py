"""Messages of conversations in the forms that others write, as OpenAI has them.

Roles, contents in parts, calls of tools and their results, reasoning and weights come
out under one name each; what cannot be honoured is a ValueError that says so.

    message({"from": "gpt", "value": "hi"})     # {"role": "assistant", "content": "hi"}
"""

import json
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "model": "assistant", "developer": "system",
    "function": "tool", "observation": "tool", "tool_response": "tool",
    "ipython": "tool",
}  # fmt: skip
_CALLS = ("function_call", "tool_call")  # roles of ShareGPT whose content is a call
_REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
_WEIGHTS = ("weight", "train", "training", "loss")
_READ = {
    "role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id",
    "name", *_REASONING, *_WEIGHTS,
}  # fmt: skip


def conversation(
    messages: Any, system: str = "", unused: set[str] | None = None
) -> list[dict[str, Any]]:
    """Messages in our form, behind a system message where they have none.

    Args:
      unused: gets the names of the fields that are not read.

    Raises:
      ValueError: something that cannot be learned from.
    """
    if not isinstance(messages, list):
        raise ValueError(f"messages that are no list: {str(messages)[:40]!r}")
    made = []
    for number, one in enumerate(messages, start=1):
        if not isinstance(one, Mapping):
            raise ValueError(f"message {number} is no object: {str(one)[:40]!r}")
        try:
            made.append(message(one))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
        if unused is not None:
            unused.update(
                f"{name} of a message"
                for name in one
                if name not in _READ and one[name] not in (None, "", [], {})
            )
    starts = made and made[0]["role"] == "system"
    own = [{"role": "system", "content": system}] if system and not starts else []
    return [*own, *made]


def message(given: Mapping[str, Any]) -> dict[str, Any]:
    """One message in our form; ValueError for what cannot be honoured."""
    role = given.get("role", given.get("from"))
    content = given["content"] if "content" in given else given.get("value")
    calls = _calls(given)
    if role in _CALLS:
        role, content, calls = "assistant", None, _written_calls(content)
    role = _ROLES.get(role, role)
    if role not in ROLES:
        raise ValueError(f"role {str(role)[:40]!r}, not one of {', '.join(ROLES)}")
    made = {"role": role, "content": _content(content, bool(calls))}
    if calls:
        made["tool_calls"] = calls
    reasoning = {text(given[name], name) for name in _REASONING if given.get(name)}
    if len(reasoning) > 1:
        raise ValueError("two different texts of reasoning")
    if reasoning:
        made["reasoning_content"] = reasoning.pop()
    if role == "tool":
        kept = {n: given[n] for n in ("tool_call_id", "name") if given.get(n)}
        made |= kept
    weight = _weight(given)
    if weight is not None and role == "assistant":
        made["weight"] = weight
    elif weight:
        raise ValueError(f"a weight of {weight} for what the {role} says")
    return made


def tools(given: Any) -> list[dict[str, Any]]:
    """Definitions of functions, from a list or from JSON of one."""
    if isinstance(given, str):
        try:
            given = json.loads(given or "[]")
        except ValueError as error:
            raise ValueError(f"tools that are not JSON ({error})") from error
    if not isinstance(given, list) or not all(isinstance(t, Mapping) for t in given):
        raise ValueError("tools that are no list of objects")
    return [
        dict(tool)
        if "function" in tool
        else {"type": "function", "function": dict(tool)}
        for tool in given
    ]


def text(value: Any, name: str = "") -> str:
    """A text; ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{name + ' ' if name else ''}{value!r:.40} is no text")
    return value


def readable(message: Mapping[str, Any]) -> str:
    """What a person reads of a message."""
    parts = [message.get("reasoning_content"), message["content"]]
    parts += [
        json.dumps(call["function"], ensure_ascii=False)
        for call in message.get("tool_calls", ())
    ]
    return f"{message['role']}: " + "\n".join(part for part in parts if part)


def _content(content: Any, calls: bool) -> str | None:
    if content is None:
        if calls:
            return None
        raise ValueError("no content")
    if isinstance(content, list):
        return "".join(_part(part) for part in content)
    return text(content, "content")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise ValueError(f"a part of content of type {kind!r}: only texts are learned")
    return part["text"]


def _weight(given: Mapping[str, Any]) -> int | None:
    """0 or 1, None where the message has no weight."""
    weights = [given[name] for name in _WEIGHTS if given.get(name) is not None]
    if any(weight not in (0, 1) for weight in weights):
        raise ValueError(f"a weight of {weights[0]!r}: only 0 and 1 are honoured")
    return int(min(weights)) if weights else None


def _calls(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = given.get("tool_calls") or given.get("function_call") or []
    calls = [calls] if isinstance(calls, Mapping) else calls
    if not isinstance(calls, list):
        raise ValueError(f"tool calls that are no list: {str(calls)[:40]!r}")
    return [_call(call, number) for number, call in enumerate(calls)]


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call without a name: {str(call)[:40]!r}")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise ValueError(f"arguments of a tool call: {error}") from error
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments of a tool call: {str(arguments)[:40]!r}")
    return {
        # Nine letters or digits, as the strictest templates want it.
        "id": str(call.get("id") or f"call{number:05d}"),
        "type": "function",
        "function": {"name": function["name"], "arguments": dict(arguments)},
    }


def _written_calls(content: Any) -> list[dict[str, Any]]:
    try:
        calls = json.loads(text(content, "a call"))
    except ValueError as error:
        raise ValueError(f"a call that is not JSON ({error})") from error
    calls = calls if isinstance(calls, list) else [calls]
    return [_call(call, number) for number, call in enumerate(calls)]
