"""Likelihoods of continuations against a softmax a row, and against the harness."""

import dataclasses

import numpy as np
import pytest
import tiny
from reference_models import build
from tiny import V

from llm.errors import InputError
from llm.inference.likelihood import likelihoods, pairs
from llm.inference.requests import Score
from llm.nn.contract import plain_inputs
from llm.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Letters(Tokenizer):
    """A character is a token, and `ab` is one, too; a space is 4."""

    starts: tuple = (2,)
    ends: tuple = (3,)
    finishes: tuple = ()
    pad_id: int = 0
    bos_id: int = 2
    vocab_size: int = V

    def start(self):
        return list(self.starts)

    def finish(self):
        return list(self.finishes)

    def encode(self, text):
        ids = [
            4 if x == " " else 5 + ord(x) - ord("a") for x in text.replace("ab", "{")
        ]
        return ids

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]


REQUESTS = [
    Score("cde", "fgh"), Score("cde", "x"), Score("cde", "y"), Score("cde", "zq"),
    Score("", "hello"), Score("cd ", "ef"), Score("k" * 30, "lm"), Score("c", "d"),
]  # fmt: skip


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(of, params, given, rest):
    """One row alone: (sum of log-probabilities, all most likely)."""
    row = np.array([[*given, *rest][:-1]], np.int32)
    logp = log_softmax(np.asarray(tiny.logits(of, params, plain_inputs(row))[0])[:, :V])
    places = range(len(given) - 1, len(given) - 1 + len(rest))
    each = [logp[p, id] for p, id in zip(places, rest, strict=True)]
    best = [logp[p].argmax() == id for p, id in zip(places, rest, strict=True)]
    return sum(each), all(best)


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def params(model):
    return tiny.params(model)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_equals_a_row_of_its_own(model, params, batch_size):
    tokenizer = Letters()
    score = likelihoods(
        model, params, tokenizer, kind="causal", max_tokens=64, batch_size=batch_size
    )
    rows = []
    got = score(REQUESTS, rows.append)
    for request, answer in zip(REQUESTS, got, strict=True):
        given, rest = request.prompt.rstrip(), request.continuation
        rest = request.prompt[len(given) :] + rest
        want = by_hand(
            model, params, [2, *tokenizer.encode(given)], tokenizer.encode(rest)
        )
        assert answer.tokens == len(tokenizer.encode(rest))
        assert answer.logprob == pytest.approx(want[0], abs=1e-4)
        assert answer.greedy == want[1]
    assert sum(rows) == pytest.approx(len(REQUESTS))
    if batch_size == 1:  # single tokens after one prompt are one row: two of eight
        assert len(rows) == len(REQUESTS) - 1


def test_greedy_is_what_the_model_would_say(model, params):
    tokenizer, found = Letters(), 0
    score = likelihoods(model, params, tokenizer, kind="causal", max_tokens=64)
    for prompt in "cdefghijklmnopqrstuvwxyz":
        row = plain_inputs(np.array([[2, *tokenizer.encode(prompt)]], np.int32))
        best = int(np.asarray(tiny.logits(model, params, row))[0, -1, :V].argmax())
        if not 5 <= best < 31:
            continue  # the most likely token is no letter
        letter = chr(best - 5 + ord("a"))
        wrong = "q" if letter != "q" else "r"
        said, other = score([Score(prompt, letter), Score(prompt, wrong)])
        assert said.greedy and not other.greedy and said.logprob > other.logprob
        found += 1
    assert found > 3


def test_a_long_text_keeps_its_end(model, params):
    tokenizer = Letters()
    score = likelihoods(model, params, tokenizer, kind="causal", max_tokens=8)
    (got,) = score([Score("cdefghijklmnop", "qrs")])
    whole = [2, *tokenizer.encode("cdefghijklmnopqrs")][-9:]
    want, _ = by_hand(model, params, whole[:-3], whole[-3:])
    assert got.logprob == pytest.approx(want, abs=1e-4) and got.tokens == 3


def test_pairs_are_cut_as_the_harness_cuts_them():
    model = pytest.importorskip("lm_eval.api.model")
    tokenizer = Letters()

    class Theirs(model.TemplateLM):
        eot_token_id = 3
        prefix_token_id = 2

        def tok_encode(self, string, add_special_tokens=None, **_):
            start = [] if add_special_tokens is False else tokenizer.start()
            return start + tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests, **_):
            self.seen = [(given, rest) for _, given, rest in requests]

        loglikelihood_rolling = generate_until = _loglikelihood_tokens

    class Instance:
        def __init__(self, *args):
            self.args = args

    texts = [("cde", "fg"), ("cd  ", "ef"), ("", "gh"), ("a", "bc"), ("ca", "bcd")]
    theirs = Theirs()
    theirs.loglikelihood([Instance(*pair) for pair in texts], disable_tqdm=True)
    assert [tuple(pair) for pair in pairs(tokenizer, texts)] == theirs.seen
    # Where nothing is left to the continuation, it is made tokens alone.
    assert pairs(tokenizer, [("a", "b")]) == [([2, 5], [6])]


def test_an_encoder_decoder_scores_the_answer():
    _, _, of, params, _ = build("t5")
    tokenizer = Letters(starts=(), ends=(1,), vocab_size=of.vocab_size)
    score = likelihoods(of, params, tokenizer, kind="encdec", max_tokens=32)
    got = score([Score("cdef", "gh"), Score("cd", "g"), Score("cdef", "gk")])
    for request, answer in zip(
        [("cdef", "gh"), ("cd", "g"), ("cdef", "gk")], got, strict=True
    ):
        source, rest = map(tokenizer.encode, request)
        inputs = plain_inputs(np.array([[0, *rest]], np.int32))
        inputs = inputs._replace(
            source=plain_inputs(np.array([[*source, 1]], np.int32))
        )
        logp = log_softmax(np.asarray(tiny.logits(of, params, inputs))[0])
        want = sum(logp[i, id] for i, id in enumerate(rest))
        assert answer.logprob == pytest.approx(want, abs=1e-4)


def test_a_masked_model_sees_all_but_one_token():
    _, _, of, params, _ = build("bert")
    tokenizer = Letters(starts=(1,), finishes=(2,), vocab_size=of.vocab_size)
    score = likelihoods(
        of, params, tokenizer, kind="masked", max_tokens=32, mask_id=3, batch_size=4
    )
    both = Score("", "cdef", beside="cdxf")
    got_all, got_shared = score([Score("", "cdef"), both])
    each = []
    for place, id in enumerate(tokenizer.encode("cdef"), start=1):
        row = np.array([[1, *tokenizer.encode("cdef"), 2]], np.int32)
        row[0, place] = 3
        logp = log_softmax(np.asarray(tiny.logits(of, params, plain_inputs(row)))[0])
        each.append(logp[place, id])
    assert got_all.logprob == pytest.approx(sum(each), abs=1e-4)
    assert got_shared.logprob == pytest.approx(each[0] + each[1] + each[3], abs=1e-4)
    assert (got_all.tokens, got_shared.tokens) == (4, 3)


def test_what_cannot_be_scored(model, params):
    with pytest.raises(InputError, match="mask token"):
        likelihoods(model, params, Letters(), kind="masked", max_tokens=8)
    score = likelihoods(model, params, Letters(), kind="causal", max_tokens=8)
    with pytest.raises(InputError, match="empty continuation"):
        score([Score("c", "")])
