"""The main text of HTML pages, made in a process of its own that may hang or die.

A page can be made so that a parser takes hours (100,000 elements in each other) or all
memory. So pages are read elsewhere, `llm/corpus/extract_child.py`, one after the other,
each with a limit of time; a process that is over it is ended, and the next page finds a
new one. resiliparse is fast; trafilatura takes twenty times as long and drops more of
what is not the article. The charset is that of the response, if there is one of that
name, else of the page, else guessed.

    with extract.pages("resiliparse", seconds=10) as page:
        page(b"<p>Hello.</p>")  ->  {"text": "Hello.", "language": "", "licence": ""}
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Callable, Iterator

from llm.corpus import child_process
from llm.errors import InputError
from llm.knobs import Count
from llm.text import languages

EXTRACTORS = ("resiliparse", "trafilatura")
_CHILD = pathlib.Path(__file__).with_name("extract_child.py")

Page = Callable[..., dict[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs:
    """The knobs of every source of pages."""

    path: str = ""  # a file, or a folder of them
    # resiliparse (fast) or trafilatura (drops more around the article)
    extractor: str = "resiliparse"
    seconds: float = 10.0  # a page that takes longer is left out
    max_page_bytes: int = 8 * 2**20  # so is a larger one
    max_documents: Count = 0  # the first so many; 0 takes all

    def __post_init__(self):
        _check_known(self.extractor)


def _check_known(extractor: str) -> None:
    if extractor not in EXTRACTORS:
        raise InputError(got=f"extractor {extractor!r}", want=" or ".join(EXTRACTORS))


def check(extractor: str) -> None:
    """Raises InputError for an extractor that is not known or not installed."""
    _check_known(extractor)
    # justext, which trafilatura asks, lacks the last without saying so.
    cleaner = {"lxml_html_clean"} if extractor == "trafilatura" else set()
    for needed in sorted({"resiliparse", extractor} | cleaner):
        if importlib.util.find_spec(needed) is None:
            raise InputError(
                got=f"no package {needed}",
                want="the extra `data`",
                do=f"pip install 'llm-lifecycle[data]', or {needed} alone",
            )


@contextlib.contextmanager
def pages(extractor: str, seconds: float) -> Iterator[Page]:
    """A function from (html, charset="") to the text, or to {"refused": why}."""
    check(extractor)
    child: list[subprocess.Popen] = []

    def page(html: bytes, charset: str = "") -> dict[str, str]:
        if not child:
            child.append(_start())
        asked = {"bytes": len(html), "charset": charset, "extractor": extractor}
        answer = _ask(child[0], json.dumps(asked).encode() + b"\n" + html, seconds)
        if answer is not None:
            if answer.get("language"):
                answer["language"] = languages.code(answer["language"])
            return answer
        code = child[0].poll()
        _end(child.pop())
        why = f"takes over {seconds:g} s" if code is None else "ends its process"
        return {"refused": why}

    try:
        yield page
    finally:
        while child:
            _end(child.pop())


def _start() -> subprocess.Popen:
    child = child_process.start(
        _CHILD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    if child.stdout.readline() != b'"ready"\n':
        _end(child)
        raise InputError(
            got="a process for pages that does not start",
            want="memory and processes to be had",
            do="see ulimit -a",
        )
    os.set_blocking(child.stdin.fileno(), False)
    return child


def _ask(child: subprocess.Popen, request: bytes, seconds: float):
    """Its answer; None when it ended or the time is over."""
    until, left, got = time.monotonic() + seconds, memoryview(request), bytearray()
    reads, writes = [child.stdout], [child.stdin]
    while not got.endswith(b"\n"):
        rest = until - time.monotonic()
        can_read, can_write, _ = select.select(
            reads, writes if left else [], [], max(rest, 0)
        )
        if not can_read and not can_write:
            return None
        if can_write:
            try:
                left = left[os.write(child.stdin.fileno(), left[: 2**16]) :]
            except BrokenPipeError:
                child.wait()
                return None
        if can_read:
            part = os.read(child.stdout.fileno(), 2**20)
            if not part:
                child.wait()
                return None
            got += part
    return json.loads(got)


def _end(child: subprocess.Popen) -> None:
    child.kill()
    child.communicate()
