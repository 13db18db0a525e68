"""Bodies as clients of other servers send them: answered, or refused in words."""

import concurrent.futures
import contextlib
import dataclasses
import json
import socket
import threading

import jax
import pytest
from served import (  # noqa: F401
    TOKENIZER,
    UNK,
    Bytes,
    given_model,
    given_up,
    make_service,
    post,
    running,
    streamed,
)

from llm.errors import InputError
from llm.inference.decoding import text_of
from llm.serve.feedback import PREFERENCES, Feedback

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

ASKED = [{"role": "user", "content": "hi"}]
# What the official client gives back of an answer, which people append and send again.
RETURNED = {"role": "assistant", "content": "yo", "refusal": None, "annotations": [],
            "audio": None, "function_call": None, "tool_calls": None}  # fmt: skip
ANSWERED = {
    "openai, the returned message": {
        "messages": [*ASKED, RETURNED, {"role": "user", "content": "and?"}]},
    "openai, everything spelled out": {
        "messages": ASKED, "model": "tiny", "temperature": None, "top_p": None,
        "n": None, "stream": False, "stop": None, "max_tokens": 4,
        "max_completion_tokens": None,
        "presence_penalty": None, "logit_bias": None, "logprobs": None,
        "top_logprobs": None, "response_format": None, "seed": None, "tools": None,
        "tool_choice": None, "parallel_tool_calls": None, "user": None,
        "reasoning_effort": None, "modalities": ["text"], "prediction": None},
    "LangChain": {
        "messages": [{"role": "user", "content": "hi", "name": None}],
        "model": "tiny", "n": 1, "stream": False, "temperature": 0.7, "max_tokens": 4},
    "LiteLLM": {
        "messages": ASKED, "model": "tiny", "extra_body": {}, "max_tokens": 4,
        "tools": [], "functions": []},
    "Open WebUI": {
        "messages": ASKED, "model": "tiny", "stream": False, "max_tokens": 4,
        "stream_options": None, "files": [], "features": {}, "variables": {},
        "chat_template_kwargs": {}, "session_id": ""},
    "Continue": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "model": "tiny", "max_tokens": 4, "parallel_tool_calls": False},
    "Agents SDK without tools": {
        "messages": ASKED, "model": "tiny", "max_tokens": 4, "tool_choice": "auto",
        "parallel_tool_calls": True, "store": None, "metadata": None, "tools": []},
    "llama.cpp's samplers at values that do nothing": {
        "messages": ASKED, "repeat_penalty": 1.0, "typical_p": 1.0, "mirostat": 0,
        "xtc_probability": 0, "dry_multiplier": 0, "n_probs": 0, "tfs_z": 1},
    "best of one": {"messages": ASKED, "best_of": 1},
    "stops that are empty": {"messages": ASKED, "stop": ["", "x"]},
    "an empty stop": {"messages": ASKED, "stop": ""},
    "tools that are not to be called": {
        "messages": ASKED, "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "none"},
    "marks of other servers": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi",
                                          "cache_control": {"type": "ephemeral"}}]},
            RETURNED | {"id": "msg_1"}, *ASKED]},
    "vLLM's extras at their defaults": {
        "messages": ASKED, "max_tokens": 4, "top_k": None, "min_p": None,
        "repetition_penalty": None, "length_penalty": 1.0, "ignore_eos": None,
        "skip_special_tokens": True, "add_generation_prompt": True,
        "spaces_between_special_tokens": True, "min_tokens": 0, "stop_token_ids": []},
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_answered(up, name):
    got = post(up[0], "/v1/chat/completions", {"max_tokens": 4} | ANSWERED[name])
    assert got.status_code == 200, got.text
    assert got.json()["choices"][0]["message"]["role"] == "assistant"


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
FORM = {"type": "json_object"}
REFUSED = {
    "tools": ({"tools": [TOOL]}, "tools: this server does not call tools"),
    "a forced tool": ({"tool_choice": "required"}, "does not call tools"),
    "a result of a tool": (
        {"messages": [*ASKED, {"role": "tool", "content": "1", "tool_call_id": "x"}]},
        "does not call tools"),
    "a call": (
        {"messages": [*ASKED, RETURNED | {"tool_calls": [{"id": "x"}]}]},
        "tool_calls: this server does not call tools"),
    "an extra that asks for something": ({"min_tokens": 5}, "min_tokens"),
    "no sampling": ({"do_sample": False}, "do_sample"),
    "no thinking, where the template's variables are": (
        {"enable_thinking": False}, "enable_thinking"),
    "no thinking, as Ollama has it": ({"think": False}, "think"),
    "no tokens, in the words of llama.cpp": ({"n_predict": 0}, "n_predict"),
    "no tokens, in those of transformers": ({"max_new_tokens": 0}, "max_new_tokens"),
    "no token in front": ({"add_bos_token": False}, "add_bos_token"),
    "a zero that we do not know": ({"prompt_logprobs": 0}, "prompt_logprobs"),
    "special tokens shown": ({"skip_special_tokens": False}, "skip_special_tokens"),
    "no prompt for an answer": ({"add_generation_prompt": False},
                                "add_generation_prompt"),
    "two forms": ({"structured_outputs": {"choice": ["a"], "regex": "b"}},
                  "regex and choice: want one of them"),
    "two forms in two places": (
        {"structured_outputs": {"choice": ["a"]}, "response_format": FORM},
        "response_format and structured_outputs: want one of them"),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "content"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(up, name):
    body, words = REFUSED[name]
    got = post(up[0], "/v1/chat/completions", {"messages": ASKED} | body)
    assert got.status_code == 400 and words in got.json()["error"]["message"], got.text


def test_a_method_that_is_not_there_says_which_are(up):
    got = post(up[0], "/health", {})
    assert got.status_code == 405 and "GET" in got.headers["allow"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_named(up, kind):
    got = post(up[0], "/v1/completions", {"prompt": "a"}, **{"content-type": kind})
    assert got.status_code == 400
    assert f"got content-type '{kind}'" in got.json()["error"]["message"]


def test_a_body_that_does_not_come_is_given_up(up, monkeypatch):
    monkeypatch.setattr("llm.serve.auth._WHOLE", 0.5)
    host, port = up[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        )
        assert b" 408 " in connection.recv(100)


def test_a_stop_is_counted_alike_whenever_it_is_seen(up):
    """Tokens behind a stop are none of the answer's, however they came."""
    body = {"prompt": "ab", "max_tokens": 60, "temperature": 0, "logprobs": 0}
    body["logit_bias"] = {str(byte): -100 for byte in range(128, 256)}  # plain letters
    whole = post(up[0], "/v1/completions", body).json()["choices"][0]
    tokens, text = whole["logprobs"]["tokens"], whole["text"]
    size = next(n for n in range(3, 40) if text[n : n + 2] not in text[: n + 1]) + 2
    for n in (1, 3):  # more answers come in other pieces
        more = {"stop": text[size - 2 : size], "n": n, "seed": 1}
        got = post(up[0], "/v1/completions", body | more).json()
        for choice in got["choices"]:
            assert choice["text"] == text[: size - 2]
            assert choice["finish_reason"] == "stop"
            assert choice["logprobs"]["tokens"] == tokens[:size]
        assert got["usage"]["completion_tokens"] == n * size


EMOJI = "👩".encode()


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("cut", range(1, 9))
def test_half_a_character_at_the_end_is_dropped(up, path, cut):
    """A stream, a whole answer and `generate` agree; bytes of tokens stay exact."""
    chats = path.startswith("chat")
    body = {"max_tokens": cut, "temperature": 0}
    body |= {"structured_outputs": {"regex": "👩👩"}}
    body |= {"messages": ASKED} if chats else {"prompt": "a"}
    body |= {"logprobs": True, "top_logprobs": 0} if chats else {"logprobs": 0}
    choice = post(up[0], f"/v1/{path}", body).json()["choices"][0]
    text = choice["message"]["content"] if chats else choice["text"]
    ids = (2 * EMOJI)[:cut]
    assert text == ids.decode(errors="ignore") == text_of(TOKENIZER, list(ids))
    if chats:
        shown = [one["bytes"] for one in choice["logprobs"]["content"]]
        assert shown == [[byte] for byte in ids]
    chunks = streamed(up[0], f"/v1/{path}", body)
    part = (lambda c: c["delta"].get("content", "")) if chats else (lambda c: c["text"])
    assert "".join(part(c) for c in chunks) == text


@pytest.mark.parametrize("special, start", [(None, 1), ({}, 1), (True, 1), (False, 0)])
@pytest.mark.parametrize("prompt", ["BC", ["BC", "D"], [66, 67], [[66, 67], [68]]])
def test_special_tokens_are_put_before_texts(up, prompt, special, start):
    """As vLLM has it: by default, before texts; never before ids."""
    body = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 0}
    body |= {} if special == {} else {"add_special_tokens": special}
    choices = post(up[0], "/v1/completions", body).json()["choices"]
    texts = isinstance(prompt, str) or isinstance(prompt[0], str)
    begun = ["<258>"] if texts and start else []
    got = [choice["logprobs"]["tokens"] for choice in choices]
    assert got == [[*begun, *"BC"], [*begun, "D"]][: len(choices)]


def test_an_empty_prompt_needs_a_special_token(up):
    body = {"prompt": "", "max_tokens": 2}
    assert post(up[0], "/v1/completions", body).status_code == 200
    got = post(up[0], "/v1/completions", body | {"add_special_tokens": False})
    assert got.status_code == 400 and "add_special_tokens" in got.text


def test_thumbs(tmp_path):
    feedback = Feedback(str(tmp_path))
    path = tmp_path / PREFERENCES

    def records():
        return list(map(json.loads, path.read_text().splitlines()))

    path.touch()
    feedback.rate("q", "a", True)
    feedback.rate("q", "a", None)  # taken back
    assert not feedback.rate("q", "b", False) and not records()
    assert not feedback.rate("q", "b ", True) and not records()  # the same answer
    feedback.rate("p", "a", True)
    feedback.rate("p", "a", False)  # changed
    assert feedback.rate("p", "c", True)
    assert records() == [{"prompt": "p", "chosen": "c", "rejected": "a"}]
    with pytest.raises(InputError, match="the same"):
        feedback.prefer("q", "a", "a ")


MINE = "I am anna@mail.example.org, +49 (0)30 1234567"
SCRUBBED = "I am [email], [phone]"


def test_thumbs_taken_back_after_they_met(tmp_path):
    """A preference goes with either of its thumbs, and the other waits again."""
    feedback, file = Feedback(str(tmp_path)), tmp_path / PREFERENCES

    def pairs():
        lines = file.read_text().splitlines() if file.exists() else []
        return [(r["chosen"], r["rejected"]) for r in map(json.loads, lines)]

    assert not feedback.rate("p", "a", True) and feedback.rate("p", "b", False)
    assert feedback.rate("q", "a", True) is False and pairs() == [("a", "b")]
    assert not feedback.rate("p", "b", None) and pairs() == []
    assert feedback.rate("p", "c", False) and pairs() == [("a", "c")]
    assert feedback.rate("p", "b", False) is False
    # Turned: a is down now; c waits with b, and no thumb is up.
    assert not feedback.rate("p", "a", False) and pairs() == []
    assert feedback.rate("p", "d", True) and pairs()[0][0] == "d"


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\r"])
def test_a_thumb_taken_back_leaves_texts_with_line_separators(tmp_path, mark):
    feedback, file = Feedback(str(tmp_path)), tmp_path / PREFERENCES
    for text in (f"a{mark}b", "c"):
        feedback.rate(text, f"good{mark}", True)
        feedback.rate(text, "bad", False)
    before = file.read_bytes().split(b"\n")
    feedback.rate("c", "bad", None)
    assert file.read_bytes().split(b"\n") == [before[0], b""] and len(before) == 3
    feedback.rate(f"a{mark}b", "bad", None)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("prompt", ["prompt", "messages"])
def test_what_people_type_is_kept_without_what_tells_of_them(up, prompt):
    """Prompts, answers and corrections alike, wherever they are written."""
    url, _, _, folder = up
    about = {"prompt": MINE, "messages": [{"role": "user", "content": MINE}]}
    about = {prompt: about[prompt]}
    pair = {"chosen": f"better: {MINE}", "rejected": "worse: 192.168.10.254"}
    assert post(url, "/feedback/preference", about | pair).status_code == 200
    for answer, good in ((f"good: {MINE}", True), (f"bad: {MINE}", False)):
        body = about | {"answer": answer, "good": good}
        assert post(url, "/feedback/rating", body).status_code == 200
    for name, shown in (
        ("preferences.jsonl", [f"better: {SCRUBBED}", "worse: [ip]"]),
        ("preferences.jsonl", [f"good: {SCRUBBED}", f"bad: {SCRUBBED}"]),
        ("ratings.jsonl", [f"bad: {SCRUBBED}", SCRUBBED]),
    ):
        text = (folder / name).read_text()
        assert "anna" not in text and "1234567" not in text and "192" not in text
        assert all(json.dumps(one)[1:-1] in text for one in shown)


def test_answers_that_differ_in_what_is_taken_out_do_not_differ(up):
    pair = {"prompt": "p", "chosen": "a@mail.example.org", "rejected": "b@example.org"}
    got = post(up[0], "/feedback/preference", pair)
    assert got.status_code == 400 and "the same" in got.text


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}},
          "required": ["a"], "additionalProperties": False}  # fmt: skip
JSON = {"structured_outputs": {"json": SCHEMA}}
WORDS = {"structured_outputs": {"regex": "[a-z]{9}"}}


@dataclasses.dataclass(frozen=True)
class Lacking(Bytes):
    """A tokenizer that has no token for digits."""

    piece_bytes: tuple = tuple(b"" if b.isdigit() else b for b in TOKENIZER.piece_bytes)

    def encode(self, text):
        return [UNK if chr(byte).isdigit() else byte for byte in text.encode()]


class Spaced(Bytes):
    """A tokenizer that puts a space in front of a text."""

    def encode(self, text):
        return super().encode(" " + text)


@pytest.fixture(scope="module")
def others(model):
    """{a kind of tokenizer: (address, slots) of a server with one}."""
    with contextlib.ExitStack() as stack:
        up = {}
        for kind in (Lacking, Spaced):
            service, slots = make_service(*model, tokenizer=kind())
            up[kind] = stack.enter_context(running(service)), slots
        yield up


@pytest.mark.parametrize("form", [JSON, WORDS], ids=["schema", "regex"])
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("most", [1, 4, 6])
def test_a_grammar_that_is_cut_by_length_says_so(up, form, path, most):
    begun = {"prompt": "a"} if path == "completions" else {"messages": ASKED}
    body = begun | form | {"max_tokens": most, "seed": 1}
    choice = post(up[0], f"/v1/{path}", body).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert streamed(up[0], f"/v1/{path}", body)[-1]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "form",
    [
        {"choice": ["a1"]},
        {"choice": ["1"]},
        {"regex": "ab1c"},
        {"regex": "[a-c]{3}1?[0-9]d"},
        {"json": {"const": 12}},
        {"json": SCHEMA},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_no_token_fits_is_an_error(others, form, stream):
    """Never an end, with a text that does not match."""
    url, slots = others[Lacking]
    body = {"prompt": "x", "seed": 2, "max_tokens": 50, "stream": stream}
    got = post(url, "/v1/completions", body | {"structured_outputs": form})
    assert got.status_code == (200 if stream and "data:" in got.text else 400)
    assert "grammar" in got.text and "vocabulary" in got.text and "error" in got.text
    assert '"finish_reason": "stop"' not in got.text
    assert slots.busy == 0


@pytest.mark.parametrize("kind", [Lacking, Spaced])
@pytest.mark.parametrize(
    "form, want",
    [({"choice": ["abc"]}, "abc"), ({"regex": "abc|ab1"}, "abc"),
     ({"json": {"const": "ab c"}}, '"ab c"')],
)  # fmt: skip
def test_a_grammar_is_kept_whatever_the_tokenizer(others, kind, form, want):
    """Also where it encodes no text as itself."""
    body = {"prompt": "x", "seed": 2, "logit_bias": {str(ord("c")): 100}}
    body |= {"structured_outputs": form}
    got = post(others[kind][0], "/v1/completions", body).json()
    choice = got["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (want, "stop")


@pytest.fixture
def compiled():
    """Names of what is compiled from here on."""
    names = []

    def note(name, seconds, **more):
        if "backend_compile" in name:
            names.append(more.get("fun_name", name))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.long
def test_nothing_is_compiled_for_requests(model, compiled, monkeypatch):
    """Where the server says that it is ready, of generation and of scoring."""
    monkeypatch.setattr("llm.serve.slots._TEXT", 32)  # two lengths of texts
    service, slots = make_service(*model, count=2, context=64)
    slots.warm_up()
    compiled.clear()
    with running(service) as url, concurrent.futures.ThreadPoolExecutor() as pool:
        sent = []
        for size in (3, 40):
            for more in (
                {"max_tokens": 0, "echo": True, "logprobs": 2},
                {"max_tokens": 4, "echo": True, "logprobs": 0, "n": 2},
                {"max_tokens": 20, "top_p": 0.5, "logprobs": 20},
                {"max_tokens": 4, **JSON},
            ):
                body = {"prompt": "a" * size, **more}
                sent.append(pool.submit(post, url, "/v1/completions", body))
                if more.get("n"):
                    sent[-1].result()  # some of them alone
        assert {one.result().status_code for one in sent} == {200}
    assert compiled == []


def test_streams_go_on_while_vectors_are_made(model):
    """Embeddings, which compile when first asked for, are made apart."""
    service, _ = make_service(*model)
    embed, ended = service.embed, threading.Event()

    def slow(rows):
        assert ended.wait(30)
        return embed(rows)

    service.embed = slow
    with running(service) as url, concurrent.futures.ThreadPoolExecutor() as pool:
        vectors = pool.submit(post, url, "/v1/embeddings", {"input": ["a", "b"]})
        body = {"prompt": "x", "max_tokens": 20, "ignore_eos": True}
        choices = streamed(url, "/v1/completions", body)
        assert choices[-1]["finish_reason"] == "length" and not vectors.done()
        ended.set()
        assert vectors.result().status_code == 200


def test_variables_of_the_chat_template(model):
    """`chat_template_kwargs`, as vLLM, SGLang and llama.cpp take them."""
    template = "{{ m }}{% if enable_thinking is false %}-{% endif %}"
    tokenizer = dataclasses.replace(TOKENIZER, chat_template=template)
    service, _ = make_service(*model, tokenizer=tokenizer)
    talk = {"messages": [{"role": "user", "content": "hi"}]}
    with running(service) as url:

        def tokens(variables):
            body = talk | {"chat_template_kwargs": variables}
            return post(url, "/tokenize", body).json()["tokens"]

        assert tokens(None) == tokens({"enable_thinking": True}) == []
        assert tokens({"enable_thinking": False}) == [ord("-")]
        for variables in ({"enable_thinkin": False}, {"messages": "x"}, {"a": [1]}):
            body = talk | {"chat_template_kwargs": variables}
            reply = post(url, "/v1/chat/completions", body)
            assert reply.status_code == 400
            assert next(iter(variables)) in reply.json()["error"]["message"]
        body = talk | {
            "chat_template_kwargs": {"enable_thinking": False},
            "max_tokens": 1,
        }
        reply = post(url, "/v1/chat/completions", body | {"max_tokens": 1})
        assert reply.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_completions_have_a_figure_for_each_token(up, ends, echo, stream):
    """A harness scores a text by echo, and takes off the one token that it must let us
    generate: also where that is the end, whose text is empty."""
    bias = {str(TOKENIZER.eos_id if ends else ord("d")): 100}
    body = {"prompt": "abc", "echo": echo, "max_tokens": 3, "temperature": 0,
            "logprobs": 1, "logit_bias": bias}  # fmt: skip
    if stream:
        parts = streamed(up[0], "/v1/completions", body)
    else:
        parts = post(up[0], "/v1/completions", body).json()["choices"]
    figures = [p["logprobs"] for p in parts if p["logprobs"]]
    tokens = [token for f in figures for token in f["tokens"]]
    offsets = [at for f in figures for at in f["text_offset"]]
    made = [f"<{TOKENIZER.eos_id}>"] if ends else ["d"] * 3
    assert tokens == [f"<{TOKENIZER.bos_id}>", *"abc"] * echo + made
    assert len(offsets) == sum(len(f["token_logprobs"]) for f in figures) == len(tokens)
    text = "".join(p["text"] for p in parts)
    assert offsets[-1] == len(text) - (0 if ends else 1)
    assert parts[-1]["finish_reason"] == ("stop" if ends else "length")


def test_no_likelihoods_in_the_words_of_a_chat(up):
    body = {"prompt": "a", "max_tokens": 1, "logprobs": False}
    reply = post(up[0], "/v1/completions", body)
    assert reply.status_code == 200 and reply.json()["choices"][0]["logprobs"] is None
