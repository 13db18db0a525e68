"""The events of a request, as they come: to whoever waits for the whole, or streams.

A client that goes away is noticed here, and what was being made for it is given up.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from llm.serve import auth, openai_responses
from llm.serve.completion import Event
from llm.serve.service import ActiveRequest

_ALIVE = 15.0  # seconds after which a silent stream says that it lives
FAILED = {
    "failed": (500, "the answer could not be made"),
    "grammar": (
        400,
        "the grammar allows no next token of this model's vocabulary, and the answer "
        "so far does not match it",
    ),
    "timeout": (504, "the request took longer than this server allows"),
    "closed": (503, "the server is closing"),
    "cancelled": (499, "the client went away"),
}


class Gathered:
    """The events of one answer, joined."""

    def __init__(self):
        self.text, self.reason, self.figures = "", "", []

    def add(self, event: Event) -> None:
        """One more."""
        self.text += event.text
        self.reason = event.reason or self.reason
        self.figures += event.tokens


async def events(active: ActiveRequest, request: Any) -> AsyncIterator[Event | None]:
    """Events until all answers are over or the client is gone; None when all is still.

    However this ends, what is left of the answers is given up.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    left = len(active.answers)
    following = None
    try:
        while left:
            following = following or asyncio.ensure_future(active.event())
            await asyncio.wait(
                {gone, following}, timeout=_ALIVE, return_when=asyncio.FIRST_COMPLETED
            )
            if following.done():
                event, following = following.result(), None
                left -= bool(event.reason)
                yield event
            elif gone.done():
                return
            else:
                yield None
    finally:
        active.cancel()
        for task in (gone, following):
            if task is not None:
                task.cancel()


async def _disconnected(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(
    active: ActiveRequest, body: Any, form: Any, head: dict[str, Any], request: Any
) -> AsyncIterator[bytes]:
    """Server-sent events of all answers of a request."""
    options = body.stream_options
    counts = bool(options and options.include_usage)
    head = {**head, "object": form.chunk}
    echo = getattr(body, "echo", None)

    def chunk(choice):
        more = {"usage": None} if counts else {}
        return openai_responses.sse({**head, "choices": [choice], **more})

    try:
        for number in range(len(active.answers)):
            if begun := form.begin(number):
                yield chunk(begun)
            if text := echoed(active, number, echo):
                yield chunk(form.piece(number, text, None, None))
        async with contextlib.aclosing(events(active, request)) as coming:
            async for event in coming:
                if event is None:
                    yield b": waiting\n\n"
                    continue
                if event.reason in FAILED:
                    status, message = FAILED[event.reason]
                    yield openai_responses.sse(auth.error_of(status, message))
                    return
                figures = event.tokens if active.told >= 0 else None
                yield chunk(
                    form.piece(event.number, event.text, event.reason or None, figures)
                )
        if counts:
            used = openai_responses.usage(*active.tokens)
            yield openai_responses.sse({**head, "choices": [], "usage": used})
        yield openai_responses.sse("[DONE]")
    finally:
        active.cancel()


def echoed(active: ActiveRequest, number: int, echo: bool | None) -> str:
    """The prompt of an answer, where it is to be said again."""
    return active.prompts[number // active.n][1] if echo else ""
