"""Generation against repeated full forwards; the filters against numpy."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import V

from llm import registry
from llm.errors import InputError
from llm.inference import engine
from llm.inference.beam_search import beam_search
from llm.inference.decoding import generate, search
from llm.inference.prompt_rows import inputs_of
from llm.inference.sampling import Sampling, choose, penalise, restrict, rows
from llm.nn.contract import plain_inputs
from llm.tokenizers import Tokenizer

PAD, UNK, BOS, EOS = 0, 1, 2, 3
LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class Letters(Tokenizer):
    """A tokenizer of single characters: what is generated is plain to see."""

    pad_id: int = PAD
    unk_id: int = UNK
    bos_id: int = BOS
    eos_id: int = EOS
    never: tuple = (PAD, UNK, BOS)
    ends: tuple = (EOS,)
    vocab_size: int = 4 + len(LETTERS)
    piece_bytes: tuple = ()

    def start(self):
        return [BOS]

    def encode(self, text):
        return [4 + LETTERS.index(letter) for letter in text]

    def decode_bytes(self, ids):
        return "".join(LETTERS[i - 4] for i in ids if i >= 4).encode()

    def decode(self, ids):
        return self.decode_bytes(ids).decode()


TOKENIZER = Letters()


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def params(model):
    return tiny.params(model, seed=11)


def run(model, params, prompts, knobs=GREEDY, max_tokens=40, **more):
    return generate(
        model, params, TOKENIZER, prompts, knobs=knobs, max_tokens=max_tokens, **more
    )


def by_full_forwards(model, params, prompt, count, allowed):
    """Greedy continuation without a cache: the whole text again for each token."""
    ids = [BOS, *TOKENIZER.encode(prompt)]
    made = []
    for _ in range(count):
        row = np.zeros((1, 96), np.int32)
        row[0, : len(ids)] = ids
        logits = np.array(tiny.logits(model, params, plain_inputs(row)))
        logits = logits[0, len(ids) - 1]
        logits[~allowed] = -np.inf
        made.append(int(logits.argmax()))
        ids.append(made[-1])
        if made[-1] == EOS:
            break
    return made


ALLOWED = np.array([EOS <= i < TOKENIZER.vocab_size for i in range(V)])
PROMPTS = ["a", "the cat sat on the mat and said nothing at all", "", "xyz"]


def test_greedy_equals_repeated_full_forwards(model, params):
    answers = run(model, params, PROMPTS)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        want = by_full_forwards(model, params, prompt, 40, ALLOWED)
        ended = EOS in want
        want = TOKENIZER.decode([i for i in want if i != EOS])
        assert answer == (want, "end" if ended else "length")


def test_batch_mates_change_nothing(model, params):
    """A row is its seed, its number, its position; not how its batch is filled."""
    knobs = Sampling(temperature=1.0)
    together = run(model, params, PROMPTS, knobs, seed=5)
    by_two = run(model, params, PROMPTS, knobs, seed=5, batch_size=2)
    assert together == by_two
    # In short company the padded prompt is another, too.
    others = run(model, params, [PROMPTS[0], "zzz zzz"], knobs, seed=5)
    assert others[0] == together[0] and others[1] != together[1]


def test_seeds(model, params):
    knobs = Sampling(temperature=1.0)
    one, same, other = (run(model, params, ["a"] * 3, knobs, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other
    # Samples of one prompt differ from each other.
    assert len({answer.text for answer in one}) == 3


@pytest.mark.parametrize(
    "max_tokens", [1, 33, *(pytest.param(n, marks=pytest.mark.long) for n in (32, 70))]
)
def test_the_limit_is_exact(model, params, max_tokens):
    never = params_that_like(params, TOKENIZER.encode("q")[0])
    (answer,) = run(model, never, ["a"], max_tokens=max_tokens)
    assert answer == ("q" * max_tokens, "length")


def params_that_like(params, token, others=0.0):
    """A model whose logit for `token` is 16, and `others` for all others."""
    layer = params["stack"]["layer"]
    silent = layer | {
        "attention": layer["attention"] | {"out": zeros(layer["attention"]["out"])},
        "mlp": layer["mlp"] | {"down": zeros(layer["mlp"]["down"])},
    }
    kernel = np.full((16, V), others / 16, np.float32)
    kernel[:, token] = 1.0
    return {
        "embed": {"embedding": np.ones((V, 16), np.float32)},
        "stack": {"layer": silent},
        "final_norm": {"scale": np.ones(16, np.float32)},
        "head": {"kernel": kernel},
    }


def zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def test_the_end_ends(model, params):
    (answer,) = run(model, params_that_like(params, EOS), ["a"])
    assert answer == ("", "end")


def test_stop_texts(model, params):
    knobs = {"knobs": Sampling(1.0), "seed": 3, "max_tokens": 70}
    whole = run(model, params, PROMPTS, **knobs)
    cut = run(model, params, PROMPTS, stop="[a-h]", **knobs)
    count = 0
    for full, answer in zip(whole, cut, strict=True):
        places = [i for i, letter in enumerate(full.text) if letter in "abcdefgh"]
        if places:
            assert answer == (full.text[: places[0]], "stop")
            count += places[0] > 0
        else:
            assert answer == full
    assert count, "else this tests nothing"


def test_a_stop_past_the_limit_is_not_seen(model, params):
    liked = params_that_like(params, TOKENIZER.encode("q")[0])
    knobs = {"prompts": ["a"], "stop": "qqqqq"}
    assert run(model, liked, max_tokens=4, **knobs)[0] == ("qqqq", "length")
    assert run(model, liked, max_tokens=5, **knobs)[0] == ("", "stop")


@pytest.mark.parametrize("token", [PAD, UNK, BOS, TOKENIZER.vocab_size, V - 1])
def test_some_tokens_never_come(model, params, token):
    """Also when the model likes nothing else."""
    liked, seen = params_that_like(params, token), []

    class Watch(Letters):
        def decode_bytes(self, ids):
            seen.extend(ids)
            return super().decode_bytes(ids)

    for knobs in (GREEDY, Sampling(1.0), Sampling(1.0, repetition_penalty=1.3)):
        answers = generate(
            model, liked, Watch(), ["a", "b"], knobs=knobs, max_tokens=20
        )
        # The first of the tokens that are as good as all others.
        assert knobs != GREEDY or answers == [("", "end")] * 2
    assert len(seen) > 10 and ALLOWED[np.array(seen)].all()


def test_repetition_penalty_in_a_text(model, params):
    liked = params_that_like(params, TOKENIZER.encode("q")[0], others=8.0)
    knobs = {"prompts": ["a"], "max_tokens": 5}
    assert run(model, liked, **knobs)[0] == ("qqqqq", "length")
    # 16 / 3 is below 8: said once, it is not said again; the end is the next best.
    harsh = Sampling(temperature=0.0, repetition_penalty=3.0)
    assert run(model, liked, knobs=harsh, **knobs)[0] == ("q", "end")
    # Tokens of the prompt count as said.
    knobs["prompts"] = ["q"]
    assert run(model, liked, knobs=harsh, **knobs)[0] == ("", "end")


LOGITS = np.array(
    [
        [2.0, 1.0, 0.5, -1.0, 3.0, -np.inf],
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        [9.0, 1.0, 1.0, 1.0, 1.0, 8.9],
    ],
    np.float32,
)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def filtered(logits, knobs):
    """The indices that stay, one rule after the other, written out."""
    logits = logits.astype(np.float64) / knobs.temperature
    stay = [i for i in range(len(logits)) if logits[i] > -np.inf]
    ranked = sorted(stay, key=lambda i: -logits[i])
    if knobs.top_k:
        least = logits[ranked[min(knobs.top_k, len(ranked)) - 1]]
        ranked = [i for i in ranked if logits[i] >= least]
    if knobs.top_p < 1:
        p, kept, total = softmax(logits[ranked]), [], 0.0
        for i, share in zip(ranked, p, strict=True):
            if total < knobs.top_p:
                kept.append(i)
            total += share
        least = logits[kept[-1]]
        ranked = [i for i in ranked if logits[i] >= least]
    if knobs.min_p:
        p = softmax(logits)
        ranked = [i for i in ranked if p[i] >= knobs.min_p * p.max() * (1 - 1e-9)]
    return set(ranked)


KNOBS = [
    Sampling(),
    Sampling(temperature=0.5),
    Sampling(top_k=1),
    Sampling(top_k=3),
    Sampling(top_k=100),
    Sampling(top_p=0.01),
    Sampling(top_p=0.5),
    Sampling(top_p=0.9),
    Sampling(top_p=0.99, temperature=2.0),
    Sampling(min_p=0.1),
    Sampling(min_p=0.9),
    Sampling(min_p=1.0),
    Sampling(top_k=4, top_p=0.8, min_p=0.2, temperature=1.5),
]


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_filters(knobs):
    got = np.asarray(restrict(jnp.asarray(LOGITS), rows([knobs] * 3)))
    for row, logits in zip(got, LOGITS, strict=True):
        stay = filtered(logits, knobs)
        assert {i for i, x in enumerate(row) if x > -np.inf} == stay
        for i in stay:
            np.testing.assert_allclose(row[i], logits[i] / knobs.temperature, rtol=1e-6)


def test_choices_follow_the_probabilities():
    knobs, count = Sampling(temperature=0.7, top_k=3), 4000
    keys = jax.random.split(jax.random.key(0), count)
    wide = jnp.broadcast_to(jnp.asarray(LOGITS[0]), (count, 6))
    drawn = np.bincount(choose(wide, keys, rows([knobs] * count)), minlength=6) / count
    stay = sorted(filtered(LOGITS[0], knobs))
    want = np.zeros(6)
    want[stay] = softmax(LOGITS[0][stay] / 0.7)
    # Three standard deviations of a share of 4000 are 0.024 at most.
    np.testing.assert_allclose(drawn, want, atol=0.024)
    assert (drawn[[i for i in range(6) if i not in stay]] == 0).all()
    assert (
        np.asarray(choose(jnp.asarray(LOGITS), keys[:3], rows([GREEDY] * 3)))
        == [4, 5, 0]
    ).all()


def test_penalty():
    seen = np.array([[1, 0, 1, 1, 0, 1]] * 3, bool)
    knobs = rows([Sampling(repetition_penalty=2.0)] * 3)
    got = np.asarray(penalise(jnp.asarray(LOGITS), jnp.asarray(seen, int), knobs))
    want = LOGITS.copy()
    for row in range(3):
        for i in np.flatnonzero(seen[row]):
            x = LOGITS[row, i]
            want[row, i] = x / 2 if x > 0 else x * 2
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -0.1), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1),
        ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0.0),
    ],
)  # fmt: skip
def test_knobs_out_of_range(field, value):
    with pytest.raises(InputError, match=f"{field} {value}"):
        Sampling(**{field: value})


def test_one_compilation_for_all_batches(model, params):
    decode = engine._compiled("generate", "cpu")
    before = decode._cache_size()
    knobs = Sampling(temperature=0.9)
    params = jax.device_put(params, jax.devices()[0])  # as a restored run has them
    run(model, params, ["a", "b", "c", "d"], knobs, batch_size=2, max_tokens=40)
    run(model, params, ["e", "f"], knobs, batch_size=2, max_tokens=40)
    assert decode._cache_size() == before + 1


@pytest.fixture(scope="module")
def reader():
    """An encoder-decoder and its parameters."""
    spec = registry.spec("models", "t5", **registry.module("models", "t5").TINY)
    of = registry.build("models", spec, vocab_size=V)
    return of, tiny.params(of, seed=3)


def test_an_encoder_decoder_answers_as_by_full_forwards(reader):
    of, params = reader
    prompts = ["ab", "the cat sat", "z"]
    answers = run(of, params, prompts, max_tokens=12)
    for prompt, answer in zip(prompts, answers, strict=True):
        source = [[BOS, *TOKENIZER.encode(prompt), EOS]]
        made = [PAD]
        while len(made) <= 12 and made[-1] != EOS:
            inputs = inputs_of([made], source, multiple=16)  # one compilation
            logits = np.array(tiny.logits(of, params, inputs))[0, len(made) - 1]
            logits[~ALLOWED] = -np.inf
            made.append(int(logits.argmax()))
        ended = made[-1] == EOS
        want = TOKENIZER.decode([i for i in made[1:] if i != EOS])
        assert answer == (want, "end" if ended else "length")


def test_a_search_of_one_beam_is_greedy(model, params):
    knobs = {"beams": 1, "best": 1, "max_tokens": 12, "length_penalty": 0.0}
    made = search(model, params, TOKENIZER, PROMPTS, batch_size=3, **knobs)
    assert made == run(model, params, PROMPTS, max_tokens=12)


def test_a_search_gives_the_best_of_every_prompt(model, params):
    made = search(
        model, params, TOKENIZER, ["a", "b"], beams=4, best=3, max_tokens=5
    )  # fmt: skip
    assert len(made) == 6 and len({one.text for one in made[:3]}) == 3
    (found,) = beam_search(
        model, params, [[BOS, 4]], beams=4, max_tokens=5, ends=(EOS,),
        forbidden=np.flatnonzero(~ALLOWED).tolist(),
    )  # fmt: skip
    want = [TOKENIZER.decode([i for i in b.ids if i != EOS]) for b in found[:3]]
    assert [one.text for one in made[:3]] == want


def test_a_search_is_cut_where_it_stops(model, params):
    knobs = {"beams": 2, "best": 1, "max_tokens": 8}
    (whole,) = search(model, params, TOKENIZER, ["a"], **knobs)
    stop = whole.text[3]
    (cut,) = search(model, params, TOKENIZER, ["a"], stop=re.escape(stop), **knobs)
    assert cut == (whole.text[: whole.text.index(stop)], "stop")
