"""One answer while it is made: tokens in, on the decode thread; events out.

What an event holds is ready to be shown: whole characters, no part of a stop text,
nothing that a guard blocks.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm.serve.detokenizer import Writer
from llm.serve.guard import Guarded


class TokenFigure(NamedTuple):
    """A token, its log-probability, and (id, log-probability) of the likeliest."""

    id: int
    logprob: float | None
    likeliest: list[tuple[int, float]]


@dataclasses.dataclass
class Event:
    """New text and tokens of an answer, or its end.

    Attributes:
      number: of the answer in its request.
      reason: why it ended, '' where it goes on.
    """

    number: int
    text: str = ""
    tokens: list[TokenFigure] = dataclasses.field(default_factory=list)
    reason: str = ""


class Answer:
    """See the module docstring.

    Attributes:
      text: all that may be shown so far.
      ids: all tokens so far.
      told: how many of the likeliest tokens an event tells with each.
      ends_told: whether the token that ends it has a figure, too.
      first, latest: when tokens came, in seconds of `time.monotonic`; 0 is not yet.
    """

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        tokenizer: Any,
        *,
        stops: Sequence[str],
        endless: bool,
        told: int,
        ends_told: bool,
        guarded: Guarded,
        send: Callable[[Event], None],
        between: Callable[[float], None],
    ):
        self.number, self.prompt, self.told = number, prompt, told
        self.ends_told = ends_told
        self.ids: list[int] = []
        self.logprobs = 0.0
        self.first = self.latest = 0.0
        self.reason = ""
        self.guarded = guarded
        self._ends = () if endless else tokenizer.ends
        self._writer = Writer(tokenizer, stops)
        self._send, self._between = send, between

    @property
    def text(self) -> str:
        """All that may be shown so far."""
        return self.guarded.text

    def scored(self, scores: Any) -> None:
        """Takes the likelihoods of the prompt."""
        held = zip(
            self.prompt,
            scores.logprobs_BT[0],
            scores.likeliest_BTK[0],
            scores.likeliest_logprobs_BTK[0],
            strict=True,
        )
        figures = [self._figure(*one) for one in held]
        # Nothing comes before the first: it has no likelihood.
        figures[0] = TokenFigure(self.prompt[0], None, [])
        self._send(Event(self.number, tokens=figures))

    def take(self, piece: Any, last: bool) -> str:
        """Takes a piece of tokens; returns why to stop here, or ''."""
        ids = list(piece.tokens)
        self._note_times(len(ids))
        ended = bool(ids) and ids[-1] in self._ends
        text, read = self._written(ids[:-1] if ended else ids, last or ended)
        stopped = bool(self._writer.stopped)
        if stopped:  # what came with it, behind the stop, is no part of the answer
            ids, ended = ids[:read], False
        self.ids += ids
        text = self.guarded.write(text, last or ended or stopped)
        figures = []
        if self.told >= 0:
            held = zip(
                ids, piece.logprobs, piece.likeliest_TK, piece.likeliest_logprobs_TK,
                strict=False,
            )  # fmt: skip
            figures = [self._figure(*one) for one in held]
        self.logprobs += float(sum(piece.logprobs[: len(ids)]))
        if ended and not self.ends_told:  # an end is no part of the text
            figures = figures[:-1]
        if self.guarded.blocked:
            return self._said(text, [], "content_filter")
        return self._said(text, figures, "stop" if stopped else "")

    def _written(self, ids: list[int], last: bool) -> tuple[str, int]:
        """The text of tokens, and how many of them it takes, up to a stop."""
        text = ""
        for count, token in enumerate(ids, start=1):
            text += self._writer.write([token], last and count == len(ids))
            if self._writer.stopped:
                return text, count
        return (text if ids else self._writer.write([], last)), len(ids)

    def finish(self, reason: str) -> None:
        """The end of it, with its reason."""
        self.reason = reason
        self._send(Event(self.number, reason=reason))

    def _said(self, text, figures, reason):
        if text or figures:
            self._send(Event(self.number, text, figures))
        return reason

    def _figure(self, token, logprob, ids, logprobs) -> TokenFigure:
        pairs = zip(ids[: self.told], logprobs[: self.told], strict=True)
        return TokenFigure(
            int(token), float(logprob), [(int(i), float(p)) for i, p in pairs]
        )

    def _note_times(self, count: int) -> None:
        now = time.monotonic()
        if self.latest and count:
            self._between((now - self.latest) / count)
        self.first = self.first or now
        self.latest = now
