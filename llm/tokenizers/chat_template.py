"""Conversations as text: Jinja templates, rendered in a process with limits.

A template may come with a model from anywhere, so it gets no more than messages and
tools, may not call into Python, and has a time and a memory in which to finish. A
`View` is one conversation under one template: the text that an answer follows, and the
text up to any message. `llm/tokenizers/answer_spans.py` finds the answers in it.

    text = prompt(TEMPLATES["chatml"], [{"role": "user", "content": "hi"}])
"""

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from llm.errors import InputError
from llm.tokenizers import template_support
from llm.tokenizers.template_process import rendered

Message = Mapping[str, Any]

_SECRET = secrets.token_hex(8)
_ROLE = "{{ message['role'] }}"
_ANSWER = "message['role'] == 'assistant'"
# What an assistant says: its reasoning, its words, and its calls of tools as Qwen and
# Hermes write them.
_SAID = (
    "{% if message['reasoning_content'] %}"
    "{{ '<think>\n' + message['reasoning_content'] + '\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '\n' if message['content'] or not loop.first }}"
    "{{ '<tool_call>\n' + {'name': call['function']['name'], "
    "'arguments': call['function']['arguments']} | tojson + '\n</tool_call>' }}"
    "{% endfor %}"
)
_TOOLS = (
    "You may call these functions, each call as "
    '<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>:'
    "{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}"
)

# Of the model families they are named for; `plain` needs no tokens of its own, only an
# end of texts, and is what a tokenizer of ours is given.
TEMPLATES = {
    "plain": (
        "{{ bos_token }}"
        f"{{% if tools %}}### system\n{_TOOLS}\n{{% endif %}}"
        "{% for message in messages %}"
        f"### {_ROLE}\n"
        f"{{% if {_ANSWER} %}}"
        f"{{% generation %}}{_SAID}{{{{ eos_token }}}}{{% endgeneration %}}"
        "{% else %}{{ message['content'] }}{% endif %}"
        "{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
    ),
    "chatml": (
        f"{{% if tools %}}<|im_start|>system\n{_TOOLS}<|im_end|>\n{{% endif %}}"
        "{% for message in messages %}"
        f"<|im_start|>{_ROLE}\n"
        f"{{% if {_ANSWER} %}}"
        f"{{% generation %}}{_SAID}{{{{ '<|im_end|>' }}}}{{% endgeneration %}}"
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


@dataclasses.dataclass(frozen=True)
class View:
    """A conversation under one template.

    Attributes:
      messages: as `template_support.adapted` leaves them.
      tools: definitions of functions, as OpenAI has them.
      tokens: `bos_token`, `eos_token` and the like, as the template writes them, and
        variables that it reads, such as `enable_thinking`.
      date: what `strftime_now` of a template takes for today; '' is today.
    """

    template: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tokens: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    date: str = ""

    def prompt(self, count: int) -> str:
        """The text before the assistant's answer to the first `count` messages."""
        return self._run(self.messages[:count], reply=True)[0]

    def whole(self, count: int) -> tuple[str, list[range]]:
        """The text of the first `count` messages, and what is in generation marks."""
        return self._run(self.messages[:count], reply=False)

    def followed(self, count: int, answer: str, question: str) -> str:
        """The text of the first `count` messages, an answer to them and a question."""
        talk = [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": question},
        ]
        support = template_support.of(self.template, _sorted(self.tokens))
        talk = template_support.adapted(talk, (), support)
        return self._run((*self.messages[:count], *talk), reply=False)[0]

    def _run(self, messages: Sequence[Message], reply: bool) -> tuple[str, list[range]]:
        marked = rendered(
            self.template,
            messages,
            reply=reply,
            tools=self.tools,
            tokens=self.tokens,
            marks=(_OPEN, _CLOSE),
            date=self.date,
        )
        return _unmarked(marked)


def view(
    template: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    tokens: Mapping[str, Any] | None = None,
    date: str = "",
) -> View:
    """A conversation in the form that the template reads.

    Raises:
      InputError: messages of another form, or something in them that the template does
        not write, such as calls of tools.
    """
    _check(messages)
    support = template_support.of(template, _sorted(tokens or {}))
    adapted = template_support.adapted(messages, tools, support)
    return View(template, tuple(adapted), tuple(tools), tokens or {}, date)


def prompt(
    template: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    tokens: Mapping[str, Any] | None = None,
    date: str = "",
) -> str:
    """The text of a conversation, up to where the assistant's next answer begins.

    Raises:
      InputError: as `view`, or a template that does not take the messages, or takes too
        long.
    """
    made = view(template, messages, tools=tools, tokens=tokens, date=date)
    return made.prompt(len(messages))


def _sorted(tokens: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(tokens.items()))


def _check(messages: Sequence[Message]) -> None:
    for number, message in enumerate(messages, start=1):
        fits = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if fits and message.get("content") is None:
            fits = bool(message.get("tool_calls"))
        elif fits:
            fits = isinstance(message["content"], str)
        if not fits:
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
