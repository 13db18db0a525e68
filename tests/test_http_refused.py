"""What the server refuses, and how it outlives clients that do not behave."""

import json
import random
import threading
import urllib.error
import urllib.request

import pytest
import served
from served import given_model, given_up, post  # noqa: F401

from llm.inference.sampling import Sampling

httpx = pytest.importorskip("httpx")


LONG = {"prompt": "x" * 127, "max_tokens": 50}
BAD = [
    ("/v1/completions", b"{", 400), ("/v1/completions", b"", 400),
    ("/v1/completions", b"[" * 50_000, 400), ("/v1/completions", b"\xff\xfe", 400),
    ("/v1/completions", b'{"prompt": "a", "temperature": NaN}', 400),
    ("/v1/completions", b'{"prompt": "a", "temperature": 1e999}', 400),
    ("/v1/completions", b'{"prompt": "a", "seed": ' + b"9" * 6000 + b"}", 400),
    ("/v1/completions", {"prompt": "a", "temperature": -1}, 400),
    ("/v1/completions", {"prompt": "a", "top_p": 0}, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 10**30}, 400),
    ("/v1/completions", {"prompt": "a", "n": 1000}, 400),
    ("/v1/completions", {"prompt": ["a"] * 100, "n": 100}, 400),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"999": 1}}, 400),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400),
    ("/v1/completions", {"prompt": "a", "stop": ["x" * 201]}, 400),
    ("/v1/completions", {"prompt": "a", "temprature": 1}, 400),
    ("/v1/completions", {"prompt": []}, 400),
    ("/v1/completions", {"prompt": [-1]}, 400),
    ("/v1/completions", {"prompt": [260]}, 400),
    ("/v1/completions", {"prompt": [1 << 40]}, 400),
    ("/v1/completions", {"prompt": "\ud800"}, 400), ("/v1/completions", LONG, 400),
    ("/v1/completions", {"prompt": "x" * 5000}, 400),
    ("/v1/completions", {"prompt": "x" * 200_000}, 413),
    ("/v1/completions", {"prompt": [True]}, 400),
    ("/v1/completions", {"prompt": "a", "n": True}, 400),
    ("/v1/completions", {"prompt": "a", "stream": "yes"}, 400),
    ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "x", "content": "y"}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}],
                              "tools": [{"type": "function"}]}, 400),
    ("/v1/embeddings", {"input": []}, 400), ("/v1/embeddings", {"input": [""]}, 400),
    ("/v1/embeddings", {"input": ["\ud800"]}, 400),
    ("/v1/embeddings", {"input": [[1], [10**6]]}, 400),
    ("/tokenize", {}, 400), ("/detokenize", {"tokens": [10**8]}, 400),
    ("/feedback/rating", {"prompt": "a", "answer": "b"}, 400),
    ("/nowhere", {}, 404), ("/health", {}, 405),
]  # fmt: skip


@pytest.mark.parametrize("path, body, status", BAD, ids=range(len(BAD)))
def test_what_is_refused(up, path, body, status):
    got = post(up[0], path, body)
    assert got.status_code == status, got.text
    error = got.json()["error"]
    assert error["message"] and len(error["message"]) < 600 and error["type"]
    assert up[1].busy == 0


@pytest.mark.parametrize(
    "path, body, said",
    [
        ("completions", {"prompt": [1, "a"]}, "prompt: got [1, 'a']; want a text, a"),
        ("completions", {"prompt": {"a": 1}}, "prompt: got {'a': 1}; want a text, a"),
        ("completions", {"prompt": "a", "stop": 3}, "stop: got 3; want a text of 1"),
        ("completions", {"prompt": "a", "stop": ["x"] * 17},
         "stop: List should have at most 16 items"),
        ("completions", {"prompt": "\ud800"}, "prompt: Input should be a valid string"),
        ("completions", {"prompt": "a", "temperature": True}, "temperature: Input"),
        ("completions", {"prompt": "a", "min_p": "0.5"}, "min_p: Input should be"),
        ("completions", [], "the body: Input should be"),
        ("completions", b"{1", "the body is no JSON: "),
        ("completions", {}, "prompt: Field required"),
        ("completions", {"prompt": "a", "top_p": 2}, "top_p: Input should be less"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]},
         "messages.0.content: got 5; want a text, or a list of"),
        ("chat/completions",
         {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages.0.content.0: Value error, type 'image_url'"),
        ("embeddings", {"input": 4}, "input: got 4; want a text, a list of token ids"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(up, path, body, said):
    message = post(up[0], f"/v1/{path}", body).json()["error"]["message"]
    assert message.startswith(said) and "\n" not in message


@pytest.mark.parametrize("known", [True, False], ids=["length known", "in chunks"])
def test_a_body_far_too_large_gets_its_answer(up, known):
    """Clients that send all before they listen must not see a broken pipe."""
    size, part = 10_000_000, b"x" * 65_536
    whole = (part * (size // len(part) + 1))[:size]
    url = f"{up[0]}/v1/completions"
    parts = (whole[n : n + 999_999] for n in range(0, size, 999_999))
    for _ in range(3):
        request = urllib.request.Request(url, data=whole, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        assert refused.value.code == 413
    got = httpx.post(url, content=whole if known else parts, timeout=60)
    assert got.status_code == 413 and "more bytes" in got.json()["error"]["message"]


def test_fuzzed_requests_never_fail_the_server(up):
    rng = random.Random(0)
    values = [
        None, True, -1, 0, 1, 2.5, 1e308, 10**25, "", "a", "é" * 50, [], [1, 2], ["a"],
        [[1]], {}, {"a": 1}, [None], {"type": "json_object"}, {"include_usage": True},
        {"5": 3.0}, [[-1]], [1e9],
    ]  # fmt: skip
    names = [
        "prompt", "messages", "temperature", "top_p", "top_k", "min_p", "n", "seed",
        "stop", "stream", "stream_options", "logprobs", "echo", "max_tokens", "model",
        "logit_bias", "presence_penalty", "frequency_penalty", "response_format",
        "structured_outputs", "ignore_eos", "top_logprobs", "user", "best_of",
    ]  # fmt: skip
    seen = set()
    with httpx.Client(base_url=up[0], timeout=60) as client:
        for n in range(120):
            chats = n % 2
            good = {"messages": [{"role": "user", "content": "x"}]} if chats else {
                "prompt": "x"
            }  # fmt: skip
            body = {**good, "max_tokens": 2}
            for name in rng.sample(names, rng.randrange(1, 4)):
                body[name] = rng.choice(values)
            path = "/v1/chat/completions" if chats else "/v1/completions"
            got = client.post(path, json=body)
            assert got.status_code < 500, (body, got.text)
            seen.add(got.status_code)
    assert seen == {200, 400} or seen == {200, 400, 404}
    assert up[2].scheduler.wait_idle(20) and up[1].busy == 0


def test_a_crowd_of_streams_of_which_many_vanish(up, model):
    """64 at once; those who stay get what `generate` makes; no slot stays busy."""
    url, slots, service, _ = up
    prompts = [f"prompt number {n}" for n in range(8)]
    knobs = Sampling(temperature=1.0, top_k=20)
    want = [
        served.offline(*model, [p], knobs=knobs, max_tokens=24, seed=n)[0].text
        for n, p in enumerate(prompts)
    ]
    got, wrong = {}, []

    def one(n):
        body = {
            "prompt": prompts[n % 8], "max_tokens": 24, "top_k": 20, "seed": n % 8,
            "stream": True,
        }  # fmt: skip
        text = ""
        with (
            httpx.Client(timeout=120) as client,
            client.stream("POST", url + "/v1/completions", json=body) as reply,
        ):
            if reply.status_code != 200:
                wrong.append(reply.status_code)
                return
            for count, line in enumerate(reply.iter_lines()):
                if n % 3 == 0 and count >= n % 5:
                    return  # gone, some of them before the first token
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        got[n] = text

    threads = [threading.Thread(target=one, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(got) == sum(n % 3 != 0 for n in range(64))
    assert all(text == want[n % 8] for n, text in got.items())
    assert service.scheduler.wait_idle(20)
    assert slots.busy == 0 and service.scheduler.waiting == 0


def test_a_client_that_waits_for_a_whole_answer_and_goes(up):
    url, slots, service, _ = up
    body = {"prompt": "x", "max_tokens": 120, "n": 30, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + "/v1/completions", json=body, timeout=0.05)
    assert service.scheduler.wait_idle(5) and slots.busy == 0
