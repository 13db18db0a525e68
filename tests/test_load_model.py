"""A loaded model in the form to generate with; loading is tested by test_convert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm import registry, tree
from llm.inference import load_model
from llm.inference.prompt_rows import inputs_of
from llm.precision import Half, Policy

NAMES = [
    name
    for name in registry.choices("models")
    if registry.module("models", name).KIND != "masked"
]


def loaded(name, dtype="bfloat16", platform="cpu"):
    spec = registry.spec("models", name, **registry.module("models", name).TINY)
    policy = Policy(dtype, platform)
    of = registry.build("models", spec, vocab_size=64, policy=policy)
    params = jax.tree.map(jnp.asarray, tiny.params(of, seed=2))
    return load_model.Loaded(of, None, params, None, None, 0)


@pytest.mark.parametrize("name", NAMES)
def test_halves_give_what_rounded_parameters_give(name, monkeypatch):
    monkeypatch.setattr(load_model, "_CACHED", 0)
    given = loaded(name)
    model, params = load_model.for_decoding(given)
    assert model.policy == Policy("float32", "cpu")
    is_half = lambda x: isinstance(x, Half)  # noqa: E731
    found = jax.tree.leaves(params, is_leaf=is_half)
    assert sum(map(is_half, found)) >= 4

    def plain(half, whole):
        return whole.astype(jnp.bfloat16).astype(jnp.float32) if is_half(half) else half

    rounded = jax.tree.map(plain, params, given.params, is_leaf=is_half)
    assert tree.size_bytes(params) < tree.size_bytes(rounded)
    source = [[7, 8]] if name == "t5" else None
    inputs = inputs_of([[5, 6, 7, 9]], source)
    np.testing.assert_allclose(
        tiny.logits(model, params, inputs), tiny.logits(model, rounded, inputs),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_experts_and_what_chooses_them_stay_whole(monkeypatch):
    monkeypatch.setattr(load_model, "_CACHED", 0)
    _, params = load_model.for_decoding(loaded("moe"))
    layer = params["stack"]["layer"]
    assert isinstance(layer["attention"]["query"]["kernel"], Half)
    assert not any(isinstance(x, Half) for x in jax.tree.leaves(layer["mlp"]))


@pytest.mark.parametrize(
    "dtype, platform, model_dtype",
    [
        ("float32", "cpu", "float32"),
        ("bfloat16", "cpu", "float32"),  # small enough for the cache
        ("bfloat16", "tpu", "bfloat16"),
    ],
)
def test_who_has_nothing_to_gain_keeps_what_it_has(dtype, platform, model_dtype):
    given = loaded("llama", dtype, platform)
    model, params = load_model.for_decoding(given)
    assert params is given.params
    assert model.policy == Policy(model_dtype, platform)
