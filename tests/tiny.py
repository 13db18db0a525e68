"""What model and training tests share: a tiny Llama with random weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm.models import llama
from llm.nn.contract import Inputs

V = 64
KNOBS = {
    "vocab_size": V, "layers": 2, "width": 16, "heads": 4, "kv_heads": 2,
    "head_dim": 8, "mlp": 24, "residual_scale": 1.0,
}  # fmt: skip


def model(**knobs):
    return llama.make(**(KNOBS | knobs))


def init(of, key):
    """Parameters in their boxes."""
    zeros = jnp.zeros((1, 2), jnp.int32)
    return of.init(key, Inputs(zeros, zeros, zeros + 1, zeros[:, 0]))["params"]


def params(of, seed=0):
    """Random parameters, none of them zero or one as they start."""
    return unboxed(functools.partial(init, of), seed)


def unboxed(init, seed=0):
    """The same for any function that makes boxed parameters of a key."""
    shapes = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def fill(leaf):
        fan_in = leaf.shape[-2] if len(leaf.shape) > 1 else 16
        noise = rng.normal(size=leaf.shape) * fan_in**-0.5
        return (noise + (len(leaf.shape) == 1)).astype(np.float32)

    return jax.tree.map(fill, shapes)


def unstack(params, layers):
    """Parameters of a scanned stack (`layer`, stacked) as those of a loop."""
    at = lambda i: jax.tree.map(lambda leaf: leaf[i], params["layer"])  # noqa: E731
    return {f"layer_{i}": at(i) for i in range(layers)}


def packed(documents, length, rows=None):
    """Inputs with `documents` (lists of tokens) of each row one after the other."""
    tokens, positions, segments = np.zeros((3, len(documents), length), np.int32)
    for row, texts in enumerate(documents):
        at = 0
        for segment, text in enumerate(texts, 1):
            span = slice(at, at + len(text))
            tokens[row, span] = text
            positions[row, span] = np.arange(len(text))
            segments[row, span] = segment
            at += len(text)
    return Inputs(
        tokens, positions, segments, np.arange(len(documents), dtype=np.int32)
    )


@functools.partial(jax.jit, static_argnums=0)
def logits(of, params, inputs):
    """Logits of a batch without a cache."""

    def both(m):
        return m.head(m(inputs).hidden_BTD).logits(of.policy)

    return of.apply({"params": params}, method=both)


@functools.partial(jax.jit, static_argnums=0)
def cached(of, params, inputs, cache):
    """(logits, cache) of a batch that goes on from a cache."""

    def both(m):
        output = m(inputs, cache)
        cache_now = cache.insert(output.cache, inputs)
        return m.head(output.hidden_BTD).logits(of.policy), cache_now

    return of.apply({"params": params}, method=both)


def batch(rows, length, seed=0, empty=0.0):
    """A training batch; `empty` is the share of targets that do not count."""
    rng = np.random.default_rng(seed)
    half = length // 2
    texts = [
        [rng.integers(0, V, half).tolist(), rng.integers(0, V, length - half).tolist()]
        for _ in range(rows)
    ]
    inputs = packed(texts, length)
    return {
        "tokens": inputs.tokens_BT,
        "targets": rng.integers(0, V, (rows, length)).astype(np.int32),
        "positions": inputs.positions_BT,
        "segments": inputs.segments_BT,
        "weights": (rng.random((rows, length)) >= empty).astype(np.int32),
    }
