"""Conversations as text: Jinja templates, rendered in a process with limits.

A template may come with a model from anywhere, so it gets no more than messages, may
not call into Python, and has a time and a memory in which to finish. What it writes
inside `{% generation %}` is what an assistant says, and what is learned; of a template
without these marks, that is found by rendering ever longer conversations: the text up
to an answer must begin the text with it.

    text, spans = render(TEMPLATES["chatml"], messages)
    text[spans[0].start : spans[0].stop]        # the first answer and its end mark
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from llm.data.template_process import rendered
from llm.errors import InputError

Message = Mapping[str, Any]

_SECRET = secrets.token_hex(8)
_ROLE = "{{ message['role'] }}"
_ANSWER = "message['role'] == 'assistant'"

# Of the model families they are named for; `plain` needs no tokens of its own, only an
# end of texts, and is what a tokenizer of ours is given.
TEMPLATES = {
    "plain": (
        "{{ bos_token }}{% for message in messages %}"
        f"### {_ROLE}\n"
        f"{{% if {_ANSWER} %}}"
        "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
        "{% else %}{{ message['content'] }}{% endif %}"
        "{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}"
        f"<|im_start|>{_ROLE}\n"
        f"{{% if {_ANSWER} %}}"
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
        "{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for message in messages %}"
        f"<|start_header_id|>{_ROLE}<|end_header_id|>\n\n"
        f"{{% if {_ANSWER} %}}"
        "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}"
        "{% endgeneration %}"
        "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}"
        "{{ raise_exception('Gemma knows no system role') }}{% endif %}"
        f"{{% if {_ANSWER} %}}"
        "{{ '<start_of_turn>model\n' }}"
        "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}"
        "{% endgeneration %}"
        f"{{% else %}}<start_of_turn>{_ROLE}\n"
        "{{ message['content'] | trim + '<end_of_turn>' }}{% endif %}"
        "{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
}


def mark(name: str) -> str:
    """What no message holds: nobody who writes one can know it; new in each process."""
    return f"<{name} {_SECRET}>"


_OPEN, _CLOSE = mark("answer"), mark("/answer")


def prompt(
    template: str,
    messages: Sequence[Message],
    *,
    tokens: Mapping[str, str] | None = None,
) -> str:
    """The text of a conversation, up to where the assistant's next answer begins.

    Args:
      tokens: `bos_token`, `eos_token` and the like, as the template writes them.

    Raises:
      InputError: as `render`, but answers need not be told from the rest.
    """
    _check(messages)
    return _unmarked(_run(template, messages, True, tokens))[0]


def render(
    template: str,
    messages: Sequence[Message],
    *,
    tokens: Mapping[str, str] | None = None,
) -> tuple[str, list[range]]:
    """The text of a whole conversation, and where in it the assistant speaks.

    Args:
      tokens: `bos_token`, `eos_token` and the like, as the template writes them.

    Raises:
      InputError: messages of another form, a template that does not take them, takes
        too long, or in which answers cannot be told from the rest.
    """
    _check(messages)
    text, spans = _unmarked(_run(template, messages, False, tokens))
    if spans or not any(m["role"] == "assistant" for m in messages):
        return text, spans
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _run(template, messages[:number], True, tokens)
        after = _run(template, messages[: number + 1], False, tokens)
        if not (after.startswith(before) and text.startswith(after.rstrip())):
            raise InputError(
                got="a chat template in which an answer is not what follows its prompt",
                want="answers that are marked",
                do="put {% generation %} and {% endgeneration %} around them",
            )
        spans.append(range(len(before), len(after.rstrip())))
    return text, spans


def _run(template, messages, reply, tokens) -> str:
    return rendered(
        template, messages, reply=reply, tokens=tokens or {}, marks=(_OPEN, _CLOSE)
    )


def _check(messages: Sequence[Message]) -> None:
    for number, message in enumerate(messages, start=1):
        fits = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if not fits or not isinstance(message.get("content"), str):
            raise InputError(
                got=f"message {number}: {str(message)[:80]}",
                want='{"role": ..., "content": ...}, both texts',
            )


def _unmarked(marked: str) -> tuple[str, list[range]]:
    text, spans, start = [], [], 0
    length = 0
    for part in re.split(f"({re.escape(_OPEN)}|{re.escape(_CLOSE)})", marked):
        if part == _OPEN:
            start = length
        elif part == _CLOSE:
            spans.append(range(start, length))
        else:
            text.append(part)
            length += len(part)
    return "".join(text), spans
