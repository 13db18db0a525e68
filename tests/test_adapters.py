"""Adapters: what they train, that joining and merging agree, and PEFT's form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from reference_models import batch, build, export, reference, reference_logits

from llm import adapters, registry, tree
from llm.errors import InputError
from llm.interop import peft
from llm.nn.contract import plain_inputs, reads_source
from llm.nn.weights import Lora, einsum
from llm.precision import FLOAT32, Half

pytestmark = pytest.mark.long

LORA = {"name": "lora", "rank": 3, "alpha": 5.0}
MODELS = [n for n in registry.choices("models") if n not in ("gru", "lstm")]


def model_of(name):
    knobs = registry.module("models", name).TINY
    model = registry.build(
        "models", {"name": name, **knobs}, vocab_size=128, policy=FLOAT32
    )
    inputs = plain_inputs(np.arange(20, dtype=np.int32).reshape(2, 10))
    if reads_source(model):
        inputs = inputs._replace(source=inputs)
    return model, inputs


def shaken(x, size=0.05):
    waves = jnp.cos(jnp.arange(x.size, dtype=jnp.float32) * 1.7 + x.size)
    return x + size * waves.reshape(x.shape)


@pytest.mark.parametrize("name", MODELS)
def test_lora_of_every_model(name):
    """It begins as the model is; merged and beside its kernels it is the same."""
    model, inputs = model_of(name)
    of = adapters.build(LORA)
    boxed = tiny.init(model, jax.random.key(0))
    pairs, own = nn.meta.unbox(of.split(jax.random.key(1), boxed))
    own = jax.tree.map(shaken, own)
    want = tiny.logits(model, own, inputs)
    begun = tiny.logits(model, of.join(pairs, own), inputs)
    np.testing.assert_allclose(begun, want, atol=1e-5)
    pairs = jax.tree.map(shaken, pairs)
    joined = of.join(pairs, own)
    beside = tiny.logits(model, joined, inputs)
    assert float(jnp.abs(beside - want).max()) > 1e-3
    merged = of.plain(joined)
    assert jax.tree.structure(merged) == jax.tree.structure(own)
    np.testing.assert_allclose(tiny.logits(model, merged, inputs), beside, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "inputs", "outputs"),
    [("BTD,DNH->BTNH", (6,), (2, 3)), ("BTNH,NHD->BTD", (2, 3), (6,))],
)
def test_lora_by_hand(spec, inputs, outputs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, *inputs)).astype(np.float32)
    kernel = rng.normal(size=(*inputs, *outputs)).astype(np.float32)
    a = rng.normal(size=(*inputs, 3)).astype(np.float32)
    b = rng.normal(size=(3, *outputs)).astype(np.float32)
    found = einsum(spec, x, Lora(kernel, a, b, 0.7), FLOAT32)
    whole = kernel + 0.7 * np.tensordot(a, b, 1)
    np.testing.assert_allclose(found, np.einsum(spec, x, whole), rtol=1e-4, atol=1e-4)
    merged = Lora(kernel, a, b, 0.7).merged()
    np.testing.assert_allclose(merged, whole, rtol=1e-5, atol=1e-5)
    stacked = Lora(*(jnp.stack([y, 2 * y]) for y in (kernel, a, b)), 0.7).merged()
    twice = 2 * kernel + 0.7 * np.tensordot(2 * a, 2 * b, 1)
    np.testing.assert_allclose(stacked, [whole, twice], rtol=1e-5, atol=1e-5)
    rounded = Half.of(jnp.asarray(kernel))
    half = einsum(spec, x, Lora(rounded, a, b, 0.7), FLOAT32)
    near = np.asarray(jnp.asarray(kernel).astype(jnp.bfloat16), np.float32)
    want = einsum(spec, x, Lora(near, a, b, 0.7), FLOAT32)
    np.testing.assert_allclose(half, want, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_and_what_is_not():
    model, _ = model_of("llama")
    boxed = tiny.init(model, jax.random.key(0))
    of = adapters.build({"name": "freeze", "train": ".*/scale"})
    mine, rest = of.split(jax.random.key(1), boxed)
    names = set(adapters.named_boxes(boxed))
    trained = set(adapters.named_boxes(mine))
    assert trained and all(n.endswith("/scale") for n in trained)
    assert set(adapters.named_boxes(rest)) == names - trained
    joined = of.join(nn.meta.unbox(mine), nn.meta.unbox(rest))
    want = tree.named_leaves(nn.meta.unbox(boxed))
    assert {n: x.tolist() for n, x in tree.named_leaves(joined).items()} == {
        n: x.tolist() for n, x in want.items()
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "lora", "rank": 0}, "adapter.rank 0"),
        ({"name": "lora", "targets": "("}, "adapter.targets"),
        ({"name": "lora", "targets": "nothing"}, "names no kernel"),
        ({"name": "freeze", "train": ""}, "names no parameter"),
        ({"name": "freeze", "train": "("}, "adapter.train"),
    ],
)
def test_refused(spec, message):
    model, _ = model_of("llama")
    with pytest.raises(InputError, match=message):
        boxed = tiny.init(model, jax.random.key(0))
        adapters.build(spec).split(jax.random.key(1), boxed)


def test_experts_are_left_alone():
    model, _ = model_of("moe")
    pairs, _ = adapters.build(LORA).split(
        jax.random.key(1), tiny.init(model, jax.random.key(0))
    )
    assert all("/mlp/" not in name for name in adapters.named_boxes(pairs))


# --- PEFT


def adapted(case, seed=0):
    """A model with weights and a low-rank update that is not zero."""
    name, knobs, of, params, vocab = build(case)
    boxed = tiny.init(of, jax.random.key(0))
    pairs, _ = adapters.build(LORA).split(jax.random.key(seed), boxed)
    pairs = jax.tree.map(lambda x: shaken(x, 0.3), nn.meta.unbox(pairs))
    joined = adapters.build(LORA).join(pairs, params)
    return name, knobs, of, params, joined, vocab


def leaves_of(joined):
    is_lora = lambda x: isinstance(x, Lora)  # noqa: E731
    found, _ = jax.tree_util.tree_flatten_with_path(joined, is_leaf=is_lora)
    return {tree.name(path): leaf for path, leaf in found}


@pytest.mark.oracle
@pytest.mark.parametrize("case", ["llama", "gemma2", "bert", "t5 1.1"])
def test_peft_loads_ours_and_we_load_theirs(case, tmp_path):
    library = pytest.importorskip("peft")
    import torch

    name, knobs, of, params, joined, vocab = adapted(case)
    kind = registry.module("models", name).KIND
    inputs, _ = batch(vocab, kind, np.random.default_rng(1))
    export(tmp_path, name, knobs, params, vocab)
    (tmp_path / "ours").mkdir()
    peft.write(tmp_path / "ours", name, knobs, leaves_of(joined))
    theirs = library.PeftModel.from_pretrained(reference(tmp_path), tmp_path / "ours")
    real = inputs.segments_BT > 0
    with torch.no_grad():
        want = reference_logits(theirs.base_model.model, inputs).numpy()[real]
    found = np.asarray(tiny.logits(of, joined, inputs))[real][:, :vocab]
    np.testing.assert_allclose(found, want, atol=1e-3, rtol=1e-3)
    plain = np.asarray(tiny.logits(of, params, inputs))[real][:, :vocab]
    assert np.abs(plain - want).max() > 0.05
    # And back: what it writes, of ours or of its own, is added in here.
    for parameter in theirs.parameters():
        with torch.no_grad():
            parameter += 0.01
    theirs.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        # The frozen weights moved, too: take the plain model's own.
        other = library.PeftModel.from_pretrained(
            reference(tmp_path), tmp_path / "again"
        )
        want = reference_logits(other.base_model.model, inputs).numpy()[real]
    merged = peft.merged(tmp_path / "again", name, knobs, tree.named_leaves(params))
    found = tiny.logits(of, adapters.nested(merged), inputs)
    found = np.asarray(found)[real][:, :vocab]
    np.testing.assert_allclose(found, want, atol=1e-3, rtol=1e-3)


def test_adapters_that_do_not_fit(tmp_path):
    name, knobs, _, params, joined, _ = adapted("llama")
    peft.write(tmp_path, name, knobs, leaves_of(joined))
    leaves = tree.named_leaves(params)
    assert peft.merged(tmp_path, name, knobs, leaves).keys() == leaves.keys()
    config = (tmp_path / "adapter_config.json").read_text()
    for old, new, message in (
        ('"r": 3', '"r": 0', "with r 0"),
        ('"peft_type": "LORA"', '"peft_type": "IA3"', "IA3"),
        ('"use_dora": false', '"use_dora": true', "plain LoRA"),
        ("{", "[", "JSONDecodeError"),
    ):
        (tmp_path / "adapter_config.json").write_text(config.replace(old, new, 1))
        with pytest.raises(InputError, match=message):
            peft.merged(tmp_path, name, knobs, leaves)
    (tmp_path / "adapter_config.json").write_text(config)
    other, its_knobs, _, its, _, _ = adapted("bert")
    with pytest.raises(InputError, match="by themselves"):
        peft.merged(tmp_path, other, its_knobs, tree.named_leaves(its))
    name, knobs, _, _, joined, _ = adapted("gpt2")
    with pytest.raises(InputError, match="which is a part of"):
        peft.write(tmp_path, name, knobs, leaves_of(joined))
