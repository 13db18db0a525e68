"""The key-value cache against loops over its slots."""

import jax.numpy as jnp
import numpy as np

from llm.nn import cache as caches
from llm.nn.cache import KeyValues
from llm.nn.contract import Inputs

L, B, S, K, H = 2, 3, 7, 2, 4


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def held():
    return KeyValues(random(L, B, K, H, S), random(L, B, K, S, H, seed=1))


def test_what_is_new_goes_to_its_slots():
    """Rows in different places; padding and slots out of range are not written."""
    T = 3
    positions = np.array([[0, 1, 2], [4, 5, 6], [5, 6, 7]], np.int32)
    segments = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], np.int32)
    inputs = Inputs(positions, positions, segments, np.arange(B))
    cache = KeyValues(*map(np.array, held()))
    new = KeyValues(random(L, B, K, H, T, seed=2), random(L, B, K, T, H, seed=3))
    got = KeyValues(*map(jnp.asarray, cache)).insert(new, inputs)
    for row in range(B):
        for t in range(T):
            slot = positions[row, t]
            if segments[row, t] and slot < S:
                cache.keys[:, row, :, :, slot] = new.keys[:, row, :, :, t]
                cache.values[:, row, :, slot] = new.values[:, row, :, t]
    np.testing.assert_array_equal(got.keys, cache.keys)
    np.testing.assert_array_equal(got.values, cache.values)


def test_whole_rows_are_replaced():
    new = KeyValues(random(L, B, K, H, 5), random(L, B, K, 5, H, seed=1))
    got = held().replace(new)
    np.testing.assert_array_equal(got.keys[..., :5], new.keys)
    np.testing.assert_array_equal(got.values[..., :5, :], new.values)
    assert not np.asarray(got.keys[..., 5:]).any()
    assert not np.asarray(got.values[..., 5:, :]).any()


def test_where_a_text_begins():
    empty = caches.empty(L, (B, 0, K, H), np.float32)
    assert caches.begins(None) and caches.begins(empty) and not caches.begins(held())
    positions = np.zeros((B, 1), np.int32) + 4
    assert caches.positions(empty, positions) is positions
    np.testing.assert_array_equal(
        caches.positions(held(), positions)[1], [0, 1, 2, 3, 4, 5, 6, 4]
    )


def test_a_context_is_the_past_before_and_the_row_itself():
    one = KeyValues(*(np.asarray(x)[0] for x in held()))
    k, v = random(B, 1, K, H, seed=4), random(B, 1, K, H, seed=5)
    at = np.array([[0], [3], [7]], np.int32)
    inputs = Inputs(at, at, np.ones_like(at), np.arange(B))
    context, new = caches.extend(one, k, v, inputs)
    seen = np.asarray(context.reach.mask_BTS())[:, 0]
    for row, place in enumerate(at[:, 0]):
        assert seen[row].tolist() == [s < place for s in range(S)] + [True]
    np.testing.assert_array_equal(
        np.concatenate(context.keys, axis=1),
        np.concatenate([one.keys.transpose(0, 3, 1, 2), k], axis=1),
    )
    np.testing.assert_array_equal(new.keys[..., 0], k[:, 0])
    assert not context.ordered
