"""Renders chat templates in a process of their own, `llm/tokenizers/template_child.py`.

No limit within a process holds for everything that an expression can do: one call into
C can take hours or all memory. So the template works elsewhere, where the kernel ends
it; the next one finds a new process.

    rendered(template, messages, reply=True, tokens={}, marks=("<", ">"))
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from llm.child_process import Child, Limits, Outcome, Verdict
from llm.errors import InputError, MachineError

_CHILD = pathlib.Path(__file__).with_name("template_child.py")
MEMORY = 1 << 30  # bytes of the process
SECONDS = 1.0  # of its own time, for a rendering
_child = Child(_CHILD, Limits(cpu_seconds=SECONDS, memory_bytes=MEMORY))


def rendered(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    reply: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    tokens: Mapping[str, Any],
    marks: tuple[str, str],
    date: str = "",
) -> str:
    """The text of messages, with marks around what stands in `{% generation %}`.

    Args:
      reply: whether it ends where the assistant's answer begins.
      tokens: what the template reads by name: `bos_token`, `eos_token` and the like,
        as it writes them, and variables.
      date: today, as YYYY-MM-DD, for a template that writes it; '' is today.

    Raises:
      InputError: no template, one that refuses the messages, or that does not end.
      MachineError: the process that renders does not start.
    """
    verdict = _child.ask(
        template=template,
        messages=[dict(message) for message in messages],
        reply=reply,
        tools=[dict(tool) for tool in tools],
        tokens=dict(tokens),
        marks=marks,
        date=date,
    )
    if verdict.outcome is Outcome.NOT_STARTED:
        raise MachineError(
            got=f"a process for chat templates that does not start ({verdict.message})",
            want="the package jinja2",
            do="pip install jinja2",
        )
    answer = verdict.value if verdict.outcome is Outcome.ANSWERED else _limit(verdict)
    if "text" in answer:
        return answer["text"]
    if "broken" in answer:
        raise InputError(
            got=f"a chat template that is no Jinja ({answer['broken']})",
            want="one that is",
        )
    if "endless" in answer:
        raise InputError(
            got=f"a chat template that does not end: {answer['endless']}",
            want="one that is done within a second",
        )
    raise InputError(
        got=f"messages that the chat template refuses ({answer['refused']})",
        want="roles and contents as it has them",
    )


def _limit(verdict: Verdict) -> dict[str, str]:
    if verdict.outcome is Outcome.TIMED_OUT:
        return {"endless": "its time is over"}
    if verdict.outcome is Outcome.OUT_OF_MEMORY:
        return {"endless": f"it took more than {MEMORY >> 20:,} MiB"}
    return {"endless": f"its process ended with {verdict.exit_code}"}
