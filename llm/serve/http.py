"""The HTTP side: routes in OpenAI's shapes, on FastAPI. Nothing here knows of models.

What a request costs is done elsewhere: texts are read by a few threads, tokens are made
by one, and this loop only passes events on. A client that goes away is noticed, and its
slots are free again.
"""

import asyncio
import base64
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as Missing

from llm.errors import InputError
from llm.serve import auth, openai_requests, openai_responses, sse, web_page
from llm.serve import request_prompts as prompts_of
from llm.serve.prometheus import CONTENT_TYPE
from llm.serve.scheduler import Refused
from llm.serve.service import ActiveRequest, Service


def make_app(
    service: Service, *, keys: Sequence[str], most_bytes: int, local: bool
) -> FastAPI:
    """The ASGI application of a service.

    Args:
      keys, most_bytes, local: see `auth.Border`.
    """
    app = FastAPI(title="llm", docs_url=None, redoc_url=None)
    app.add_middleware(
        auth.Border, keys=keys, most_bytes=most_bytes, local=local,
        metrics=service.metrics,
    )  # fmt: skip
    errors = Errors(service)
    app.add_exception_handler(InputError, errors.bad_input)
    app.add_exception_handler(RequestValidationError, errors.bad_request)
    app.add_exception_handler(Refused, errors.refused)
    app.add_exception_handler(Missing, errors.missing)
    api = Api(service, errors)
    routes = {
        "/health": api.health,
        "/ready": api.is_ready,
        "/metrics": api.metrics,
        "/v1/models": api.models,
        "/v1/models/{name:path}": api.model,
    }
    for path, handler in routes.items():
        app.get(path)(handler)
    for path, (content, kind) in web_page.files(service).items():
        app.get(path, include_in_schema=False)(_file(content, kind))
    actions = {
        "/tokenize": api.tokenize,
        "/detokenize": api.detokenize,
        "/v1/embeddings": api.embeddings,
        "/v1/completions": api.completions,
        "/v1/chat/completions": api.chat,
    }
    if service.feedback is not None:
        actions |= {
            "/feedback/preference": api.preference,
            "/feedback/rating": api.rating,
        }
    for path, handler in actions.items():
        app.post(path)(handler)
    return app


class Errors:
    """What is answered when something cannot be."""

    def __init__(self, service: Service):
        self._metrics = service.metrics

    def refuse(self, status: int, message: str, code: str | None = None):
        """An error in OpenAI's shape, counted."""
        self._metrics.refused(status)
        headers = {"retry-after": "1"} if status in (429, 503) else None
        content = auth.error_of(status, message, code)
        return JSONResponse(content, status, headers=headers)

    async def bad_input(self, request: Request, error: Exception):
        """What a request asks for and cannot have."""
        code = "context_length_exceeded" if "context length" in str(error) else None
        return self.refuse(400, str(error), code)

    async def bad_request(self, request: Request, error: Exception):
        """A body that is not what the endpoint takes."""
        kind = request.headers.get("content-type", "")
        if request.method == "POST" and "json" not in kind:
            shown = f"content-type {kind[:100]!r}" if kind else "no content-type"
            return self.refuse(400, f"got {shown}; want content-type: application/json")
        return self.refuse(400, openai_requests.complaint(error.errors()))

    async def refused(self, request: Request, error: Exception):
        """Too many requests, or a server that closes."""
        return self.refuse(error.status, str(error))

    async def missing(self, request: Request, error: Exception):
        """No such path, model or method."""
        answer = self.refuse(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})  # such as Allow, of a 405
        return answer


class Api:
    """The handlers of a service."""

    def __init__(self, service: Service, errors: Errors):
        self._service, self._refuse = service, errors.refuse
        self._one_at_a_time = ThreadPoolExecutor(1)

    def _check(self, model: str = "", *, generates: bool = False) -> None:
        service = self._service
        if generates and service.scheduler is None:
            raise InputError(
                got=f"{service.name}, which only reads",
                want="/v1/embeddings, /tokenize or /v1/models",
            )
        if model not in ("", service.name):
            raise HTTPException(404, f"got model {model!r}; want {service.name!r}")
        if not service.ready:
            raise Refused(503, "not ready yet")

    async def health(self):
        """Whether the process is worth keeping."""
        scheduler = self._service.scheduler
        if scheduler is not None and scheduler.failed:
            return self._refuse(503, scheduler.failed)
        return {"status": "ok"}

    async def is_ready(self):
        """Whether requests are taken: the model is compiled, nothing closes."""
        scheduler = self._service.scheduler
        closing = scheduler is not None and scheduler.draining
        if not self._service.ready or closing:
            return self._refuse(503, "closing" if closing else "not ready yet")
        return {"status": "ready"}

    async def metrics(self):
        """Figures for Prometheus."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self):
        """The list of the one model."""
        return {"object": "list", "data": [self._about()]}

    async def model(self, name: str):
        """The model."""
        self._check(name)
        return self._about()

    def _about(self) -> dict[str, Any]:
        service = self._service
        return {
            "id": service.name, "object": "model", "created": service.created,
            "owned_by": "local", "max_model_len": service.context,
        }  # fmt: skip

    async def tokenize(self, body: openai_requests.TokenizeRequest):
        """The ids of a text or of a conversation."""
        service = self._service
        self._check(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise InputError(got="a prompt and messages, or neither", want="one")
        if body.messages is not None:
            plain = [message.plain() for message in body.messages]
            ids = await run_in_threadpool(
                service.chat_ids, plain, body.chat_template_kwargs
            )
        else:
            ids = await run_in_threadpool(service.tokenizer.encode, body.prompt)
        return {"tokens": ids, "count": len(ids), "max_model_len": service.context}

    async def detokenize(self, body: openai_requests.DetokenizeRequest):
        """The text of ids."""
        self._check(body.model)
        self._service.check_ids(body.tokens, "token id")
        return {"prompt": self._service.tokenizer.decode(body.tokens)}

    async def embeddings(self, body: openai_requests.EmbeddingRequest):
        """Texts as vectors."""
        self._check(body.model)
        one = isinstance(body.input, str) or isinstance(body.input[0], int)
        texts = [body.input] if one else body.input
        loop = asyncio.get_running_loop()
        vectors_ND, tokens = await loop.run_in_executor(
            self._one_at_a_time, self._service.vectors, texts
        )
        data = [
            {"object": "embedding", "index": n, "embedding": _written(v, body)}
            for n, v in enumerate(vectors_ND)
        ]
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        model = self._service.name
        return {"object": "list", "data": data, "model": model, "usage": used}

    async def completions(
        self, body: openai_requests.CompletionRequest, request: Request
    ):
        """Continues prompts."""
        self._check(body.model, generates=True)
        given = body.prompt
        one = isinstance(given, str) or isinstance(given[0], int)
        read = [given] if one else given
        service, special = self._service, body.add_special_tokens
        prompts = await run_in_threadpool(
            lambda: [prompts_of.read(service, p, special=special) for p in read]
        )
        return await self._answer(body, request, prompts, openai_responses.Completion)

    async def chat(self, body: openai_requests.ChatRequest, request: Request):
        """Answers a conversation."""
        self._check(body.model, generates=True)
        if body.top_logprobs and not body.logprobs:
            raise InputError(got="top_logprobs without logprobs", want="logprobs: true")
        prompt = await run_in_threadpool(
            prompts_of.conversation, self._service, body.messages,
            body.chat_template_kwargs,
        )  # fmt: skip
        return await self._answer(body, request, [prompt], openai_responses.Chat)

    async def _answer(self, body, request, prompts, shape):
        """A stream, or the whole of what continues the prompts."""
        client, loop = request.state.client, asyncio.get_running_loop()
        form = shape(self._service.tokenizer)
        active = await run_in_threadpool(
            ActiveRequest, self._service, body, prompts, client, form.endpoint, loop
        )
        active.submit()
        head = {
            "id": f"{form.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self._service.name,
        }
        if body.stream:
            stream = sse.stream(active, body, form, head, request)
            kind, headers = "text/event-stream", {"cache-control": "no-store"}
            return StreamingResponse(stream, media_type=kind, headers=headers)
        return await self._whole(active, body, form, head, request)

    async def _whole(self, active, body, form, head, request):
        choices = [sse.Gathered() for _ in active.answers]
        reasons = []
        async for event in sse.events(active, request):
            if event is not None:
                choices[event.number].add(event)
                reasons += [event.reason] if event.reason else []
        for reason in reasons:
            if reason in sse.FAILED:
                return self._refuse(*sse.FAILED[reason])
        if len(reasons) < len(choices):
            return self._refuse(*sse.FAILED["cancelled"])
        echo = getattr(body, "echo", None)
        made = []
        for number, one in enumerate(choices):
            text = sse.echoed(active, number, echo) + one.text
            figures = one.figures if active.told >= 0 else None
            made.append(form.choice(number, text, one.reason, figures))
        return {
            **head, "object": form.whole, "choices": made,
            "usage": openai_responses.usage(*active.tokens),
        }  # fmt: skip

    def preference(self, body: openai_requests.Preference):
        """Writes which of two answers is preferred."""
        feedback = self._service.feedback
        feedback.prefer(_prompt_of(body), body.chosen, body.rejected)
        return {"written": True}

    def rating(self, body: openai_requests.Rating):
        """Writes whether an answer is good."""
        feedback = self._service.feedback
        met = feedback.rate(_prompt_of(body), body.answer, body.good)
        return {"written": True, "preference": met}


def _prompt_of(body: openai_requests.Preference | openai_requests.Rating) -> Any:
    if (body.prompt is None) == (body.messages is None):
        raise InputError(got="a prompt and messages, or neither", want="one")
    if body.messages is None:
        return body.prompt
    return [message.plain() for message in body.messages]


def _file(content: bytes | str, kind: str):
    """The handler of a file of the page."""

    def give():
        return Response(content, media_type=kind, headers=web_page.HEADERS)

    return give


def _written(vector_D: np.ndarray, body: openai_requests.EmbeddingRequest) -> Any:
    if body.encoding_format == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
    return vector_D.tolist()
