"""Beam search against every continuation there is, and against greedy decoding."""

import itertools

import jax
import numpy as np
import pytest
import tiny
from reference_models import CASES, export, reference
from reference_models import build as build_case

from llm import registry
from llm.errors import InputError
from llm.inference.beam_search import beam_search
from llm.nn.contract import plain_inputs

pytestmark = pytest.mark.long

V, EOS = 6, 5
FORBIDDEN = (0,)


def build(name):
    spec = registry.spec("models", name, **registry.module("models", name).TINY)
    spec |= {"residual_scale": 1.0} if "residual_scale" in spec else {}
    of = registry.build("models", spec, vocab_size=V)
    return of, tiny.params(of, seed=4)


@pytest.fixture(scope="module", params=["llama", "gru", "t5"])
def given(request):
    return build(request.param)


def log_shares(of, params, rows, source):
    """[rows, T, V] of texts of one length, by full forwards; over what is allowed."""
    inputs = plain_inputs(np.array(rows, np.int32))
    if source is not None:
        inputs = inputs._replace(
            source=plain_inputs(np.array([source] * len(rows), np.int32))
        )
    logits = np.array(tiny.logits(of, params, inputs))
    logits[..., list(FORBIDDEN)] = -1e9
    return np.asarray(jax.nn.log_softmax(logits))


def every_continuation(of, params, prompt, most, penalty, source=None):
    """{ids: penalised score} of all that end, or reach `most` tokens."""
    free = [i for i in range(V) if i != EOS and i not in FORBIDDEN]
    found = {}
    for count in range(1, most + 1):
        heads = list(itertools.product(free, repeat=count - 1))
        shares = log_shares(of, params, [[*prompt, *h, 1] for h in heads], source)
        start = len(prompt) - 1
        for head, share in zip(heads, shares, strict=True):
            total = sum(share[start + i, token] for i, token in enumerate(head))
            lasts = [EOS] if count < most else [EOS, *free]
            for last in lasts:
                score = total + share[start + count - 1, last]
                found[(*head, last)] = score / count**penalty
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_many_beams_find_the_best_of_all(given, penalty):
    """With as many beams as there are prefixes, the search is exhaustive."""
    of, params = given
    prompts = [[1, 2, 3], [4]]
    sources = [[2, 1], [3, 3, 1, 4]] if of.reads_source else None
    made = beam_search(
        of, params, prompts, beams=70, max_tokens=3, ends=(EOS,),
        length_penalty=penalty, forbidden=FORBIDDEN, sources=sources,
    )  # fmt: skip
    for number, (prompt, beams) in enumerate(zip(prompts, made, strict=True)):
        source = sources and sources[number]
        want = every_continuation(of, params, prompt, 3, penalty, source)
        ranked = sorted(want.values(), reverse=True)
        got = [beam.score for beam in beams[:10]]
        np.testing.assert_allclose(got, ranked[:10], rtol=1e-4, atol=1e-4)
        for beam in beams[:10]:
            np.testing.assert_allclose(want[tuple(beam.ids)], beam.score, atol=1e-4)


def test_one_beam_is_greedy(given):
    of, params = given
    prompts = [[1, 2, 3, 4], [2]]
    sources = [[2, 1], [3, 3, 1, 4]] if of.reads_source else None
    made = beam_search(
        of, params, prompts, beams=1, max_tokens=8, ends=(EOS,), forbidden=FORBIDDEN,
        length_penalty=0.0, sources=sources,
    )  # fmt: skip
    for number, (prompt, (beam,)) in enumerate(zip(prompts, made, strict=True)):
        ids = list(prompt)
        while len(ids) < len(prompt) + 8 and EOS not in ids[len(prompt) :]:
            share = log_shares(of, params, [ids], sources and sources[number])
            ids.append(int(share[0, -1].argmax()))
        assert beam.ids == ids[len(prompt) :]


def test_more_beams_are_no_worse(given):
    of, params = given
    sources = [[2, 1, 1]] if of.reads_source else None
    scores = []
    for beams in (1, 2, 5):
        (found,) = beam_search(
            of, params, [[1, 2]], beams=beams, max_tokens=6, ends=(EOS,),
            length_penalty=0.0, sources=sources,
        )  # fmt: skip
        assert [b.score for b in found] == sorted(
            (b.score for b in found), reverse=True
        )
        assert len({tuple(b.ids) for b in found}) == len(found)
        scores.append(found[0].score)
    assert scores[2] >= scores[0] - 1e-5


def test_bad_input():
    of, params = build("llama")
    with pytest.raises(InputError, match="beams 0"):
        beam_search(of, params, [[1]], beams=0, max_tokens=1, ends=(EOS,))
    with pytest.raises(InputError, match="an empty prompt"):
        beam_search(of, params, [[]], beams=1, max_tokens=1, ends=(EOS,))


@pytest.mark.oracle
@pytest.mark.parametrize("case", [c for c in CASES if "bert" not in c])
def test_equals_transformers(case, tmp_path):
    """All beams are those of the reference, of prompts of unequal length."""
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")

    name, knobs, of, params, vocab = build_case(case)
    if name in ("lstm", "gru"):
        pytest.skip("the reference has no such model")
    export(tmp_path, name, knobs, params, vocab)
    theirs = reference(tmp_path)
    reads = registry.module("models", name).KIND == "encdec"
    prompts, pads = [[3, 9, 4], [7, 5, 11, 6, 8]], tuple(range(vocab, of.vocab_size))
    begun = [[0], [0]] if reads else prompts
    made = beam_search(
        of, params, begun, beams=4, max_tokens=10, ends=(2,), forbidden=pads,
        sources=prompts if reads else None,
    )  # fmt: skip
    for prompt, beams in zip(prompts, made, strict=True):
        with torch.no_grad():
            found = theirs.generate(
                torch.tensor([prompt]), num_beams=4, num_return_sequences=4,
                max_new_tokens=10, do_sample=False, eos_token_id=2, pad_token_id=0,
                early_stopping="never", length_penalty=1.0, use_cache=False,
                return_dict_in_generate=True,
                output_scores=True, **({"decoder_start_token_id": 0} if reads else {}),
            )  # fmt: skip
        skipped = 1 if reads else len(prompt)
        want = [row[skipped:].tolist() for row in found.sequences]
        want = [row[: row.index(2) + 1] if 2 in row else row for row in want]
        assert [beam.ids for beam in beams] == want
        np.testing.assert_allclose(
            [beam.score for beam in beams], found.sequences_scores, rtol=1e-3, atol=1e-4
        )


def test_rows_do_not_touch_each_other(given):
    of, params = given
    prompts = [[1, 2, 3], [4], [2, 2]]
    sources = [[1], [2, 3], [4, 4, 4]] if of.reads_source else None
    knobs = {"beams": 3, "max_tokens": 5, "ends": (EOS,)}
    together = beam_search(of, params, prompts, sources=sources, **knobs)
    for i, prompt in enumerate(prompts):
        (alone,) = beam_search(
            of, params, [prompt], sources=sources and [sources[i]], **knobs
        )
        assert [b.ids for b in alone] == [b.ids for b in together[i]]
