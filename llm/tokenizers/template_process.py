"""Renders chat templates in a process of their own, `llm/tokenizers/template_child.py`.

No limit within a process holds for everything that an expression can do: one call into
C can take hours or all memory. So the template works elsewhere, where the kernel ends
it; the next one finds a new process.

    rendered(template, messages, reply=True, tokens={}, marks=("<", ">"))
"""

import atexit
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from llm.corpus import child_process
from llm.errors import InputError, MachineError

_CHILD = pathlib.Path(__file__).with_name("template_child.py")


class _Child:
    """A process that renders, one request after the other."""

    def __init__(self):
        self._process = child_process.start(
            _CHILD,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="surrogatepass",
        )  # fmt: skip
        self.owner = os.getpid()
        if self._process.stdout.readline() != "ready\n":
            said = self._process.communicate()[1].strip().splitlines() or ["nothing"]
            raise MachineError(
                got=f"a process for chat templates that does not start ({said[-1]})",
                want="the package jinja2",
                do="pip install jinja2",
            )

    def answer(self, request: str) -> dict[str, str]:
        """What it makes of a line of JSON, or how it ended."""
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        code = self._process.wait()
        self.stop()
        if code == -signal.SIGVTALRM:
            return {"endless": "its time is over"}
        return {"endless": f"its process ended with {code}"}

    @property
    def alive(self) -> bool:
        """Whether it can be asked, by this process: a fork has none of its own."""
        return self.owner == os.getpid() and self._process.poll() is None

    def stop(self) -> None:
        """Ends it, if it is ours."""
        if self.owner != os.getpid():
            return
        self._process.kill()
        with contextlib.suppress(OSError):
            self._process.communicate()


_lock = threading.Lock()
_child: _Child | None = None


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
      tokens: what the template reads by name: `bos_token` and the like, and variables.
      tokens: `bos_token`, `eos_token` and the like, as the template writes them.
      date: today, as YYYY-MM-DD, for a template that writes it; '' is today.

    Raises:
      InputError: no template, one that refuses the messages, or that does not end.
      MachineError: the process that renders does not start.
    """
    global _child
    request = json.dumps(
        {
            "template": template,
            "messages": [dict(message) for message in messages],
            "reply": reply,
            "tools": [dict(tool) for tool in tools],
            "tokens": dict(tokens),
            "marks": marks,
            "date": date,
        }
    )
    with _lock:
        if _child is None or not _child.alive:
            _child = _Child()
            atexit.register(_child.stop)
        answer = _child.answer(request)
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
