"""The server by its official client and by hand."""

import concurrent.futures
import json
import math
import time

import numpy as np
import pytest
import served
import tiny
from served import BOS, TOKENIZER, given_model, given_up, post  # noqa: F401

from llm.errors import InputError
from llm.inference.embeddings import Embedded
from llm.inference.prompt_rows import inputs_of
from llm.inference.sampling import Sampling
from llm.serve import request_record
from llm.serve.guard import Check, Guard

openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")

GREEDY = Sampling(temperature=0.0)


@pytest.fixture
def client(up):
    with openai.OpenAI(
        base_url=up[0] + "/v1", api_key="none", max_retries=0, timeout=60
    ) as made:
        yield made


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


def test_metrics_and_log(up, client):
    url, _, _, folder = up
    client.completions.create(
        model="tiny", prompt="counted", max_tokens=3, temperature=0
    )
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
    read = request_record.read(str(folder / "requests.jsonl"))
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
    from llm.serve.prometheus import Metrics
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


@pytest.mark.parametrize(
    "path, prompt",
    [
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_no_limit_is_the_context(up, path, prompt):
    """-1 fills the context; without a limit, completions have 16 tokens."""
    body = {**prompt, "ignore_eos": True}
    used = post(up[0], path, {**body, "max_tokens": -1}).json()["usage"]
    assert used["total_tokens"] == 128
    used = post(up[0], path, body).json()["usage"]
    assert (used["completion_tokens"] == 16) == (path == "/v1/completions")
    assert post(up[0], path, {**body, "max_tokens": -2}).status_code == 400
