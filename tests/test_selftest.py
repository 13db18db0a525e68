"""The self-test tells a server that answers from one that does not."""

import json

import pytest

from llm import config
from llm.errors import InputError
from llm.workloads import selftest

# A server of the standard library, which answers as ours does.
GOOD = """
import http.server, json, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        models = json.dumps({"data": [{"id": "m"}]})
        self.answer(models if "models" in self.path else "llm:num_requests_running 0")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["model"] == "m" and asked["max_tokens"] == 7, asked
        if self.path == "/v1/completions":
            choice = {"text": asked["prompt"].upper()}
        else:
            choice = {"message": {"content": asked["messages"][0]["content"] + "!"}}
        made = {"choices": [choice], "usage": {"completion_tokens": 5}}
        self.answer(json.dumps(made))

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODE))
print(f"m at http://127.0.0.1:{server.server_port} (Ctrl-C ends it)", flush=True)
server.serve_forever()
"""


def asked(monkeypatch, folder, server, **generate):
    monkeypatch.setattr(selftest, "_SERVER", server)
    monkeypatch.setattr(selftest, "check", lambda c: None)
    c = config.base()
    c.generate.update(prompts=("one", "two"), max_tokens=7, **generate)
    selftest.run(c.lock(), str(folder))
    return json.loads((folder / "selftest.json").read_text())


@pytest.mark.parametrize(
    ("chat", "answers"), [(False, ["ONE", "TWO"]), (True, ["one!", "two!"])]
)
def test_what_was_answered(chat, answers, monkeypatch, tmp_path):
    good = GOOD.replace("CODE", "0")
    result = asked(monkeypatch, tmp_path, good, chat=chat)
    assert [one["answer"] for one in result["answers"]] == answers
    assert result["tokens"] == 10 and result["requests"] == 4


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("print('llm: got no port', flush=True)", "did not start: llm: got no port"),
        (GOOD.replace("CODE", "3"), "exit code 3 of the server"),
        (GOOD.replace("send_response(200)", "send_response(503)"), "503 from http"),
        (GOOD.replace("num_requests_running", "up"), "/metrics without requests"),
    ],
)
def test_servers_that_fail(server, words, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=words):
        asked(monkeypatch, tmp_path, server.replace("CODE", "0"))
    assert not (tmp_path / "selftest.json").exists()
