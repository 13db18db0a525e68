"""The model: causality, packing, caches, stacks, meshes, transformers' Llama."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.extend.core import ClosedJaxpr, Jaxpr
from reference_llama import CASES, GOLDEN, TOKENS_BT, model_and_params, reference_logits
from tiny import V, cached, logits, packed

from llm import sharding
from llm.errors import InputError
from llm.models import llama
from llm.nn import stack
from llm.nn.contract import Inputs, plain_inputs, with_head

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def params(model):
    return tiny.params(model)


def text(length, seed=0):
    return np.random.default_rng(seed).integers(1, V, length).tolist()


def test_no_gradient_from_later_tokens_or_other_documents(model, params):
    # Every token is another one, so a row of the embedding is a place in the text.
    T = 8
    inputs = packed([[[1, 2, 3], [4, 5, 6, 7]]], T)

    def hidden(table):
        changed = params | {"embed": {"embedding": table}}
        return model.apply({"params": changed}, inputs).hidden_BTD[0].sum(axis=-1)

    jacobian = jax.jit(jax.jacrev(hidden))(params["embed"]["embedding"])
    seen = np.abs(jacobian).sum(axis=-1)[:7, 1:8] > 0
    within = np.tril(np.ones((7, 7), bool))
    within[3:, :3] = False
    np.testing.assert_array_equal(seen, within)


def test_packed_equals_separate(model, params):
    texts = [text(5), text(3, 1), text(6, 2)]
    together = logits(model, params, packed([texts], 16))[0]
    alone = logits(model, params, packed([[t] for t in texts], 16))
    at = 0
    for row, one in enumerate(texts):
        want = alone[row, : len(one)]
        np.testing.assert_allclose(together[at : at + len(one)], want, **CLOSE)
        at += len(one)
    assert np.isfinite(together).all()


def test_padding_changes_nothing(model, params):
    one = text(6)
    whole = logits(model, params, plain_inputs(np.array([one])))
    padded = packed([[one]], 11)
    padded.tokens_BT[0, 6:] = 9  # whatever stands there
    np.testing.assert_allclose(logits(model, params, padded)[0, :6], whole[0], **CLOSE)


def test_order_matters(model, params):
    """Positions reach the model: the same tokens elsewhere are something else."""
    inputs = plain_inputs(np.array([[5, 7, 5, 7, 5]]))
    got = logits(model, params, inputs)[0]
    assert np.abs(got[2] - got[4]).max() > 1e-3
    shifted = inputs._replace(positions_BT=inputs.positions_BT + 1000)
    # Only distances count, but for the rounding of the angles.
    np.testing.assert_allclose(logits(model, params, shifted)[0], got, atol=1e-3)


def stacked_run(of, params):
    """Logits and the gradient of a weighted sum of them."""
    inputs = packed([[text(5), text(4, 1)]], 10)
    weight = np.random.default_rng(3).normal(size=(1, 10, V)).astype(np.float32)

    def total(params):
        made = logits(of, params, inputs)
        return jnp.sum(made * weight), made

    return jax.jit(jax.grad(total, has_aux=True))(params)


@pytest.fixture(scope="module")
def scanned(model, params):
    return stacked_run(model, params)


@pytest.mark.parametrize(
    "how, remat",
    [
        ("loop", "none"),
        pytest.param("unroll", "none", marks=pytest.mark.long),
        ("scan", "minimal"),
        ("scan", "full"),
        pytest.param("loop", "full", marks=pytest.mark.long),
    ],
)
def test_stacks_agree(params, scanned, how, remat):
    given = params
    if how == "loop":
        given = params | {"stack": tiny.unstack(params["stack"], 2)}
        assert list(given["stack"]) == ["layer_0", "layer_1"]
    gradient, made = stacked_run(tiny.model(how=how, remat=remat), given)
    if how == "loop":
        gradient = gradient | {"stack": stack.restack(gradient["stack"])}
    want_gradient, want = scanned
    np.testing.assert_allclose(made, want, **CLOSE)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        gradient,
        want_gradient,
    )


def remats(jaxpr):
    """Equations that compute again, however deep."""
    for eqn in jaxpr.eqns:
        if "prevent_cse" in eqn.params:
            yield eqn
        for inner in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from remats(getattr(inner, "jaxpr", inner))


def is_program(value):
    return isinstance(value, ClosedJaxpr | Jaxpr)


@pytest.mark.parametrize("how", stack.HOW)
def test_what_is_computed_again_is_not_taken_from_the_way_forward(params, how):
    """XLA would, and remat would save no memory; in a scan it cannot, and need not."""
    if how == "loop":
        params = params | {"stack": tiny.unstack(params["stack"], 2)}
    of = tiny.model(how=how, remat="full")
    total = lambda params: logits(of, params, plain_inputs(np.array([text(4)]))).sum()  # noqa: E731
    found = list(remats(jax.make_jaxpr(jax.grad(total))(params).jaxpr))
    assert found
    assert {eqn.params["prevent_cse"] for eqn in found} == {how != "scan"}


def test_unstack_and_restack_are_inverse(params):
    again = stack.restack(tiny.unstack(params["stack"], 2))
    jax.tree.map(np.testing.assert_array_equal, again, params["stack"])


def test_restack_keeps_the_order_of_many_layers():
    """`layer_10` comes after `layer_9`, not after `layer_1`."""
    stacked = {"layer": {"kernel": np.arange(12.0)}}
    np.testing.assert_array_equal(
        stack.restack(tiny.unstack(stacked, 12))["layer"]["kernel"], np.arange(12)
    )


@pytest.mark.parametrize(
    "how, piece",
    [("scan", "whole"), ("scan", "token by token"), ("loop", "whole")],
)
def test_cache_equals_the_full_forward(params, how, piece):
    of = tiny.model(how=how)
    if how == "loop":
        params = params | {"stack": tiny.unstack(params["stack"], 2)}
    texts = [text(9), text(9, 1), text(9, 2)]
    lengths = np.array([2, 5, 4])  # of the prompts
    full = logits(of, params, plain_inputs(np.array(texts)))
    cache = of.init_cache(3, 9)
    rows = np.arange(3, dtype=np.int32)

    def put(tokens, positions, segments, cache):
        return cached(of, params, Inputs(tokens, positions, segments, rows), cache)

    T = 5
    prompts = np.array(texts)[:, :T].astype(np.int32)
    positions = np.broadcast_to(np.arange(T, dtype=np.int32), (3, T))
    segments = (positions < lengths[:, None]).astype(np.int32)
    prompts = np.where(segments, prompts, 63)  # what pads is never seen
    if piece == "whole":
        got, cache = put(prompts, positions, segments, cache)
    else:
        parts = []
        for t in range(T):
            one = slice(t, t + 1)
            made, cache = put(
                prompts[:, one], positions[:, one], segments[:, one], cache
            )
            parts.append(made)
        got = np.concatenate(parts, axis=1)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(got[row, :length], full[row, :length], **CLOSE)
    # Then each row goes on from its own place, until the longest is full.
    for step in range(4):
        at = (lengths + step)[:, None].astype(np.int32)
        token = np.take_along_axis(np.array(texts, np.int32), at, axis=1)
        made, cache = put(token, at, np.ones_like(at), cache)
        want = np.take_along_axis(np.asarray(full), at[..., None], axis=1)
        np.testing.assert_allclose(made, want, **CLOSE)


def test_a_slot_out_of_range_is_not_written(model, params):
    cache = model.init_cache(1, 3)
    inputs = plain_inputs(np.array([text(3)]))
    _, full = cached(model, params, inputs, cache)
    past = Inputs(
        *(np.array([[n]], np.int32) for n in (5, 3, 1)), np.zeros(1, np.int32)
    )
    _, after = cached(model, params, past, full)
    jax.tree.map(np.testing.assert_array_equal, after, full)


MESHES = [
    ("replicated", (("data", -1),)),
    ("fsdp", (("data", -1),)),
    ("fsdp", (("data", 2), ("fsdp", 2), ("tensor", 2))),
    ("tensor", (("data", 4), ("tensor", 2))),
]


@pytest.mark.parametrize("rules, axes", MESHES)
def test_sharded_equals_single(devices, model, params, rules, axes):
    inputs = packed([[text(5, s), text(4, s + 1)] for s in range(8)], 10)
    want = logits(model, params, inputs)
    mesh = sharding.make_mesh(axes, devices)
    boxed = jax.eval_shape(lambda: tiny.init(model, jax.random.key(0)))
    placed = jax.device_put(params, sharding.shardings_of(boxed, mesh, rules))
    spread = jax.device_put(inputs, sharding.batch_sharding(mesh))
    kernel = placed["stack"]["layer"]["mlp"]["gate"]["kernel"]
    held = kernel.addressable_shards[0].data.size
    ways = {"replicated": 1, "fsdp": 8, "tensor": 2}[rules]
    assert held * ways == kernel.size
    with sharding.laid_out(mesh, rules):
        # Another function, so that it is traced here.
        got = jax.jit(lambda p, i: logits.__wrapped__(model, p, i))(placed, spread)
    assert len(got.devices()) == 8
    np.testing.assert_allclose(got, want, **CLOSE)


def test_starts_as_its_embedding():
    """With `residual_scale` 0 nothing is added, and all tokens are equally likely."""
    of = llama.make(**(tiny.KNOBS | {"residual_scale": 0.0}))
    start = nn.meta.unbox(jax.jit(lambda: tiny.init(of, jax.random.key(0)))())
    inputs = plain_inputs(np.array([text(6)]))
    assert (np.asarray(logits(of, start, inputs)) == 0).all()
    x = start["embed"]["embedding"][inputs.tokens_BT]
    want = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)
    got = jax.jit(of.apply)({"params": start}, inputs).hidden_BTD
    np.testing.assert_allclose(got, want, **CLOSE)


def test_tied_head_is_the_embedding():
    of = tiny.model(tied=True)
    held = tiny.params(of)
    assert "head" not in held
    output, head = jax.jit(with_head(of))(held, plain_inputs(np.array([text(6)])))
    unembed = head.kernel_DV
    np.testing.assert_array_equal(unembed, held["embed"]["embedding"].T)
    want = output.hidden_BTD @ unembed
    got = logits(of, held, plain_inputs(np.array([text(6)])))
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"how": "scam"}, "model.how 'scam'; want one of scan, unroll, loop"),
        (
            {"remat": "some"},
            "model.remat 'some'; want one of none, minimal, selective, full",
        ),
        ({"heads": 5}, "5 heads on 2 kv_heads"),
        ({"head_dim": 7}, "head_dim 7"),
    ],
)
def test_knobs_that_do_not_fit(knobs, message):
    with pytest.raises(InputError, match=message):
        tiny.model(**knobs)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_golden_ones_of_transformers(case):
    _check_logits(case, np.load(GOLDEN, allow_pickle=False)[case])


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    _check_logits(case, reference_logits(case))


def _check_logits(case, want):
    assert np.abs(want).max() > 1
    got = logits(*model_and_params(case), plain_inputs(TOKENS_BT))
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
