"""Prefix language modelling against its definition, written out as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import bits, build, random_record, record, small_model

from llm.nn.contract import with_head
from llm.precision import FLOAT32


def test_prefix_lm_against_a_loop():
    of = build("prefix_lm")
    shares = []
    for seed in range(300):
        given = random_record(48, seed)
        made = of.features(given, bits(3, seed))
        tokens, segments = given["tokens"], given["segments"]
        for segment in range(1, segments.max() + 1):
            (where,) = np.nonzero(segments == segment)
            inside = [t for t in where if t < 48]
            prefix = sum(made["prefix"][t] for t in inside)
            # It begins the document, and something is left to predict.
            assert all(made["prefix"][t] for t in inside[:prefix])
            assert 1 <= prefix <= max(len(where) - 1, 1) or not inside
            for n, t in enumerate(inside):
                predicted = n + 1 >= prefix and n + 1 < len(where)
                assert made["weights"][t] == predicted
                if predicted:
                    assert made["targets"][t] == tokens[t + 1]
            if len(where) > 10:
                shares.append((prefix - 1) / (len(where) - 1))
        assert not made["prefix"][made["segments"] == 0].any()
        assert not made["weights"][made["segments"] == 0].any()
    assert np.mean(shares) == pytest.approx(0.5 - 0.5 / 25, abs=0.06)
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.04)


def test_no_target_is_seen_before_it_is_predicted():
    """Other tokens from k on change no loss of a target up to k; the prefix does."""
    of = build("prefix_lm")
    model, params = small_model(of)
    row = of.features(record(32, [40], seed=2), bits(0, 5))
    prefix = int(row["prefix"].sum())
    assert 2 < prefix < 28
    batch = {n: x[None] for n, x in row.items()} | {"index": np.zeros(1, np.int32)}

    @jax.jit
    def total(tokens, upto):
        mine = batch["weights"] * (jnp.arange(32)[None] < upto)
        new = {**batch, "tokens": tokens, "weights": mine}
        return of.loss(with_head(model), params, new, policy=FLOAT32)[0]

    def loss(tokens, upto):
        return float(total(tokens, upto))

    tokens = batch["tokens"]
    for k in (prefix, prefix + 2, 31):
        later = tokens.copy()
        later[:, k:] = 4 + (tokens[:, k:] + 3) % 9
        assert loss(tokens, k) == pytest.approx(loss(later, k), rel=1e-6)
    first = tokens.copy()
    first[:, prefix - 1] = 4 + (tokens[:, prefix - 1] + 3) % 9
    assert loss(first, 32) != pytest.approx(loss(tokens, 32), rel=1e-4)
