"""The three verbs over slots: rows that come and go, against texts made alone."""

import jax
import numpy as np
import pytest
import tiny
from test_generate import ALLOWED, BOS, EOS, GREEDY, TOKENIZER, by_full_forwards
from tiny import V

from llm import registry
from llm.errors import InputError
from llm.inference.decoding import forbidden, generate
from llm.inference.engine import LIKELIEST, NONE, Engine, key_data
from llm.inference.prompt_rows import inputs_of
from llm.inference.prompt_scores import prompt_scores
from llm.inference.sampling import Sampling, rows
from llm.nn.contract import plain_inputs
from llm.serve.slots import Slots

pytestmark = pytest.mark.long

NEVER_ENDS = ((EOS, -100.0),)
SAMPLED = Sampling(1.2, top_p=0.9, repetition_penalty=1.3, bias=NEVER_ENDS)


ENDS = tuple(range(4, 64, 4))


def made_of(name):
    spec = registry.spec("models", name, **registry.module("models", name).TINY)
    of = registry.build("models", spec, vocab_size=V)
    return of, tiny.params(of, seed=11)


@pytest.fixture(scope="module")
def small():
    of = tiny.model()
    return of, tiny.params(of, seed=11)


def engine_of(of):
    return Engine(of, forbidden(of, TOKENIZER), TOKENIZER.ends)


def ids_of(text):
    return [BOS, *TOKENIZER.encode(text)]


def put(engine, params, state, text, slot):
    prefix = engine.prefill(params, inputs_of([ids_of(text)], multiple=16))
    return engine.insert(state, prefix, np.array([slot]))


def text_of(tokens):
    return TOKENIZER.decode([int(i) for i in tokens if i not in (NONE, EOS)])


@pytest.mark.parametrize(
    "name",
    ["llama", "moe", "lstm"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in ("gpt", "gemma", "gru")],
)
def test_rows_that_come_later_are_as_if_alone(name):
    """A second text is put in while the first goes on; each is as `generate` has it."""
    of, params = made_of(name)
    engine = engine_of(of)
    knobs = [Sampling(temperature=0.0), Sampling(), SAMPLED, Sampling(temperature=0.0)]
    state = put(engine, params, engine.empty(4, 64), "first", 2)
    keys_B = np.zeros((4, 2), np.uint32)
    keys_B[2], keys_B[0] = key_data(7, [0])[0], key_data(9, [0])[0]
    left_B = np.array([0, 0, 20, 0])
    state, early = engine.generate(params, state, rows(knobs), keys_B, left_B, 5)
    early = np.asarray(early.tokens_BT)
    assert (early[[0, 1, 3]] == NONE).all() and (early[2, :5] != NONE).all()
    state = put(engine, params, state, "a second one", 0)
    left_B = np.array([8, 0, 15, 0])
    state, late = engine.generate(params, state, rows(knobs), keys_B, left_B, 15)
    late = np.asarray(late.tokens_BT)
    for slot, text, seed, how, tokens in (
        (2, "first", 7, SAMPLED, [*early[2], *late[2]]),
        (0, "a second one", 9, knobs[0], late[0]),
    ):
        most = 20 if slot == 2 else 8
        (want,) = generate(
            of, params, TOKENIZER, [text], knobs=how, max_tokens=most, seed=seed
        )
        assert text_of(tokens) == want.text, slot


def test_a_state_is_cut_and_widened(small):
    of, params = small
    engine = engine_of(of)
    state = put(engine, params, engine.empty(1, 32), "abc", 0)
    left_B, keys_B = np.array([12]), key_data(0, [0])
    state, one = engine.generate(params, state, rows([GREEDY]), keys_B, left_B, 4)
    state = engine.resize(state, 3, 64)
    state = put(engine, params, state, "xyz", 2)
    left_B, keys_B = np.array([4, 0, 4]), key_data(0, [0] * 3)
    state, two = engine.generate(params, state, rows([GREEDY] * 3), keys_B, left_B, 4)
    state = engine.resize(state, 1, 32)
    state, three = engine.generate(
        params, state, rows([GREEDY]), key_data(0, [0]), np.array([4]), 4
    )
    got = [*one.tokens_BT[0, :4], *two.tokens_BT[0, :4], *three.tokens_BT[0, :4]]
    assert [int(i) for i in got] == by_full_forwards(of, params, "abc", 12, ALLOWED)
    want = by_full_forwards(of, params, "xyz", 4, ALLOWED)
    assert [int(i) for i in two.tokens_BT[2, :4]] == want


def test_likelihoods_of_what_is_made(small):
    of, params = small
    engine = engine_of(of)
    state = put(engine, params, engine.empty(2, 32), "abc", 1)
    knobs = rows([GREEDY, SAMPLED])
    state, made = engine.generate(
        params, state, knobs, key_data(3, [0, 1]), np.array([0, 6]), 6,
        told_B=np.array([NONE, 3]),
    )  # fmt: skip
    ids, tokens = ids_of("abc"), [int(i) for i in made.tokens_BT[1, :6]]
    for n, token in enumerate(tokens):
        logits = np.array(tiny.logits(of, params, plain_inputs(np.array([ids]))))[0, -1]
        logits[~ALLOWED] = -np.inf
        want = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        np.testing.assert_allclose(made.logprobs_BT[1, n], want[token], atol=1e-4)
        best = np.argsort(-want, kind="stable")[:LIKELIEST]
        assert (np.asarray(made.likeliest_BTK[1, n])[:5] == best[:5]).all()
        np.testing.assert_allclose(
            made.likeliest_logprobs_BTK[1, n][:5], want[best[:5]], atol=1e-4
        )
        ids.append(token)


def test_a_row_goes_on_after_an_end_if_asked(small):
    of, params = small
    engine = Engine(of, (), ENDS)
    state = engine.empty(2, 64)
    for slot in (0, 1):
        state = put(engine, params, state, "ab", slot)
    knobs, keys_B = rows([Sampling()] * 2), key_data(1, [0, 0])
    _, made = engine.generate(
        params, state, knobs, keys_B, np.array([30, 30]), 30,
        endless_B=np.array([False, True]),
    )  # fmt: skip
    ending, endless = np.asarray(made.tokens_BT)
    at = int(np.flatnonzero(np.isin(endless[:30], ENDS))[0])
    assert at < 29 and (endless[:30] != NONE).all()
    assert (ending[: at + 1] == endless[: at + 1]).all()
    assert (ending[at + 1 :] == NONE).all()


def test_only_allowed_tokens(small):
    of, params = small
    engine = engine_of(of)
    state = put(engine, params, engine.empty(2, 32), "ab", 0)
    state = put(engine, params, state, "ab", 1)
    allowed_BW = np.full((2, 2), -1, np.int32)
    allowed_BW[0] = [0, 1 << 3]  # token 35, which is beyond what texts hold
    state, made = engine.generate(
        params, state, rows([GREEDY] * 2), key_data(0, [0, 0]), np.array([1, 1]), 1,
        allowed_BW=allowed_BW,
    )  # fmt: skip
    free = by_full_forwards(of, params, "ab", 1, ALLOWED)
    assert np.asarray(made.tokens_BT)[1, 0] == free[0]
    allowed_BW[0] = [1 << 20, 0]
    _, made = engine.generate(
        params, state, rows([GREEDY] * 2), key_data(0, [0, 0]), np.array([1, 1]), 1,
        allowed_BW=allowed_BW,
    )  # fmt: skip
    assert np.asarray(made.tokens_BT)[0, 0] == 20


def test_penalties_and_bias_by_hand(small):
    """Presence and frequency count what was made, not the prompt; bias is added."""
    from llm.inference.sampling import penalise

    logits = np.array([[2.0, -1.0, 0.5, 3.0]], np.float32)
    history = np.array([[1, 2, 5, 0]])  # in the prompt; made once; prompt and twice
    knobs = Sampling(presence_penalty=0.5, frequency_penalty=0.25, bias=((3, -9.0),))
    got = penalise(logits, history, rows([knobs]))
    np.testing.assert_allclose(got, [[2.0, -1.75, -0.5, -6.0]])


@pytest.mark.parametrize("V", [5, 128, 1000])
def test_draws_follow_the_probabilities(V):
    from llm.inference.sampling import draw

    rng, count = np.random.default_rng(V), 4000
    logits = np.where(rng.random(V) < 0.3, -np.inf, rng.normal(size=V) * 2)
    logits = logits.astype(np.float32)
    keys = jax.random.split(jax.random.key(1), count)
    drawn = draw(np.broadcast_to(logits, (count, V)), keys)
    share = np.bincount(np.asarray(drawn), minlength=V) / count
    want = np.exp(logits - logits[logits > -np.inf].max())
    want /= want.sum()
    assert (share[want == 0] == 0).all()
    assert np.abs(share - want).max() < 4 * np.sqrt(want.max() / count)
    assert np.abs(share - want).sum() < 3 * np.sqrt(V / count)


def test_a_row_samples_the_same_among_any_others(small):
    """Others that cut, are biased, are greedy or ask for likelihoods change nothing."""
    of, params = small
    engine = engine_of(of)
    mates = [
        [GREEDY, GREEDY],
        [SAMPLED, Sampling(top_k=3, bias=((9, 5.0),), presence_penalty=1.0)],
        [Sampling(min_p=0.2), GREEDY],
    ]
    seen = set()
    for others in mates:
        state = put(engine, params, engine.empty(3, 32), "one", 1)
        for slot, text in ((0, "zzz"), (2, "other words")):
            state = put(engine, params, state, text, slot)
        knobs = rows([others[0], Sampling(temperature=1.0), others[1]])
        _, made = engine.generate(
            params, state, knobs, key_data(5, [8, 0, 9]), np.array([9, 9, 9]), 9,
            told_B=np.array([5, NONE, NONE]),
        )  # fmt: skip
        seen.add(tuple(np.asarray(made.tokens_BT)[1, :9].tolist()))
    assert len(seen) == 1


def test_scores_of_a_prompt(small):
    of, params = small
    ids = ids_of("the cat sat")
    inputs = inputs_of([ids], multiple=32)
    prefix = Engine(of).prefill(params, inputs)
    got = prompt_scores(of, params, prefix, TOKENIZER.vocab_size, 5)
    logits = np.array(tiny.logits(of, params, plain_inputs(np.array([ids]))))[0]
    logits = logits[:, : TOKENIZER.vocab_size]
    want = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for n in range(1, len(ids)):
        np.testing.assert_allclose(
            got.logprobs_BT[0, n], want[n - 1, ids[n]], atol=1e-4
        )
        best = np.argsort(-want[n - 1], kind="stable")[:5]
        assert (np.asarray(got.likeliest_BTK[0, n]) == best).all()


def test_an_encoder_decoder_is_not_served():
    of, params = made_of("t5")
    with pytest.raises(InputError, match="encoder-decoders are for"):
        Slots(of, params, TOKENIZER, count=1, context=32)
