"""The server by its official client, by hand, and by a crowd that does not behave."""

import concurrent.futures
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import served
import tiny
from served import BOS, TOKENIZER

from llm import traffic
from llm.errors import InputError
from llm.inference.embed import Embedded
from llm.inference.prompts import inputs_of
from llm.inference.sampling import Sampling
from llm.serve.guard import Check, Guard

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def model():
    return served.model()


@pytest.fixture(scope="module")
def up(model, tmp_path_factory):
    """(address, slots, service, folder) of a server."""
    folder = tmp_path_factory.mktemp("serve")
    service, slots = served.make_service(
        *model, folder=str(folder), most_waiting=200, most_of_client=200
    )
    with served.running(service) as url:
        yield url, slots, service, folder


@pytest.fixture
def client(up):
    with openai.OpenAI(
        base_url=up[0] + "/v1", api_key="none", max_retries=0, timeout=60
    ) as made:
        yield made


def post(url, path, content, **headers):
    headers = {"content-type": "application/json", **headers}
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(url + path, content=content, headers=headers, timeout=60)


def test_completions_are_what_generate_makes(client, model):
    knobs = Sampling(temperature=0.9, top_p=0.8, presence_penalty=0.5)
    for prompt in ("one", "another prompt"):
        (want,) = served.offline(*model, [prompt], knobs=knobs, max_tokens=20, seed=3)
        got = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=20, seed=3, temperature=0.9,
            top_p=0.8, presence_penalty=0.5,
        )  # fmt: skip
        assert got.choices[0].text == want.text
        assert got.usage.prompt_tokens == len(prompt) + 1
        assert got.object == "text_completion"


def test_chat_streams_what_it_answers(client, model):
    ask = {
        "model": "tiny", "messages": [{"role": "user", "content": "hé"}],
        "max_completion_tokens": 25, "seed": 11, "temperature": 1.1,
    }  # fmt: skip
    whole = client.chat.completions.create(**ask)
    (want,) = served.offline(
        *model, ["u:hé\na:"], knobs=Sampling(1.1), max_tokens=25, seed=11
    )
    assert whole.choices[0].message.content == want.text
    events = list(
        client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [e.choices[0].delta.content or "" for e in events if e.choices]
    assert "".join(texts) == want.text
    assert events[0].choices[0].delta.role == "assistant"
    reasons = [e.choices[0].finish_reason for e in events if e.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])
    assert events[-1].usage == whole.usage and len({e.id for e in events}) == 1


def test_choices_differ_and_each_is_its_own_seed(client):
    ask = {"model": "tiny", "prompt": ["a", "b"], "max_tokens": 12, "seed": 5}
    got = client.completions.create(**ask, n=3)
    again = client.completions.create(**ask, n=3)
    texts = [choice.text for choice in got.choices]
    assert texts == [choice.text for choice in again.choices]
    assert [choice.index for choice in got.choices] == list(range(6))
    assert len(set(texts)) == 6
    one = client.completions.create(**ask | {"prompt": "b"})
    assert one.choices[0].text == texts[3]


def test_echo_with_likelihoods(client, model):
    """Of the prompt and what follows, against full forwards."""
    of, params = model
    got = client.completions.create(
        model="tiny", prompt="some text", max_tokens=4, temperature=0, logprobs=3,
        echo=True,
    )  # fmt: skip
    choice = got.choices[0]
    ids = [BOS, *TOKENIZER.encode("some text")]
    while len(ids) < 14:
        row = inputs_of([ids], multiple=32)
        logits = np.array(tiny.logits(of, params, row))[0, len(ids) - 1, :260]
        logits[[256, 257, 258]] = -np.inf
        ids.append(int(logits.argmax()))
    logits = np.array(tiny.logits(of, params, inputs_of([ids], multiple=32)))[
        0, :, :260
    ]
    want = [None]
    for n in range(1, len(ids)):
        row = logits[n - 1].astype(float)
        if n > 9:
            row[[256, 257, 258]] = -np.inf  # never chosen
        top = row.max()
        want.append(row[ids[n]] - top - math.log(np.exp(row - top).sum()))
    assert choice.logprobs.token_logprobs[0] is None
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1:], want[1:], atol=1e-3)
    assert choice.text.startswith("some text")
    assert all(len(top) == 3 for top in choice.logprobs.top_logprobs[1:10])
    offsets = choice.logprobs.text_offset
    assert offsets[:4] == [0, 0, 1, 2] and len(offsets) == len(ids)


def test_a_prompt_is_scored_without_an_answer(client):
    got = client.completions.create(
        model="tiny", prompt=[65, 66, 67], max_tokens=0, echo=True, logprobs=1
    )
    choice = got.choices[0]
    assert choice.text == "ABC" and len(choice.logprobs.tokens) == 3
    assert got.usage.completion_tokens == 0
    same = client.completions.create(
        model="tiny", prompt="BC", max_tokens=0, echo=True, logprobs=0
    )
    assert same.choices[0].logprobs.tokens == ["<258>", "B", "C"]


def test_likelihoods_of_a_chat(client):
    got = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=6,
        temperature=0, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    held = got.choices[0].logprobs.content
    assert len(held) == 6
    for one in held:
        assert one.logprob == pytest.approx(one.top_logprobs[0].logprob)
        assert one.top_logprobs[0].bytes == one.bytes


def test_stops(client, model):
    (whole,) = served.offline(
        *model, ["one"], knobs=Sampling(0.9), max_tokens=60, seed=3
    )
    stop = whole.text[10:12]
    at = whole.text.index(stop)
    got = client.completions.create(
        model="tiny", prompt="one", max_tokens=60, seed=3, temperature=0.9, stop=stop
    )
    assert got.choices[0].text == whole.text[:at]
    assert got.choices[0].finish_reason == "stop"


def test_a_schema_is_kept_by_a_model_that_knows_nothing(client):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "kind": {"enum": ["cat", "dog"]},
            "ages": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["name", "kind", "ages"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema}}
    for seed in range(3):
        got = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "a pet"}], seed=seed,
            response_format=form, max_tokens=110,
        )  # fmt: skip
        found = json.loads(got.choices[0].message.content)
        assert set(found) == {"name", "kind", "ages"} and found["kind"] in (
            "cat",
            "dog",
        )
        assert got.choices[0].finish_reason == "stop"
    got = client.completions.create(
        model="tiny", prompt="x", max_tokens=9, n=2,
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    )  # fmt: skip
    assert {choice.text for choice in got.choices} <= {"yes", "no"}
    for form in ({"regex": "(("}, {"regex": "[^\\s\\S]"}, {"json": {"$ref": "#"}}):
        with pytest.raises(openai.BadRequestError, match="grammar"):
            client.completions.create(
                model="tiny", prompt="x", extra_body={"structured_outputs": form}
            )


def test_embeddings(client, up):
    texts = ["one text", "another", "one text"]
    got = client.embeddings.create(model="tiny", input=texts)  # as base64
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    want = up[2].embed(texts).vectors
    ids = [TOKENIZER.encode(text) for text in texts]
    by_ids = client.embeddings.create(model="tiny", input=ids)
    np.testing.assert_array_equal(
        [x.embedding for x in by_ids.data], [x.embedding for x in got.data]
    )
    alone = client.embeddings.create(model="tiny", input=ids[1])
    np.testing.assert_allclose(alone.data[0].embedding, want[1], atol=1e-6)
    for n in range(3):
        np.testing.assert_allclose(got.data[n].embedding, want[n], atol=1e-6)
        np.testing.assert_allclose(plain.data[n].embedding, want[n], atol=1e-6)


def test_a_text_too_long_for_a_vector_is_refused(up):
    """In silence, it would be the vector of its beginning."""
    for longest, status in ((126, 200), (130, 400)):
        got = post(up[0], "/v1/embeddings", {"input": ["short", "x" * longest]})
        assert got.status_code == status
    assert got.json()["error"]["code"] == "context_length_exceeded"
    assert "1 of 2 texts" in got.json()["error"]["message"]


def test_models_and_tokens(client, up):
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")
    made = post(up[0], "/tokenize", {"prompt": "hé"}).json()
    assert made["tokens"] == list("hé".encode()) and made["count"] == 3
    chat = {"messages": [{"role": "user", "content": "x"}]}
    assert post(up[0], "/tokenize", chat).json()["tokens"][0] == BOS
    assert post(up[0], "/detokenize", {"tokens": [104, 105]}).json()["prompt"] == "hi"


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
    ("/v1/completions", {"prompt": "a", "stop": [""]}, 400),
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
         "messages.0.content.0.type: Input should be 'text'"),
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


def test_metrics_and_log(up, client):
    url, _, _, folder = up
    client.completions.create(model="tiny", prompt="counted", max_tokens=3)
    text = httpx.get(url + "/metrics").text
    held = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")
    )
    assert float(held['llm:generation_tokens_total{model_name="tiny"}']) >= 3
    assert held['llm:num_requests_running{model_name="tiny"}'] == "0.0"
    count = 'llm:time_to_first_token_seconds_count{model_name="tiny"}'
    assert float(held[count]) >= 1
    lines = [
        json.loads(x) for x in (folder / "requests.jsonl").read_text().splitlines()
    ]
    last = lines[-1]
    assert (last["prompt_tokens"], last["completion_tokens"]) == (8, 3)
    assert last["finish_reason"] == "length" and last["mean_logprob"] < 0
    assert not {"prompt", "completion"} & set(last)
    read = traffic.read(str(folder / "requests.jsonl"))
    assert [r.prompt_tokens for r in read] == [line["prompt_tokens"] for line in lines]


def test_feedback_is_what_preference_training_reads(up):
    url, _, _, folder = up
    post(url, "/feedback/preference", {"prompt": "p", "chosen": "c", "rejected": "r"})
    messages = [{"role": "user", "content": "q"}]
    first = {"messages": messages, "answer": "bad", "good": False}
    assert post(url, "/feedback/rating", first).json()["preference"] is False
    second = {"messages": messages, "answer": "fine", "good": True}
    assert post(url, "/feedback/rating", second).json()["preference"] is True
    lines = (folder / "preferences.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {
            "prompt": messages,
            "chosen": [{"role": "assistant", "content": "fine"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
    ]


def test_keys_hosts_and_health(model):
    service, _ = served.make_service(*model)
    service.ready = False
    with served.running(service, keys=("one-secret-key",)) as url:
        body = {"prompt": "x", "max_tokens": 1}
        assert httpx.get(url + "/health").status_code == 200
        assert httpx.get(url + "/ready").status_code == 503
        assert httpx.get(url + "/metrics").status_code == 200
        assert post(url, "/v1/completions", body).status_code == 401
        assert httpx.get(url + "/v1/models").status_code == 401
        wrong = post(url, "/v1/completions", body, authorization="Bearer nonsense")
        assert wrong.status_code == 401
        known = {"authorization": "Bearer one-secret-key"}
        assert post(url, "/v1/completions", body, **known).status_code == 503
        service.ready = True
        assert httpx.get(url + "/ready").status_code == 200
        assert post(url, "/v1/completions", body, **known).status_code == 200
        elsewhere = post(url, "/v1/completions", body, **known, host="evil.example")
        assert elsewhere.status_code == 403
        assert post(url, "/feedback/rating", {}, **known).status_code == 404
        service.scheduler.drain()
        assert post(url, "/v1/completions", body, **known).status_code == 503
        assert httpx.get(url + "/ready").status_code == 503


def test_a_full_queue_says_429(model):
    service, _ = served.make_service(*model, count=1, most_waiting=1)
    with served.running(service) as url:
        body = {"prompt": "x", "max_tokens": 100, "n": 3}
        got = post(url, "/v1/completions", body)
        assert got.status_code == 429 and got.headers["retry-after"] == "1"
        assert got.json()["error"]["type"] == "rate_limit_error"
        assert post(url, "/v1/completions", body | {"n": 2}).status_code == 200


def test_a_guard_of_prompts_and_answers(model):
    def find(text):
        return [(n, n + 1) for n, char in enumerate(text) if char in "QZ"]

    (whole,) = served.offline(
        *model, ["one"], knobs=Sampling(0.9), max_tokens=60, seed=3
    )
    letter = next(char for char in whole.text if char.isascii() and char.isalpha())

    def in_answer(text):
        return [(n, n + 1) for n, char in enumerate(text) if char == letter]

    guards = Guard(
        [
            ("prompts", Check(find, 1), "block"),
            ("letter", Check(in_answer, 1), "redact"),
        ]
    )
    service, slots = served.make_service(*model, guard=guards)
    with served.running(service) as url:
        body = {"prompt": "one", "max_tokens": 60, "seed": 3, "temperature": 0.9}
        blocked = post(url, "/v1/completions", {**body, "prompt": "a Quiz"})
        assert blocked.status_code == 400 and "prompts" in blocked.text
        got = post(url, "/v1/completions", body).json()["choices"][0]
        want = whole.text.replace(letter, "[redacted]")
        for char in "QZ":
            want = want.partition(char)[0]
        assert got["text"] == want
        # Tokens would spell what the text does not show.
        for more in ({"logprobs": 3}, {"logprobs": 0, "echo": True}):
            told = post(url, "/v1/completions", body | more).json()["choices"][0]
            assert told["logprobs"] is None
        text = httpx.get(url + "/metrics").text
        assert 'llm:guard_findings_total{check="letter"' in text
        assert 'check="prompts",model_name="tiny",side="prompt"} 1.0' in text
    assert slots.busy == 0


def test_a_grammar_that_gets_stuck_is_its_own_affair(model):
    """Others go on, those with grammars too, and say what they would alone."""
    service, slots = served.make_service(*model, count=4)
    real, made = service.grammars.matcher, []

    def matcher(kind, what):
        held = real(kind, what)
        made.append(held)
        if what == "stuck":
            taken, allowed_W = [], held.allowed_W

            def stuck_W():
                if len(taken) == 2:
                    raise InputError(got="a grammar", want="another")
                return allowed_W()

            take = held.take
            held.take = lambda token: (taken.append(token), take(token))
            held.allowed_W = stuck_W
        return held

    service.grammars.matcher = matcher
    with served.running(service) as url:
        bodies = [
            {"prompt": "x", "max_tokens": 20, "seed": 1, "structured_outputs": form}
            for form in (
                {"regex": "[a-z]{30}"},
                {"regex": "stuck"},
                {"regex": "[0-9]+"},
            )
        ]
        alone = [post(url, "/v1/completions", body).json() for body in bodies]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            got = [
                pool.submit(post, url, "/v1/completions", body) for body in bodies * 4
            ]
        for number, answer in enumerate(got):
            answer, want = answer.result(), alone[number % 3]
            if number % 3 == 1:
                assert answer.status_code == 400 and "grammar" in answer.text
            else:
                assert answer.json()["choices"] == want["choices"]
    assert len(made) == 15 and slots.busy == 0


def test_first_tokens_come_before_the_last(up):
    """It streams: the first event is long before the end."""
    body = {"prompt": "x", "max_tokens": 100, "stream": True, "ignore_eos": True}
    times = []
    with httpx.stream("POST", up[0] + "/v1/completions", json=body, timeout=60) as got:
        for line in got.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
    assert len(times) >= 3


def test_a_model_that_only_reads(model):
    """An encoder has embeddings and tokens, and says what it has not."""
    from llm.serve.guard import Guard as Checks
    from llm.serve.http import make_app
    from llm.serve.metrics import Metrics
    from llm.serve.service import Service

    service = Service(
        name="reader", tokenizer=TOKENIZER, context=64, guard=Checks(),
        metrics=Metrics("llm", "reader"), ready=True,
        embed=lambda texts: Embedded(np.ones((len(texts), 3), np.float32), 0),
    )  # fmt: skip
    app = make_app(service, keys=(), most_bytes=1000, local=True)
    from starlette.testclient import TestClient

    with TestClient(app, base_url="http://localhost") as client:
        got = client.post("/v1/completions", json={"prompt": "x"})
        assert got.status_code == 400 and "only reads" in got.json()["error"]["message"]
        made = client.post("/v1/embeddings", json={"input": ["a", "b"]}).json()
        assert [len(one["embedding"]) for one in made["data"]] == [3, 3]
        assert client.get("/ready").status_code == 200
        assert "num_requests_running" in client.get("/metrics").text
        page = client.get("/")
        assert 'data-generates="false"' in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
