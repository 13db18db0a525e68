"""The command: what it refuses, and how it ends; and what it writes down."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pii_table
import pytest
from test_convert import make_run

from llm import config
from llm.errors import InputError
from llm.serve.auth import read_keys
from llm.serve.request_log import scrub
from llm.workloads import serve

for package in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(package)
ROOT = pathlib.Path(__file__).parent.parent


def serve_config(**knobs):
    c = config.debug(config.base("serve"))
    c.serve.update(knobs)
    return c.lock()


@pytest.mark.parametrize(
    "knobs, said",
    [
        ({"slots": 0}, "serve.slots 0"),
        ({"port": 70_000}, "serve.port 70000"),
        ({"host": "0.0.0.0"}, "serve.host 0.0.0.0 without keys"),
        ({"metrics_prefix": "a-b"}, "metrics_prefix 'a-b'"),
        ({"api_keys_file": "/no/such/file"}, "/no/such/file"),
        ({"guard": (("wrods", "block"),)}, "did you mean 'words'"),
        ({"model_dir": "/no/such/model"}, "/no/such/model"),
    ],
)
def test_what_is_refused_leaves_nothing(knobs, said, tmp_path):
    c = serve_config(**knobs)
    with pytest.raises(InputError, match=said):
        config.check(c)
        serve.run(c, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_keys_are_read_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# who: anna\nfirst-secret\n\n  second-secret \n")
    assert read_keys(str(path)) == ("first-secret", "second-secret")
    assert read_keys("") == ()
    for bad in ("", "# none\n", "short\n", "schlüssel-lang\n"):
        path.write_text(bad)
        with pytest.raises(InputError, match="8 plain letters"):
            read_keys(str(path))


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} .*in use"):
            serve.bound("127.0.0.1", port)


@pytest.mark.parametrize(
    "text, want",
    [
        ("write to anna.b+c@mail.example.org!", "write to [email]!"),
        ("ring +49 (0)30 1234567 now", "ring [phone] now"),
        ("call 555-123-4567", "call [phone]"),
        ("card 4111 1111 1111 1111.", "card [card]."),
        ("from 192.168.10.254 on", "from [ip] on"),
        ("ssn 078-05-1120", "ssn [ssn]"),
        ("key sk-abcdefghijklmnop1234", "key [key]"),
        ("DE89 3704 0044 0532 0130 00 is it", "[iban] is it"),
        ("https://user:pass@host/x", "https://[url_login]@host/x"),
        # What is none of these stays.
        ("in 2026 we had 12,345 of 3.14159 at 10:45", None),
        ("x = [1, 2, 3]; version 1.2.3; 5 - 3 = 2", None),
        ("pages 12-15, rooms 101 and 102", None),
    ],
)
def test_what_tells_of_a_person_is_taken_out(text, want):
    assert scrub(text) == (text if want is None else want)


def test_what_is_personal_in_a_corpus_is_so_in_a_log():
    known = [(text, said) for text, *found in pii_table.FOUND for _, said in found]
    left = [said for text, said in known if said in scrub(text)]
    # Seven digits alone are no number of a telephone.
    assert len(known) > 100 and left == ["555-0123"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "trained")


def start(trained, workdir, *more):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "llm.main", "--config=configs/serve.py:debug",
         f"--workdir={workdir}", f"--config.serve.model_dir={trained}", *more],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def address(process):
    for line in process.stdout:
        if found := re.search(r"at (http://\S+)", line):
            return found[1]
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_asked_end(trained, tmp_path, number):
    """A stream that runs is finished; then exit code 0, and no word of complaint."""
    httpx = pytest.importorskip("httpx")
    process = start(trained, tmp_path / "out")
    url = address(process)
    body = {"prompt": "a", "max_tokens": 55, "stream": True, "ignore_eos": True}
    lines = []
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if not lines:
                process.send_signal(number)
            lines.append(line)
    assert lines[-2] == "data: [DONE]"
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    log = (tmp_path / "out" / "requests.jsonl").read_text()
    assert json.loads(log)["completion_tokens"] == 55
    assert process.stdout.read().startswith("llm: closing; 30 s")


@pytest.mark.slow
def test_a_second_signal_ends_at_once(trained, tmp_path):
    httpx = pytest.importorskip("httpx")
    process = start(trained, tmp_path / "out")
    url = address(process)
    body = {
        "prompt": "a", "max_tokens": 55, "n": 128, "stream": True, "ignore_eos": True,
    }  # fmt: skip
    seen = 0
    try:
        with httpx.stream(
            "POST", f"{url}/v1/completions", json=body, timeout=60
        ) as reply:
            assert reply.status_code == 200
            for _ in reply.iter_lines():
                seen += 1
                if seen == 1:
                    process.send_signal(signal.SIGINT)
                    time.sleep(0.1)
                    process.send_signal(signal.SIGINT)
    except httpx.HTTPError:
        pass
    assert process.wait(10) == 0
    log = (tmp_path / "out" / "requests.jsonl").read_text().splitlines()
    assert any(json.loads(line)["finish_reason"] == "closed" for line in log)


@pytest.mark.slow
def test_a_folder_belongs_to_one_config(trained, tmp_path):
    process = start(trained, tmp_path / "out")
    address(process)
    process.terminate()
    assert process.wait(30) == 0
    (tmp_path / "out" / "requests.jsonl").write_text("{}\n")
    process = start(trained, tmp_path / "out", "--config.serve.slots=1")
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2 and "serve.slots" in complaint
