"""A model as a service, apart from HTTP: requests to jobs, and what is kept of them.

`Service` holds what all requests share. `ask` turns one into answers that are being
made; whoever iterates its events and stops early must `cancel` it.
"""

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from llm.data.chat import prompt_ids
from llm.errors import InputError
from llm.inference.constrain import Grammars
from llm.inference.embeddings import Embedded
from llm.inference.engine import NONE
from llm.inference.prompt_rows import with_start
from llm.serve import request_record
from llm.serve.completion import Answer, Event
from llm.serve.feedback import Feedback
from llm.serve.guard import Guard
from llm.serve.openai_requests import MOST_CHOICES, ChatRequest, CompletionRequest
from llm.serve.prometheus import Metrics
from llm.serve.request_log import RequestLog
from llm.serve.scheduler import Job, Scheduler
from llm.serve.slots import Task


@dataclasses.dataclass
class Service:
    """What requests share.

    Attributes:
      name: of the model, as clients ask for it.
      context: most tokens of a prompt and its answer.
      scheduler: None for a model that only reads.
      embed: of `llm/inference/embeddings.py`.
      ready: whether requests may come; set when all is compiled.
      seconds: after which a request is given up.
    """

    name: str
    tokenizer: Any
    context: int
    metrics: Metrics
    guard: Guard
    scheduler: Scheduler | None = None
    grammars: Grammars | None = None
    embed: Callable[[Sequence[Sequence[int]]], Embedded] | None = None
    log: RequestLog | None = None
    feedback: Feedback | None = None
    seconds: float = 600.0
    ready: bool = False
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", ""))

    def ids_of(self, text: str, *, special: bool = True) -> list[int]:
        """A prompt's ids, begun by the tokenizer's start if `special`.

        Raises:
          InputError: an empty one without a start; one that is far too long, before it
            is read.
        """
        pieces = self.tokenizer.piece_bytes
        longest = max(map(len, pieces)) if pieces else 256
        if len(text) > self.context * longest:
            raise self._too_long(f"more than {len(text) // longest}")
        ids = self.tokenizer.encode(text)
        if special:
            return self._fitting(with_start(self.tokenizer, ids))
        if not ids:
            raise InputError(
                got="an empty prompt and add_special_tokens false",
                want="some text, or add_special_tokens true",
            )
        return self._fitting(ids)

    def vectors(
        self, texts: Sequence[str] | Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, int]:
        """(vectors [N, D], tokens read) of texts or their ids.

        Raises:
          InputError: one too long, or ids that the tokenizer lacks.
        """
        around = len(self.tokenizer.start()) + len(self.tokenizer.finish())
        rows = texts
        if isinstance(texts[0], str):
            rows = self.tokenizer.encode_batch(texts)
        for ids in rows:
            self.check_ids(ids, "token id")
        long = sum(len(ids) + around > self.context for ids in rows)
        if long:
            raise InputError(
                got=f"{long} of {len(texts)} texts that are longer than the context "
                f"length of {self.context} tokens",
                want="shorter ones",
            )
        return self.embed(rows).vectors, sum(map(len, rows))

    def chat_ids(
        self,
        messages: Sequence[dict[str, str]],
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """A conversation's ids, with variables of the template."""
        if sum(len(m["content"]) for m in messages) > self.context * 256:
            raise self._too_long("many more")
        return self._fitting(prompt_ids(self.tokenizer, messages, variables=variables))

    def given_ids(self, ids: Sequence[int]) -> list[int]:
        """Ids of a client as a prompt, checked; nothing is put before them."""
        self.check_ids(ids, "token id")
        return self._fitting(list(ids))

    def check_ids(self, ids: Sequence[int], what: str) -> None:
        """Raises InputError for an id that the tokenizer lacks."""
        if ids and max(ids) >= self.tokenizer.vocab_size:
            raise InputError(
                got=f"{what} {max(ids)}",
                want=f"at most {self.tokenizer.vocab_size - 1}",
            )

    def _fitting(self, ids: list[int]) -> list[int]:
        if len(ids) > self.context:
            raise self._too_long(str(len(ids)))
        return ids

    def _too_long(self, count: str) -> InputError:
        return InputError(
            got=f"a prompt of {count} tokens, for a maximum context length of "
            f"{self.context}",
            want="a shorter one",
        )


class ActiveRequest:
    """A request whose answers are being made.

    Attributes:
      prompts: (ids, text) of each prompt; an answer's is `prompts[number // n]`.
      answers: in order of their numbers.
    """

    def __init__(
        self,
        service: Service,
        request: ChatRequest | CompletionRequest,
        prompts: Sequence[tuple[list[int], str]],
        client: str,
        endpoint: str,
        loop: asyncio.AbstractEventLoop,
    ):
        self.prompts, self.endpoint, self.client = prompts, endpoint, client
        self._service, self._loop = service, loop
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._start = time.monotonic()
        self.n = request.n or 1
        echo = bool(getattr(request, "echo", False))
        wanted = self._wanted(request)
        # Tokens would tell what a guard keeps from the text.
        hidden = service.guard.hides
        self.told = NONE if wanted is None or hidden else wanted
        if self.n * len(prompts) > MOST_CHOICES:
            raise InputError(
                got=f"{self.n * len(prompts)} answers", want=f"at most {MOST_CHOICES}"
            )
        seed = secrets.randbits(32) if request.seed is None else request.seed
        knobs, grammar = request.sampling(), request.grammar()
        service.check_ids([token for token, _ in knobs.bias], "logit_bias of token")
        self.answers: list[Answer] = []
        self._jobs: list[Job] = []
        for number in range(self.n * len(prompts)):
            ids, _ = prompts[number // self.n]
            answer = Answer(
                number, ids, service.tokenizer, stops=request.stops(),
                endless=request.ignore_eos, told=self.told,
                # Who scores texts by completions takes off as many figures as tokens
                # were generated; a chat has those of its text.
                ends_told=isinstance(request, CompletionRequest),
                guarded=service.guard.stream(), send=self._send,
                between=service.metrics.between_tokens.observe,
            )  # fmt: skip
            told = self.told
            if told == NONE and service.log is not None:
                told = 0  # the log has a mean
            task = Task(
                ids, knobs, seed & 0xFFFFFFFF, number % self.n,
                max_tokens=self._most(request, len(ids), echo), told=told,
                endless=request.ignore_eos,
                matcher=grammar and service.grammars.matcher(*grammar),
            )  # fmt: skip
            job = Job(
                client, task, answer.take,
                lambda reason, n=number: self._end(n, reason),
                deadline=self._start + service.seconds,
                score=echo and self.told != NONE, scored=answer.scored,
            )  # fmt: skip
            self.answers.append(answer)
            self._jobs.append(job)

    def submit(self) -> None:
        """Queues it; Refused where there is no room."""
        self._service.scheduler.submit(*self._jobs)
        metrics = self._service.metrics
        for ids, _ in self.prompts:
            metrics.prompt_tokens.inc(len(ids))
            metrics.prompt_lengths.observe(len(ids))

    def cancel(self) -> None:
        """Nobody reads on: what is still being made is given up."""
        self._service.scheduler.cancel(*self._jobs)

    async def event(self) -> Event:
        """The next event of any of the answers."""
        return await self._events.get()

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompts, and of the answers so far."""
        prompts = sum(len(ids) for ids, _ in self.prompts)
        return prompts, sum(len(answer.ids) for answer in self.answers)

    @staticmethod
    def _wanted(request) -> int | None:
        """How many of the likeliest tokens are wanted; None: no likelihoods at all."""
        if isinstance(request, ChatRequest):
            return (request.top_logprobs or 0) if request.logprobs else None
        return request.logprobs

    def _most(self, request, prompt: int, echo: bool) -> int:
        """The most tokens of an answer."""
        room = self._service.context - prompt
        max_tokens = request.max_tokens
        if isinstance(request, ChatRequest):
            max_tokens = request.max_completion_tokens or max_tokens
            max_tokens = -1 if max_tokens is None else max_tokens
        if max_tokens == -1:
            max_tokens = max(room, 1)
        elif max_tokens is None:
            max_tokens = min(16, room)
        least = 0 if echo else 1
        if max_tokens < least:
            raise InputError(
                got=f"max_tokens {max_tokens}",
                want=f"{least} or more, or -1 for no limit; 0 is for echo",
            )
        if max_tokens > room or (room < 1 and not echo):
            raise InputError(
                got=f"{prompt} tokens of a prompt and {max(max_tokens, 1)} more, for a "
                f"maximum context length of {self._service.context}",
                want="a shorter prompt, or fewer max_tokens",
            )
        return max_tokens

    def _send(self, event: Event) -> None:
        """From the decode thread to the loop of the request."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _end(self, number: int, reason: str) -> None:
        """Everything that is kept of an answer that is over."""
        service, answer, job = self._service, self.answers[number], self._jobs[number]
        metrics, now = service.metrics, time.monotonic()
        metrics.finished(reason)
        metrics.generation_tokens.inc(len(answer.ids))
        metrics.answer_lengths.observe(len(answer.ids))
        metrics.whole.observe(now - self._start)
        if job.started:
            metrics.queued.observe(job.started - self._start)
        if answer.first:
            metrics.first_token.observe(answer.first - self._start)
        for check, count in answer.guarded.findings.items():
            metrics.found(check, "answer", count)
        if service.log is not None:
            self._log(answer, reason, now)
        answer.finish(reason)

    def _log(self, answer, reason, now) -> None:
        count = len(answer.ids)
        waited = answer.first - self._start if answer.first else None
        text = self.prompts[answer.number // self.n][1]
        self._service.log.write(
            client=self.client,
            prompt=text,
            answer=answer.text,
            endpoint=self.endpoint,
            prompt_tokens=len(answer.prompt),
            completion_tokens=count,
            finish_reason=reason,
            mean_logprob=answer.logprobs / count if count else None,
            fallback_share=request_record.fallback_share(
                self._service.tokenizer, answer.prompt
            ),
            language=request_record.language(text) or None,
            latency=round(now - self._start, 4),
            first_token=waited and round(waited, 4),
            guard=answer.guarded.findings,
        )
