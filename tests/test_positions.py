"""Positions against their formulas, written out, and published figures."""

import math

import jax
import numpy as np
import pytest
import tiny
from tiny import V, packed

from llm import registry
from llm.errors import InputError
from llm.nn import positions

KINDS = ("learned", "sinusoidal", "alibi", "none")


def gpt(kind, **knobs):
    spec = registry.spec("models", "gpt", **registry.module("models", "gpt").TINY)
    spec = spec | {"positions": kind} | knobs
    return registry.build("models", spec, vocab_size=V)


@pytest.mark.parametrize("width", [2, 6, 64])
def test_sinusoids(width):
    """A sine and a cosine of wavelengths from 2 pi to 10,000 * 2 pi."""
    at = np.array([[0, 1, 7], [900, 3, 2]])
    got = np.asarray(positions.sinusoidal(at, width))
    half = width // 2
    for b, t in np.ndindex(*at.shape):
        for i in range(half):
            angle = at[b, t] / 10_000 ** (i / max(half - 1, 1))
            assert got[b, t, i] == pytest.approx(math.sin(angle), abs=2e-4)
            assert got[b, t, half + i] == pytest.approx(math.cos(angle), abs=2e-4)


def test_slopes_are_those_of_the_paper():
    """arXiv:2108.12409, section 3, for 8 heads; the code of its authors for 12."""
    np.testing.assert_allclose(
        positions.alibi_slopes(8), [2.0**-n for n in range(1, 9)]
    )
    between = [2.0 ** -(n + 0.5) for n in range(4)]
    np.testing.assert_allclose(
        positions.alibi_slopes(12), [2.0**-n for n in range(1, 9)] + between
    )


def test_alibi_subtracts_the_distance():
    at_T, at_S = np.array([[3, 5]]), np.array([[0, 1, 5]])
    got = np.asarray(positions.alibi(2, at_T, at_S))
    for n, slope in enumerate((1 / 16, 1 / 256)):
        want = [[-slope * (t - s) for s in at_S[0]] for t in at_T[0]]
        np.testing.assert_allclose(got[0, n], want)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_of_each_kind_decodes_as_it_reads(kind):
    """Two texts of unequal length: a prefill and single tokens, against all at once."""
    of = gpt(kind)
    params = tiny.params(of)
    rows = np.random.default_rng(0).integers(3, V, (2, 8)).tolist()
    inputs = packed([[rows[0]], [rows[1]]], 8)
    want = np.asarray(tiny.logits(of, params, inputs))

    def cut(a, b):
        planes = [plane[:, a:b] for plane in inputs[:3]]
        return inputs._replace(**dict(zip(inputs._fields, planes, strict=False)))

    got, cache = tiny.cached(of, params, cut(0, 5), of.init_cache(2, 8))
    parts = [got]
    for t in range(5, 8):
        got, cache = tiny.cached(of, params, cut(t, t + 1), cache)
        parts.append(got)
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), want, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters_where_positions_are_told(kind):
    """Without positions, one layer sees the tokens before the last as a set."""
    of = gpt(kind, layers=1)
    params = tiny.params(of)
    made = [
        np.asarray(tiny.logits(of, params, packed([[text]], 5)))[0, -1]
        for text in ([5, 6, 7, 8, 9], [7, 5, 8, 6, 9])
    ]
    same = np.allclose(*made, rtol=1e-5, atol=1e-6)
    assert same == (kind == "none")


def test_only_learned_positions_have_a_length():
    assert gpt("learned").cfg.context == 128
    assert gpt("alibi").cfg.context == 0
    names = jax.tree_util.tree_leaves_with_path(tiny.params(gpt("alibi")))
    assert not any("positions" in str(path) for path, _ in names)


def test_bad_input():
    with pytest.raises(InputError, match=r"model.positions 'rotary'"):
        gpt("rotary")
    with pytest.raises(InputError, match="an even one, for sinusoidal"):
        gpt("sinusoidal", width=63, heads=3)
    with pytest.raises(InputError, match="GPT-2 has no others"):
        knobs = {"positions": "alibi", "layers": 1, "width": 8, "heads": 2}
        registry.module("models", "gpt").HF.config(knobs, 10)
