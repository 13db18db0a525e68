"""Serves a model over HTTP until it is asked to stop: configs/serve.py."""

import asyncio
import importlib.util
import os
import pathlib
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import jax
from ml_collections import ConfigDict

from llm.errors import InputError
from llm.inference import load_model
from llm.inference.constrain import Grammars
from llm.inference.embeddings import embedder
from llm.knobs import Count, Positive, Range, section
from llm.registry import every_plugin
from llm.serve import guard
from llm.serve.auth import read_keys
from llm.serve.feedback import Feedback
from llm.serve.prometheus import Metrics
from llm.serve.request_log import RequestLog
from llm.serve.scheduler import Scheduler
from llm.serve.slots import Slots
from llm.workloads import claim, load

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@section("serve")
class Serve:
    """The server."""

    # As generate.model_dir, and what the model is called; '' is the name of its folder.
    model_dir: str = ""
    name: str = ""
    # Where to listen; port 0 is any that is free. Other hosts want api_keys_file.
    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535)] = 8000
    # A file with a key a line, one of which a request must bear; '' asks for none.
    api_keys_file: str = ""
    # Requests that are answered at once, and most tokens of a prompt and its answer; 0
    # is as many as the model was made for.
    slots: Positive = 16
    context: Count = 2048
    # Requests that may wait, of all clients and of one, and the longest body in bytes.
    most_waiting: Count = 256
    most_waiting_client: Count = 128
    most_bytes: Positive = 4_000_000
    # Seconds after which a request is given up, and that are left to answer what was
    # asked when the server is told to end.
    request_seconds: Positive = 600
    shutdown_seconds: Count = 30
    # Whether to log a line an answer, and whether with its texts, scrubbed.
    log_requests: bool = True
    log_prompts: bool = False
    # What the names of metrics begin with; vllm shows this server on boards for that.
    metrics_prefix: str = "llm"
    # Whether people may rate answers, which are then written to the workdir.
    feedback: bool = False
    # Checks of prompts and answers: pairs of a file of llm/guards/ and what to do:
    # block, redact or log ...
    guard: tuple = ()
    # ... and their knobs.
    check: dict = every_plugin("guards")


SECTIONS = (Serve,)


def run(c: ConfigDict, workdir: str) -> None:
    """Serves `c.serve.model_dir`; prints the address when it is ready."""
    check(c)
    s = c.serve
    keys = read_keys(s.api_keys_file)
    knobs = s.check.to_dict()
    guards = guard.build(s.guard, knobs, jax.devices("cpu")[0])
    loaded = load(s.model_dir, workdir)
    service, slots = make_service(c, workdir, loaded, guards)
    with bound(s.host, s.port) as listening:
        claim(c, workdir)
        serve(service, slots, listening, keys, c)


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be served, before anything is read."""
    s = c.serve
    for package in ("fastapi", "pydantic", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                got=f"no package {package}",
                want="it, to serve",
                do="pip install 'llm-lifecycle[serve]'",
            )
    if s.host not in _LOOPBACK and not s.api_keys_file:
        raise InputError(
            got=f"serve.host {s.host} without keys: whoever reaches it could use it",
            want="serve.api_keys_file, a file with a key a line",
            do="or keep serve.host at 127.0.0.1",
        )
    if not s.metrics_prefix.isidentifier():
        raise InputError(
            got=f"serve.metrics_prefix {s.metrics_prefix!r}",
            want="letters, such as llm or vllm",
        )


def make_service(
    c: ConfigDict, workdir: str, loaded: load_model.Loaded, guards: guard.Guard
) -> tuple[Any, Slots | None]:
    """What is served, and its slots; these are None for a model that only reads."""
    from llm.serve.service import Service

    s = c.serve
    model, params = load_model.for_decoding(loaded)
    known = load_model.context(loaded)
    context = min(s.context or known, known)
    slots = scheduler = grammars = None
    if model.generates:
        slots = Slots(model, params, loaded.tokenizer, count=s.slots, context=context)
        scheduler = Scheduler(
            slots, most_waiting=s.most_waiting, most_of_client=s.most_waiting_client
        )
        grammars = Grammars(loaded.tokenizer, model.vocab_size)
    name = s.name or pathlib.Path(os.path.realpath(s.model_dir or workdir)).name
    embed = embedder(
        loaded.model, loaded.params, loaded.tokenizer, max_tokens=context, batch_size=8
    )

    service = Service(
        name=name,
        tokenizer=loaded.tokenizer,
        context=context,
        metrics=Metrics(s.metrics_prefix, name, scheduler),
        guard=guards,
        scheduler=scheduler,
        grammars=grammars,
        embed=embed,
        log=RequestLog(workdir, prompts=s.log_prompts) if s.log_requests else None,
        feedback=Feedback(workdir) if s.feedback else None,
        seconds=s.request_seconds,
    )
    return service, slots


def bound(host: str, port: int) -> socket.socket:
    """A socket that is listened on; InputError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise InputError(
            got=f"{host}:{port} ({error.strerror})",
            want="an address that is free",
            do="set serve.port; 0 takes any",
        ) from error


def serve(
    service: Any,
    slots: Slots | None,
    listening: socket.socket,
    keys: Sequence[str],
    c: ConfigDict,
) -> None:
    """Answers requests until a signal; then those that are in, for a while."""
    s = c.serve
    import uvicorn

    from llm.serve.http import make_app

    app = make_app(
        service, keys=keys, most_bytes=s.most_bytes, local=s.host in _LOOPBACK
    )
    scheduler = service.scheduler
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    class Server(uvicorn.Server):
        """Drains at the first signal, ends at the second."""

        def handle_exit(self, number, frame):
            if scheduler is None or scheduler.draining:
                self.should_exit = self.force_exit = True
                if scheduler is not None:
                    scheduler.close()
                return
            scheduler.drain()
            threading.Thread(target=self._drain, daemon=True).start()
            print(f"llm: closing; {s.shutdown_seconds} s for what is being answered")

        def _drain(self):
            scheduler.wait_idle(s.shutdown_seconds)
            scheduler.close()
            self.should_exit = True

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5,
        server_header=False, h11_max_incomplete_event_size=65_536,
    )  # fmt: skip
    server = Server(config)

    def say(text):
        if scheduler.draining:
            raise _Closed
        print(f"llm: {text}", flush=True)

    def decode():
        try:
            slots.warm_up(say)
            _say_ready(service, address)
            scheduler.run()
        except _Closed:
            pass
        except BaseException as error:
            scheduler.failed = f"{type(error).__name__}: {error}"
            raise
        finally:  # an engine that fails ends the server, too
            server.should_exit = True

    if slots is None:
        _say_ready(service, address)
        worker = None
    else:
        worker = threading.Thread(target=decode, name="decode")
        worker.start()
    try:
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        if worker is not None:
            scheduler.close()
            worker.join()
    if scheduler is not None and scheduler.failed:
        print(f"llm: {scheduler.failed}", file=sys.stderr)
        sys.exit(1)


class _Closed(Exception):
    """Nobody waits for what is compiled."""


def _say_ready(service: Any, address: str) -> None:
    service.ready = True
    print(f"llm: {service.name} at {address} (Ctrl-C ends it)", flush=True)
