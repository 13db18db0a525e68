"""Conversations as text: Jinja templates, rendered in a sandbox with limits.

A template may come with a model from anywhere, so it gets no more than messages, may
not call into Python, and has a time and a size in which to finish. What it writes
inside `{% generation %}` is what an assistant says, and what is learned; of a template
without these marks, that is found by rendering ever longer conversations: the text up
to an answer must begin the text with it.

    text, spans = render(TEMPLATES["chatml"], messages)
    text[spans[0].start : spans[0].stop]        # the first answer and its end mark
"""

import datetime
import json
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llm.errors import InputError

Message = Mapping[str, Any]

_SECONDS, _CHARACTERS = 2.0, 4_000_000  # of one rendering, beside what it is given
_WIDEST = 100_000  # number that a function of a text is given
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
    return _unmarked(_run(_compiled(template), messages, True, tokens or {}))[0]


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
    compiled = _compiled(template)
    marked = _run(compiled, messages, False, tokens or {})
    text, spans = _unmarked(marked)
    if spans or not any(m["role"] == "assistant" for m in messages):
        return text, spans
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _run(compiled, messages[:number], True, tokens or {})
        after = _run(compiled, messages[: number + 1], False, tokens or {})
        if not (after.startswith(before) and text.startswith(after.rstrip())):
            raise InputError(
                got="a chat template in which an answer is not what follows its prompt",
                want="answers that are marked",
                do="put {% generation %} and {% endgeneration %} around them",
            )
        spans.append(range(len(before), len(after.rstrip())))
    return text, spans


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


def _compiled(template: str) -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Puts marks around what stands in `{% generation %}`."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_marked")
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _marked(self, caller):
            return _OPEN + caller() + _CLOSE

    class Environment(ImmutableSandboxedEnvironment):
        """Also bounds what one expression makes, before it is made."""

        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context, operator, left, right):
            number = all(isinstance(x, (int, float)) for x in (left, right))
            if operator == "**" or not number:
                raise TemplateError(f"no {operator} of {left!r:.20} and {right!r:.20}")
            return super().call_binop(context, operator, left, right)

        def call(self, context, call, /, *args, **kwargs):
            _bounded(getattr(call, "__self__", ""), (*args, *kwargs.values()))
            return super().call(context, call, *args, **kwargs)

    def _bounded(owner, given):
        """Refuses widths and replacements that make much of little."""
        widest = max((abs(x) for x in given if isinstance(x, int)), default=0)
        texts = [len(x) for x in given if isinstance(x, str)]
        grown = len(owner) * max(texts, default=0) if isinstance(owner, str) else 0
        if widest > _WIDEST or grown > 16 * _CHARACTERS:
            raise TemplateError("what would be too long a text")

    def filtered(name):
        held = environment.filters[name]

        def bounded(*given, **named):
            own = [x for x in given if isinstance(x, str)]
            _bounded(own[0] if own else "", (*given, *named.values()))
            return held(*given, **named)

        return bounded

    def refuse(message):
        raise TemplateError(message)

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", Generation],
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, indent=indent, ensure_ascii=False
    )
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    for name in ("center", "indent", "wordwrap"):
        environment.filters[name] = filtered(name)
    for name in ("format", "filesizeformat", "pprint", "xmlattr", "urlize", "random"):
        del environment.filters[name]
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(
        form
    )
    try:
        return environment.from_string(template)
    except (TemplateError, RecursionError) as error:
        raise InputError(
            got=f"a chat template that is no Jinja ({error})", want="one that is"
        ) from error


def _run(compiled, messages, reply, tokens) -> str:
    from jinja2 import TemplateError

    most = _CHARACTERS + 4 * sum(len(m["content"]) for m in messages)
    made, size = [], 0
    try:
        with _Deadline(_SECONDS):
            for part in compiled.generate(
                messages=list(messages), add_generation_prompt=reply, tools=None,
                **tokens,
            ):  # fmt: skip
                made.append(part)
                size += len(part)
                if size > most:
                    raise TimeoutError(f"it wrote more than {most:,} characters")
    except TimeoutError as error:
        raise InputError(
            got=f"a chat template that does not end: {error}",
            want=f"one that is done in {_SECONDS:.0f} seconds",
        ) from error
    except (
        TemplateError, LookupError, TypeError, ValueError, ArithmeticError,
        AttributeError, RecursionError,
    ) as error:  # fmt: skip
        raise InputError(
            got=f"messages that the chat template refuses ({error})",
            want="roles and contents as it has them",
        ) from error
    return "".join(made)


class _Deadline:
    """Raises TimeoutError in the template's own lines once the time is over.

    A thread cannot be killed and a signal reaches only the main one; a trace function
    is called at every line of a template, in whatever thread renders it.
    """

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _call(self, frame, event, argument):
        return self._line if frame.f_code.co_filename == "<template>" else None

    def _line(self, frame, event, argument):
        if time.monotonic() > self._end:
            raise TimeoutError("its time is over")
        return self._line
