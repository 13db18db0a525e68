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

from llm.errors import InputError
from llm.serve import auth, openai_requests, openai_responses, sse, web_page
from llm.serve import request_prompts as prompts_of
from llm.serve.prometheus import CONTENT_TYPE
from llm.serve.scheduler import Refused
from llm.serve.service import Asked, Service


def make_app(service: Service, *, keys: Sequence[str], most_bytes: int, local: bool):
    """The ASGI application of a service.

    Args:
      keys, most_bytes, local: see `border.Border`.
    """
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException as Missing

    app = FastAPI(title="llm", docs_url=None, redoc_url=None)
    app.add_middleware(
        auth.Border, keys=keys, most_bytes=most_bytes, local=local,
        metrics=service.metrics,
    )  # fmt: skip
    one_at_a_time = ThreadPoolExecutor(1)

    def refuse(status: int, message: str, code: str | None = None):
        service.metrics.refused(status)
        headers = {"retry-after": "1"} if status in (429, 503) else None
        content = auth.error_of(status, message, code)
        return JSONResponse(content, status, headers=headers)

    @app.exception_handler(InputError)
    async def bad_input(request, error):
        code = "context_length_exceeded" if "context length" in str(error) else None
        return refuse(400, str(error), code)

    @app.exception_handler(RequestValidationError)
    async def bad_request(request, error):
        kind = request.headers.get("content-type", "")
        if request.method == "POST" and "json" not in kind:
            shown = f"content-type {kind[:100]!r}" if kind else "no content-type"
            return refuse(400, f"got {shown}; want content-type: application/json")
        return refuse(400, openai_requests.complaint(error.errors()))

    @app.exception_handler(Refused)
    async def refused(request, error):
        return refuse(error.status, str(error))

    @app.exception_handler(Missing)
    async def missing(request, error):
        answer = refuse(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})  # such as Allow, of a 405
        return answer

    def check(model: str = "", *, generates: bool = False) -> None:
        if generates and service.scheduler is None:
            raise InputError(
                got=f"{service.name}, which only reads",
                want="/v1/embeddings, /tokenize or /v1/models",
            )
        if model not in ("", service.name):
            raise HTTPException(404, f"got model {model!r}; want {service.name!r}")
        if not service.ready:
            raise Refused(503, "not ready yet")

    @app.get("/health")
    async def health():
        failed = service.scheduler is not None and service.scheduler.failed
        if failed:
            return refuse(503, failed)
        return {"status": "ok"}

    @app.get("/ready")
    async def ready():
        closing = service.scheduler is not None and service.scheduler.draining
        if not service.ready or closing:
            return refuse(503, "closing" if closing else "not ready yet")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics():
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    for path, (content, kind) in web_page.files(service).items():

        def give(content=content, kind=kind):
            return Response(content, media_type=kind, headers=web_page.HEADERS)

        app.get(path, include_in_schema=False)(give)

    def about():
        return {
            "id": service.name, "object": "model", "created": service.created,
            "owned_by": "local", "max_model_len": service.context,
        }  # fmt: skip

    @app.get("/v1/models")
    async def models():
        return {"object": "list", "data": [about()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str):
        check(name)
        return about()

    @app.post("/tokenize")
    async def tokenize(body: openai_requests.TokenizeRequest):
        check(body.model)
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

    @app.post("/detokenize")
    async def detokenize(body: openai_requests.DetokenizeRequest):
        check(body.model)
        service.check_ids(body.tokens, "token id")
        return {"prompt": service.tokenizer.decode(body.tokens)}

    @app.post("/v1/embeddings")
    async def embeddings(body: openai_requests.EmbeddingRequest, request: Request):
        check(body.model)
        one = isinstance(body.input, str) or isinstance(body.input[0], int)
        texts = [body.input] if one else body.input
        loop = asyncio.get_running_loop()
        vectors_ND, tokens = await loop.run_in_executor(
            one_at_a_time, service.vectors, texts
        )
        data = [
            {"object": "embedding", "index": n, "embedding": _written(v, body)}
            for n, v in enumerate(vectors_ND)
        ]
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {
            "object": "list", "data": data, "model": service.name, "usage": used,
        }  # fmt: skip

    @app.post("/v1/completions")
    async def completions(body: openai_requests.CompletionRequest, request: Request):
        check(body.model, generates=True)
        given = body.prompt
        one = isinstance(given, str) or isinstance(given[0], int)
        read = [given] if one else given
        special = body.add_special_tokens
        prompts = await run_in_threadpool(
            lambda: [prompts_of.read(service, p, special=special) for p in read]
        )
        return await answer(body, request, prompts, openai_responses.Completion)

    @app.post("/v1/chat/completions")
    async def chat(body: openai_requests.ChatRequest, request: Request):
        check(body.model, generates=True)
        if body.top_logprobs and not body.logprobs:
            raise InputError(got="top_logprobs without logprobs", want="logprobs: true")
        prompt = await run_in_threadpool(
            prompts_of.conversation, service, body.messages, body.chat_template_kwargs
        )
        return await answer(body, request, [prompt], openai_responses.Chat)

    async def answer(body, request, prompts, shape):
        client, loop = request.state.client, asyncio.get_running_loop()
        form = shape(service.tokenizer)
        asked = await run_in_threadpool(
            Asked, service, body, prompts, client, form.endpoint, loop
        )
        asked.submit()
        head = {
            "id": f"{form.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.name,
        }
        if body.stream:
            stream = sse.stream(asked, body, form, head, request)
            kind, headers = "text/event-stream", {"cache-control": "no-store"}
            return StreamingResponse(stream, media_type=kind, headers=headers)
        return await whole(asked, body, form, head, request)

    async def whole(asked, body, form, head, request):
        choices = [sse.Gathered() for _ in asked.answers]
        reasons = []
        async for event in sse.events(asked, request):
            if event is not None:
                choices[event.number].add(event)
                reasons += [event.reason] if event.reason else []
        for reason in reasons:
            if reason in sse.FAILED:
                return refuse(*sse.FAILED[reason])
        if len(reasons) < len(choices):
            return refuse(*sse.FAILED["cancelled"])
        echo = getattr(body, "echo", None)
        made = []
        for number, one in enumerate(choices):
            text = sse.echoed(asked, number, echo) + one.text
            figures = one.figures if asked.told >= 0 else None
            made.append(form.choice(number, text, one.reason, figures))
        return {
            **head, "object": form.whole, "choices": made,
            "usage": openai_responses.usage(*asked.tokens),
        }  # fmt: skip

    if service.feedback is not None:

        def prompt_of(body):
            if (body.prompt is None) == (body.messages is None):
                raise InputError(got="a prompt and messages, or neither", want="one")
            if body.messages is None:
                return body.prompt
            return [message.plain() for message in body.messages]

        @app.post("/feedback/preference")
        def preference(body: openai_requests.Preference):
            service.feedback.prefer(prompt_of(body), body.chosen, body.rejected)
            return {"written": True}

        @app.post("/feedback/rating")
        def rating(body: openai_requests.Rating):
            met = service.feedback.rate(prompt_of(body), body.answer, body.good)
            return {"written": True, "preference": met}

    return app


def _written(vector_D: np.ndarray, body: openai_requests.EmbeddingRequest) -> Any:
    if body.encoding_format == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
    return vector_D.tolist()
