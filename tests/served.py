"""A tiny model behind a real server, for tests: bytes as tokens, weights at random."""

import asyncio
import contextlib
import dataclasses
import json
import threading

import pytest
import tiny

from llm.inference.constrain import Grammars
from llm.inference.decoding import generate
from llm.inference.embeddings import embedder
from llm.serve.feedback import Feedback
from llm.serve.guard import Guard
from llm.serve.prometheus import Metrics
from llm.serve.request_log import RequestLog
from llm.serve.scheduler import Scheduler
from llm.serve.slots import Slots
from llm.tokenizers import Tokenizer
from llm.tokenizers.chat_settings import DEFAULT, Chat
from llm.tokenizers.chat_template import mark
from llm.workloads.serve import bound

PAD, UNK, BOS, EOS = range(256, 260)


@dataclasses.dataclass(frozen=True)
class Bytes(Tokenizer):
    """A tokenizer of bytes."""

    pad_id: int = PAD
    unk_id: int = UNK
    bos_id: int = BOS
    eos_id: int = EOS
    never: tuple = (PAD, UNK, BOS)
    ends: tuple = (EOS,)
    vocab_size: int = 260
    chat_template: str = (
        "{{ bos_token }}{% for m in messages %}"
        "{{ m['role'][0] + ':' + m['content'] + '\n' }}{% endfor %}a:"
    )
    piece_bytes: tuple = (*(bytes([b]) for b in range(256)), b"", b"", b"", b"")
    chat: Chat = DEFAULT

    def start(self):
        return [BOS]

    def finish(self):
        return []

    def encode(self, text):
        return list(text.encode())

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids):
        return b"".join(self.piece_bytes[i] for i in ids)

    def decode(self, ids):
        return self.decode_bytes(ids).decode(errors="replace")

    def pieces(self, ids):
        return [self.decode([i]) or f"<{i}>" for i in ids]

    @property
    def spellings(self):
        return {"bos_token": mark("bos"), "eos_token": mark("eos")}


TOKENIZER = Bytes()


def model():
    """A model of bytes and its parameters."""
    of = tiny.model(vocab_size=260)
    return of, tiny.params(of, seed=4)


def offline(of, params, prompts, **more):
    """What `generate` makes of the prompts, each by itself."""
    return [generate(of, params, TOKENIZER, [prompt], **more)[0] for prompt in prompts]


def make_service(
    of, params, *, folder="", count=4, context=128, guard=None, log=False,
    tokenizer=TOKENIZER, **more,
):  # fmt: skip
    """A service that is ready, and its slots; of the thread that asks for it."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        pytest.importorskip(package)
    from llm.serve.service import Service

    slots = Slots(of, params, tokenizer, count=count, context=context)
    scheduler = Scheduler(slots, **more)
    embed = embedder(of, params, tokenizer, max_tokens=context, batch_size=4)
    service = Service(
        name="tiny",
        tokenizer=tokenizer,
        context=context,
        metrics=Metrics("llm", "tiny", scheduler),
        guard=guard or Guard(),
        scheduler=scheduler,
        grammars=Grammars(tokenizer, of.vocab_size),
        embed=embed,
        feedback=Feedback(folder) if folder else None,
        log=RequestLog(folder, prompts=log) if folder else None,
        ready=True,
    )
    return service, slots


@contextlib.contextmanager
def running(service, *, keys=(), most_bytes=100_000):
    """The address of a server that runs meanwhile."""
    import uvicorn

    from llm.serve.http import make_app

    app = make_app(service, keys=keys, most_bytes=most_bytes, local=True)
    listening = bound("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    decode = threading.Thread(target=service.scheduler.run)
    serve = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listening]))
    )
    decode.start()
    serve.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        service.scheduler.close()
        decode.join()
        serve.join()
        listening.close()


@pytest.fixture(scope="module", name="model")
def given_model():
    """What tests that import this call `model`: (parts of a served model)."""
    return model()


@pytest.fixture(scope="module", name="up")
def given_up(model, tmp_path_factory):
    """(address, slots, service, folder) of a server that runs."""
    folder = tmp_path_factory.mktemp("serve")
    service, slots = make_service(
        *model, folder=str(folder), most_waiting=200, most_of_client=200
    )
    with running(service) as url:
        yield url, slots, service, folder


def post(url, path, content, **headers):
    """The reply to a JSON body, or to bytes as they are."""
    import httpx

    headers = {"content-type": "application/json", **headers}
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(url + path, content=content, headers=headers, timeout=60)


def streamed(url, path, body):
    """The choices of the events of a stream."""
    import httpx

    body, choices = body | {"stream": True}, []
    with httpx.stream("POST", url + path, json=body, timeout=60) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                choices += event["choices"]
    return choices
