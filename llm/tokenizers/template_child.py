"""The process in which chat templates are rendered, within limits.

Started by `llm/tokenizers/template_process.py`, never imported. A template may come
with a model from anywhere: it gets no more than messages, Jinja's sandbox keeps it from
calling into Python, and what it uses of memory and of time is bounded by the kernel,
wherever it spends it: this process ends, and no other.
"""

import datetime
import functools
import json

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHARACTERS = 4_000_000  # of one rendering, beside what it is given
# What an expression of a template can raise, beside MemoryError.
_REFUSED = (
    TemplateError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError,
    RecursionError,
)  # fmt: skip


class Generation(Extension):
    """Puts marks around what stands in `{% generation %}`."""

    tags = {"generation"}

    def parse(self, parser):
        """The body as a call of `_marked`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller):
        first, last = self.environment.globals["_marks"]
        return first + caller() + last


def _raise(message):
    raise TemplateError(message)


@functools.lru_cache(maxsize=64)
def compiled(template, marks, date):
    """A template that is ready to be rendered; TemplateError for none."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["_marks"] = marks
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = functools.partial(_strftime_now, date)
    return environment.from_string(template)


# The arguments that templates of Hugging Face models give it.
def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(date, form):
    now = datetime.datetime.fromisoformat(date) if date else datetime.datetime.now()
    return now.strftime(form)


def answer(template, messages, reply, tools, tokens, marks, date):
    """What a template makes of messages, as {"text"}, or why not, as another key."""
    try:
        ready = compiled(template, tuple(marks), date)
    except (TemplateError, RecursionError, MemoryError) as error:
        return {"broken": str(error)}
    most = CHARACTERS + 4 * len(json.dumps([messages, tools], ensure_ascii=False))
    made, size = [], 0
    try:
        for part in ready.generate(
            messages=messages,
            add_generation_prompt=reply,
            tools=tools or None,
            documents=None,
            **tokens,
        ):
            made.append(part)
            size += len(part)
            if size > most:
                return {"endless": f"it wrote more than {most:,} characters"}
        return {"text": "".join(made)}
    except _REFUSED as error:
        return {"refused": str(error)[:1000]}
