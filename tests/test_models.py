"""Family tests: what every model in llm/models owes its users."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm import registry, sharding, tree
from llm.nn import cache as caches
from llm.nn import stack
from llm.nn.contract import Inputs, plain_inputs

CLOSE = {"rtol": 2e-5, "atol": 2e-5}
V = 48
MODELS = registry.choices("models")


def kind(name):
    return registry.module("models", name).KIND


DECODERS = [name for name in MODELS if kind(name) != "masked"]
ATTENTIVE = [n for n in MODELS if "heads" in registry.module("models", n).TINY]


@functools.cache
def build(name, **knobs):
    spec = registry.spec("models", name, **registry.module("models", name).TINY)
    if "residual_scale" in spec:
        spec["residual_scale"] = 1.0  # else nothing but the embedding would be tested
    return registry.build("models", spec | knobs, vocab_size=V)


@functools.cache
def params_of(name):
    params = tiny.params(build(name), seed=3)
    if name == "t5":  # its scores are not scaled: sharper ones would be all rounding
        for leaf, value in tree.named_leaves(params).items():
            if "query" in leaf:
                value *= 0.25
    return params


# Made of the same layers as llama, bert and gru: what takes long waits for the night.
SAME_LAYERS = ("gemma", "gpt", "lstm", "olmo2")


def few(*left_out):
    """All models; those that are left out of the default suite are marked."""
    long = pytest.mark.long
    return [pytest.param(n, marks=long) if n in left_out else n for n in MODELS]


FEW = few(*SAME_LAYERS)


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@functools.partial(jax.jit, static_argnums=0)
def hidden(of, params, inputs):
    return of.apply({"params": params}, inputs).hidden_BTD


def logits(of, params, inputs):
    def both(m):
        return m.head(m(inputs).hidden_BTD).logits(of.policy)

    return of.apply({"params": params}, method=both)


run = jax.jit(logits, static_argnums=0)


def text(length, seed=0):
    return np.random.default_rng(seed).integers(1, V, length).tolist()


def given(name, documents, length, sources=None):
    """Packed rows; an encoder-decoder's sources are packed beside them."""
    inputs = tiny.packed(documents, length)
    if kind(name) == "encdec":
        sources = sources or [[t[::-1] for t in row] for row in documents]
        inputs = inputs._replace(source=tiny.packed(sources, length + 3))
    return inputs


def test_causality(name):
    """The gradient of each place reaches what it may see, and nothing else."""
    of, params = build(name), params_of(name)
    texts = [text(4), text(3, 1)]
    inputs = given(name, [texts], 9)
    length = 7

    def total(delta_TD, t):
        def embedded(next_function, arguments, keywords, context):
            made = next_function(*arguments, **keywords)
            called = (
                context.module.name == "embed" and context.method_name == "__call__"
            )
            wanted = called and made.shape[1] == 9
            return made + delta_TD[None].astype(made.dtype) if wanted else made

        with nn.intercept_methods(embedded):
            made = hidden(of, params, inputs)
        return (made[0, t] * np.linspace(1, 2, made.shape[-1])).sum()

    zeros = jnp.zeros((9, of.width))
    slopes = jax.jit(jax.vmap(jax.grad(total), (None, 0)))(zeros, jnp.arange(length))
    seen = np.abs(slopes).sum(-1)[:, :length] > 0
    want = np.zeros((length, length), bool)
    for span in (slice(0, 4), slice(4, 7)):
        count = span.stop - span.start
        every = np.ones((count, count), bool)
        want[span, span] = every if kind(name) == "masked" else np.tril(every)
    np.testing.assert_array_equal(seen, want)


def test_packed_equals_separate(name):
    of, params = build(name), params_of(name)
    texts = [text(5), text(3, 1), text(6, 2)]
    together = run(of, params, given(name, [texts], 16))[0]
    alone = run(of, params, given(name, [[t] for t in texts], 16))
    at = 0
    for row, one in enumerate(texts):
        want = alone[row, : len(one)]
        np.testing.assert_allclose(together[at : at + len(one)], want, **CLOSE)
        at += len(one)
    assert np.isfinite(together).all()


@pytest.mark.parametrize("name", FEW)
def test_padding_changes_nothing(name):
    of, params = build(name), params_of(name)
    whole = run(of, params, given(name, [[text(6)]], 6))[0]
    padded = given(name, [[text(6)]], 11)
    padded.tokens_BT[0, 6:] = 9  # whatever stands there
    np.testing.assert_allclose(run(of, params, padded)[0, :6], whole, **CLOSE)
    # On the left: the same text, later in the row.
    left = jax.tree.map(lambda x: np.roll(x, 5, axis=-1), padded)
    left = left._replace(index_B=padded.index_B)
    np.testing.assert_allclose(run(of, params, left)[0, 5:], whole, **CLOSE)


@pytest.mark.parametrize("name", DECODERS)
def test_decoding_equals_the_full_forward(name):
    """Prompts of unequal length in pieces: a prefill, then token by token."""
    of, params = build(name), params_of(name)
    texts = [text(7), text(5, 1)]
    inputs = given(name, [[t] for t in texts], 7)
    want = run(of, params, inputs)
    sizes = (2, 9) + ((10,) if kind(name) == "encdec" else ())
    cache = of.init_cache(*sizes)
    for leaf in jax.tree.leaves(cache):
        assert leaf.shape[caches.BATCH_AXIS] == 2

    @jax.jit
    def step(inputs, cache):
        def both(m):
            output = m(inputs, cache)
            logits_BTV = m.head(output.hidden_BTD).logits(of.policy)
            return logits_BTV, cache.insert(output.cache, inputs)

        return of.apply({"params": params}, method=both)

    def piece(start, stop, more):
        cut = [x[:, start:stop] for x in inputs[:3]]
        return Inputs(*cut, inputs.index_B, **more)

    source = {"source": inputs.source} if kind(name) == "encdec" else {}
    got, cache = step(piece(0, 3, source), cache)
    made = [got]
    for at in range(3, 7):
        got, cache = step(piece(at, at + 1, {}), cache)
        made.append(got)
    got = np.concatenate(made, axis=1)
    for row, one in enumerate(texts):
        np.testing.assert_allclose(got[row, : len(one)], want[row, : len(one)], **CLOSE)


def gradient(of, params, inputs):
    weight = np.random.default_rng(3).normal(size=(1, 10, V)).astype(np.float32)

    def total(params):
        made = logits(of, params, inputs)
        return jnp.sum(jax.nn.log_softmax(made) * weight), made

    return jax.jit(jax.grad(total, has_aux=True))(params)


@functools.cache
def scanned(name):
    """Gradient and logits of the stack as it is by default."""
    inputs = given(name, [[text(5), text(4, 1)]], 10)
    return gradient(build(name), params_of(name), inputs)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    "how, remat",
    [("loop", "none"), pytest.param("unroll", "none", marks=pytest.mark.long),
     ("scan", "full")],
)  # fmt: skip
def test_stacks_agree(name, how, remat):
    """Scanned, unrolled, looped and recomputed: logits and gradients are the same."""
    inputs = given(name, [[text(5), text(4, 1)]], 10)
    params = params_of(name)
    want, made = scanned(name)

    def each_stack(params, function):
        stacks = {
            k: v
            for k, v in params.items()
            if isinstance(v, dict) and v.keys() & {"layer", "layer_0"}
        }
        return params | {k: function(k, v) for k, v in stacks.items()}

    if how == "loop":
        depth = each_stack(params, lambda _, v: jax.tree.leaves(v)[0].shape[0])
        params = each_stack(params, lambda k, v: tiny.unstack(v, depth[k]))
    got, again = gradient(build(name, how=how, remat=remat), params, inputs)
    if how == "loop":
        got = each_stack(got, lambda _, v: stack.restack(v))
    np.testing.assert_allclose(again, made, **CLOSE)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # That of a bias of keys is zero but for rounding: all shares stay as they are.
        scale = max(np.abs(b).max(), 1e-3 * largest)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", FEW)
def test_sharded_equals_single(name, devices):
    of, params = build(name), params_of(name)
    rows = [[text(5, seed)] for seed in range(8)]
    inputs = given(name, rows, 6)
    want = run(of, params, inputs)
    mesh = sharding.make_mesh((("data", 4), ("tensor", 2)), devices)
    boxed = jax.eval_shape(lambda: tiny.init(of, jax.random.key(0)))
    placed = jax.device_put(params, sharding.shardings_of(boxed, mesh, "fsdp"))
    spread = jax.device_put(inputs, sharding.batch_sharding(mesh))
    with sharding.laid_out(mesh, "fsdp"):
        got = jax.jit(lambda p, i: logits(of, p, i))(placed, spread)
    assert len(got.devices()) == 8
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize("name", few(*SAME_LAYERS, "bert", "moe"))
def test_what_is_captured(name):
    of, params = build(name), params_of(name)
    inputs = given(name, [[text(5), text(3, 1)]], 9)
    output = jax.jit(
        lambda p: of.apply({"params": p}, inputs, capture=("attention", "residual"))
    )(params)
    plain = jax.jit(lambda p: of.apply({"params": p}, inputs))(params)
    assert plain.seen == {}
    np.testing.assert_allclose(output.hidden_BTD, plain.hidden_BTD, **CLOSE)
    layers = of.cfg.decoder_depth
    assert output.seen["residual"].shape == (layers, 1, 9, of.width)
    assert ("attention" in output.seen) == (name in ATTENTIVE)
    if name not in ATTENTIVE:
        return
    weights_LBNTS = np.asarray(output.seen["attention"])
    assert weights_LBNTS.shape == (layers, 1, of.cfg.heads, 9, 9)
    sums = weights_LBNTS.sum(-1)[..., :8]
    np.testing.assert_allclose(sums, np.ones_like(sums), rtol=1e-5)
    assert (weights_LBNTS[..., :5, 5:] == 0).all()


@pytest.mark.parametrize("name", few(*SAME_LAYERS, "bert", "moe"))
def test_dropout_depends_on_the_example_alone(name):
    of, params = build(name, dropout=0.5), params_of(name)
    inputs = given(name, [[text(5, seed)] for seed in range(4)], 6)

    @jax.jit
    def dropped(inputs):
        return of.apply(
            {"params": params}, inputs, train=True, rngs={"dropout": jax.random.key(1)}
        ).hidden_BTD

    together = dropped(inputs)
    half = dropped(jax.tree.map(lambda x: x[2:], inputs))
    np.testing.assert_allclose(half, together[2:], **CLOSE)
    whole = hidden(of, params, inputs)
    assert np.abs(np.asarray(together) - whole).max() > 0.01


@pytest.mark.parametrize("name", [n for n in ATTENTIVE if kind(n) == "causal"])
def test_prefix_is_seen_both_ways(name):
    of, params = build(name), params_of(name)
    inputs = plain_inputs(np.array([text(8)]))
    prefix = inputs._replace(prefix_BT=np.arange(8)[None] < 4)
    with_prefix = hidden(of, params, prefix)[0]
    changed = prefix._replace(tokens_BT=np.array(prefix.tokens_BT))
    changed.tokens_BT[0, 3] = changed.tokens_BT[0, 3] % (V - 1) + 1
    moved = np.abs(hidden(of, params, changed)[0] - with_prefix).max(-1) > 1e-6
    assert moved.all()
    changed.tokens_BT[0, 3] = inputs.tokens_BT[0, 3]
    changed.tokens_BT[0, 6] = changed.tokens_BT[0, 6] % (V - 1) + 1
    moved = np.abs(hidden(of, params, changed)[0] - with_prefix).max(-1) > 1e-6
    assert not moved[:6].any() and moved[6:].all()
