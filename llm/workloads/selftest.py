"""Serves a model and asks it, as its users will: through HTTP, in another process.

selftest.json holds what was asked and answered. A server that does not start, does not
answer, or does not end when it is told to, is an error.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from llm import files, registry, run_dir
from llm.errors import InputError

_READY = re.compile(r" at (http://\S+)")
_START_SECONDS, _ANSWER_SECONDS, _END_SECONDS = 600, 300, 60
# A process of its own, so that signals, ports and threads are those of a real server.
_SERVER = """
import json, sys
from ml_collections import ConfigDict
from llm import registry
c = ConfigDict(json.load(open(sys.argv[1])))
registry.build("workloads", "serve")(c.lock(), sys.argv[2])
"""

SECTIONS_OF = ("serve", "generate")


def run(c: ConfigDict, workdir: str) -> None:
    """Asks the server of `c.serve.model_dir` and writes what it says."""
    check(c)
    root = epath.Path(workdir)
    files.write_text(root / "serve_config.json", json.dumps(c.to_dict()))
    command = [sys.executable, "-c", _SERVER, os.fspath(root / "serve_config.json")]
    log = root / "selftest.log"
    with open(log, "w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, os.fspath(root / "server")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            address = _address(process, log)
            result = _asked(address, c)
            process.send_signal(signal.SIGTERM)
            code = process.wait(_END_SECONDS)
        finally:
            process.kill()
    if code != 0:
        raise InputError(
            got=f"exit code {code} of the server", want="0", do=f"see {log}"
        )
    run_dir.write(workdir, "selftest.json", result)
    for one in result["answers"]:
        print(f"{one['what']}: {one['answer']!r}")
    print(f"{result['requests']} requests, {result['tokens_per_s']:.1f} tokens/s")


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be served."""
    registry.module("workloads", "serve").check(c)


def _address(process: subprocess.Popen, log: epath.Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        found = _READY.search(log.read_text("utf-8"))
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.2)
    last = (log.read_text("utf-8").strip().splitlines() or ["nothing"])[-1]
    raise InputError(
        got=f"a server that did not start: {last}", want="its address", do=f"see {log}"
    )


def _asked(address: str, c: ConfigDict) -> dict[str, Any]:
    """Every way to ask that the model has."""
    name = _call(address, "/v1/models")["data"][0]["id"]
    answers, tokens, seconds = [], 0, 0.0
    for prompt in c.generate.prompts:
        start = time.perf_counter()
        if c.generate.chat:
            body = {"messages": [{"role": "user", "content": prompt}]}
            made = _call(address, "/v1/chat/completions", _wanted(name, c) | body)
            answer = made["choices"][0]["message"]["content"]
        else:
            body = {"prompt": prompt}
            made = _call(address, "/v1/completions", _wanted(name, c) | body)
            answer = made["choices"][0]["text"]
        seconds += time.perf_counter() - start
        tokens += made["usage"]["completion_tokens"]
        answers.append({"what": prompt, "answer": answer})
    metrics = _fetch(f"{address}/metrics").decode()
    if "requests_running" not in metrics.replace(":", "_"):
        raise InputError(got="/metrics without requests", want="what is running")
    return {
        "answers": answers,
        "requests": len(answers) + 2,
        "tokens": tokens,
        "tokens_per_s": tokens / max(seconds, 1e-9),
    }


def _wanted(name: str, c: ConfigDict) -> dict[str, Any]:
    g = c.generate
    return {"model": name, "max_tokens": g.max_tokens, "temperature": g.temperature}


def _call(address: str, path: str, body: Any = None) -> Any:
    return json.loads(_fetch(address + path, body))


def _fetch(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json"} if data else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise InputError(
            got=f"{error.code} from {url}: {said[:300]}", want="an answer"
        ) from error
