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
import pathlib
from collections.abc import Callable, Iterator

from llm.child_process import Child, Limits, Outcome
from llm.errors import InputError
from llm.knobs import Count
from llm.text import languages

EXTRACTORS = ("resiliparse", "trafilatura")
MEMORY = 2 * 2**30  # bytes of the process
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
    with Child(_CHILD, Limits(seconds=seconds, memory_bytes=MEMORY)) as child:

        def page(html: bytes, charset: str = "") -> dict[str, str]:
            verdict = child.ask(html=html, charset=charset, extractor=extractor)
            if verdict.outcome is Outcome.NOT_STARTED:
                raise InputError(
                    got="a process for pages that does not start",
                    want="memory and processes to be had",
                    do="see ulimit -a",
                )
            if verdict.outcome is Outcome.TIMED_OUT:
                return {"refused": f"takes over {seconds:g} s"}
            if verdict.outcome is Outcome.OUT_OF_MEMORY:
                return {"refused": "MemoryError"}
            if verdict.outcome is not Outcome.ANSWERED:
                return {"refused": "ends its process"}
            answer = verdict.value
            if answer.get("language"):
                answer["language"] = languages.code(answer["language"])
            return answer

        yield page
