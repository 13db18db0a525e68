"""Every architecture against its reference, through files that go both ways."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from reference_models import (
    CASES,
    GOLDEN,
    batch,
    build,
    export,
    knobs_of,
    reference,
    reference_gradients,
    reference_logits,
)

from llm import registry, sharding, tree
from llm.errors import InputError
from llm.interop import hf, safetensors
from llm.nn.contract import Inputs
from llm.workloads import convert

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def logits(of, params, inputs):
    def both(m):
        return m.head(m(inputs).hidden_BTD).logits(of.policy)

    return of.apply({"params": params}, method=both)


def kind_of(name):
    return registry.module("models", name).KIND


# What generates, and what the reference library itself saves: torch.nn has no save.
DECODERS = [case for case in CASES if kind_of(knobs_of(case)[0]) != "masked"]
SAVED = [case for case in CASES if knobs_of(case)[0] not in ("lstm", "gru")]


def abstract(of):
    return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, _init(of)))


def _init(of):
    import flax.linen as nn

    return nn.meta.unbox(tiny.init(of, jax.random.key(0)))


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_golden_ones(case):
    want = np.load(GOLDEN, allow_pickle=False)[case]
    name, _, of, params, vocab = build(case)
    inputs, real = batch(vocab, kind_of(name), np.random.default_rng(7))
    got = np.asarray(jax.jit(functools.partial(logits, of))(params, inputs))
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got[real][:, :vocab], want[real], **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_files_go_both_ways(case, tmp_path):
    """Export and import give every parameter back, bit for bit."""
    name, knobs, of, params, vocab = build(case)
    export(tmp_path, name, knobs, params, vocab)
    found = hf.read(tmp_path)
    assert (found.name, found.vocab_size) == (name, vocab)
    again = registry.spec("models", name, **found.knobs)
    known = set(found.knobs)
    assert {k: again[k] for k in known} == {k: _plain(knobs[k]) for k in known}
    back = hf.load_params(found, abstract(of))
    for leaf, value in tree.named_leaves(params).items():
        np.testing.assert_array_equal(tree.named_leaves(back)[leaf], value, leaf)


def _plain(value):
    return tuple(value) if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """Ours and theirs of a case with random dimensions."""
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    seed = np.random.SeedSequence().entropy % 2**32
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("model")
    name, knobs, of, params, vocab = build(request.param, rng)
    print(f"seed {seed}, {knobs}, vocabulary {vocab}")
    export(folder, name, knobs, params, vocab)
    return name, knobs, of, params, vocab, folder, reference(folder), rng


@pytest.mark.oracle
def test_logits_and_gradients_equal_the_reference(pair, tmp_path):
    import torch

    name, knobs, of, params, vocab, _, theirs, rng = pair
    inputs, real = batch(vocab, kind_of(name), rng)
    weight = rng.normal(size=(*real.shape, vocab)).astype(np.float32) * real[..., None]

    def total(params):
        made = logits(of, params, inputs)[..., :vocab]
        return jnp.sum(jax.nn.log_softmax(made) * weight), made

    gradient, got = jax.jit(jax.grad(total, has_aux=True))(params)
    want = reference_logits(theirs, inputs)
    found = want.detach().numpy()
    worst = np.abs(np.asarray(got)[real] - found[real]).max()
    print(f"logits differ by {worst:.1e} of {np.abs(found[real]).max():.1f}")
    np.testing.assert_allclose(np.asarray(got)[real], found[real], **CLOSE)

    loss = (torch.log_softmax(want, -1) * torch.tensor(weight)).sum()
    loss.backward()
    export(tmp_path, name, knobs, jax.tree.map(np.asarray, gradient), vocab)
    ours = safetensors.open_folder(tmp_path)
    checked = 0
    gradients = reference_gradients(theirs)
    largest = max(np.abs(wanted).max() for wanted in gradients.values())
    furthest = 0.0
    for leaf, wanted in gradients.items():
        if leaf not in ours:
            continue
        checked += 1
        # Some are zero but for rounding, as those of the biases of keys.
        scale = max(np.abs(wanted).max(), 1e-3 * largest)
        differs = np.abs(np.asarray(ours[leaf].read()) - wanted).max() / scale
        furthest = max(furthest, differs)
        assert differs < 1e-3, (leaf, differs)
    print(f"gradients differ by {furthest:.1e}, relative")
    assert checked >= len(ours) - 4, (checked, len(ours))


@pytest.mark.oracle
@pytest.mark.parametrize("pair", DECODERS, indirect=True)
def test_greedy_generation_equals_the_reference(pair):
    import torch

    name, _, of, params, vocab, _, theirs, rng = pair
    kind = kind_of(name)
    count, lengths = 32, (3, 7, 1)
    prompts = [rng.integers(1, vocab, n).tolist() for n in lengths]
    sources = [rng.integers(1, vocab, n).tolist() for n in (5, 9, 2)]
    got = greedy(of, params, prompts, count, vocab, sources)
    for prompt, source, made in zip(prompts, sources, got, strict=True):
        ids = list(prompt)
        for _ in range(count):
            row = Inputs(
                *(np.array([x], np.int32) for x in plain(ids)), np.zeros(1, int)
            )
            if kind == "encdec":
                given = (np.array([x], np.int32) for x in plain(source))
                row = row._replace(source=Inputs(*given, np.zeros(1, int)))
            with torch.no_grad():
                ids.append(int(reference_logits(theirs, row)[0, -1].argmax()))
        assert made == ids[len(prompt) :]


def plain(ids):
    return ids, list(range(len(ids))), [1] * len(ids)


def greedy(of, params, prompts, count, vocab, sources=None):
    """Continues prompts of unequal length, padded on the right, from a cache."""
    B, P = len(prompts), max(map(len, prompts))
    tokens, positions, segments = np.zeros((3, B, P), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        positions[row, : len(prompt)] = range(len(prompt))
        segments[row, : len(prompt)] = 1
    index = np.arange(B, dtype=np.int32)
    inputs = Inputs(tokens, positions, segments, index)
    if of.reads_source:
        S = max(map(len, sources))
        given = np.zeros((3, B, S), np.int32)
        for row, source in enumerate(sources):
            for plane, values in zip(given, plain(source), strict=True):
                plane[row, : len(source)] = values
        inputs = inputs._replace(source=Inputs(*given, index))
        cache = of.init_cache(B, P + count, S)
    else:
        cache = of.init_cache(B, P + count)

    @jax.jit
    def step(inputs, cache):
        def both(m):
            output = m(inputs, cache)
            logits_BTV = m.head(output.hidden_BTD).logits(of.policy)
            return logits_BTV, cache.insert(output.cache, inputs)

        return of.apply({"params": params}, method=both)

    made_BT = []
    at_B = np.array([len(p) for p in prompts], np.int32)
    found, cache = step(inputs, cache)
    last_BV = np.asarray(found)[index, at_B - 1]
    for _ in range(count):
        token_B = last_BV[:, :vocab].argmax(-1).astype(np.int32)
        made_BT.append(token_B)
        ones = np.ones((B, 1), np.int32)
        found, cache = step(Inputs(token_B[:, None], at_B[:, None], ones, index), cache)
        last_BV, at_B = np.asarray(found)[:, 0], at_B + 1
    return np.array(made_BT).T.tolist()


@pytest.mark.oracle
@pytest.mark.parametrize("pair", SAVED, indirect=True)
def test_what_the_reference_saves_is_read(pair, tmp_path):
    """Their own config.json and names, after a save by them."""
    name, _, of, params, vocab, _, theirs, _ = pair
    theirs.save_pretrained(tmp_path)
    found = hf.read(tmp_path)
    assert (found.name, found.vocab_size) == (name, vocab)
    again = registry.build(
        "models", registry.spec("models", name, **found.knobs), vocab_size=vocab + 3
    )
    for field in set(found.knobs) - {"mlp", "windows"}:
        assert getattr(again.cfg, field) == getattr(of.cfg, field), field
    back = tree.named_leaves(hf.load_params(found, abstract(of)))
    for leaf, value in tree.named_leaves(params).items():
        np.testing.assert_array_equal(back[leaf], value, leaf)


@pytest.mark.parametrize("case", CASES)
def test_layouts_and_meshes_export_the_same(case, tmp_path, devices):
    """Sharded parameters, and those of a loop made stacked again, are the same file."""
    name, knobs, of, params, vocab = build(case)
    export(tmp_path, name, knobs, params, vocab)
    want = (tmp_path / "model.safetensors").read_bytes()
    mesh = sharding.make_mesh((("data", 2), ("fsdp", 2), ("tensor", 2)), devices)
    boxed = jax.eval_shape(lambda: tiny.init(of, jax.random.key(0)))
    placed = sharding.shardings_of(boxed, mesh, "fsdp")
    spread = jax.tree.map(jax.device_put, params, placed)
    assert not all(x.is_fully_replicated for x in jax.tree.leaves(spread))
    export(tmp_path, name, knobs, spread, vocab)
    assert (tmp_path / "model.safetensors").read_bytes() == want
    apart = _unstacked(params)
    assert "layer" not in {
        part for n in tree.named_leaves(apart) for part in n.split("/")
    }
    export(tmp_path, name, knobs, convert._stacked(apart), vocab)
    assert (tmp_path / "model.safetensors").read_bytes() == want


def _unstacked(params):
    """As a model of `how="loop"` has them, in every stack of it."""
    if not isinstance(params, dict):
        return params
    if "layer" in params:
        return tiny.unstack(params, len(jax.tree.leaves(params)[0]))
    return {name: _unstacked(value) for name, value in params.items()}


@pytest.mark.oracle
@pytest.mark.parametrize("pair", ["bert with pooler"], indirect=True)
def test_next_sentence_equals_the_reference(pair):
    import torch

    name, _, of, params, vocab, _, theirs, rng = pair
    inputs, real = batch(vocab, kind_of(name), rng)
    with torch.no_grad():
        want = theirs(
            input_ids=torch.tensor(inputs.tokens_BT).long(),
            attention_mask=torch.tensor(inputs.segments_BT).long(),
            position_ids=torch.tensor(inputs.positions_BT).long(),
            token_type_ids=torch.tensor(inputs.types_BT).long(),
        ).seq_relationship_logits.numpy()
    got = of.apply(
        {"params": params}, inputs,
        method=lambda m, inputs: m.next_sentence(m(inputs).hidden_BTD),
    )  # fmt: skip
    begun = real[:, 0]  # padding on the left has no first token
    np.testing.assert_allclose(np.asarray(got)[begun], want[begun], **CLOSE)
    assert np.abs(want).max() > 0.1


def test_large_models_are_cut_into_shards(tmp_path):
    name, knobs, of, params, vocab = build("llama")
    hf.write(tmp_path, name, knobs, params, vocab, shard_bytes=4000)
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files[0].startswith("model-00001-of-")
    back = tree.named_leaves(hf.load_params(hf.read(tmp_path), abstract(of)))
    for leaf, value in tree.named_leaves(params).items():
        np.testing.assert_array_equal(back[leaf], value, leaf)


def test_bfloat16_halves_the_file(tmp_path):
    name, knobs, of, params, vocab = build("llama")
    hf.write(tmp_path, name, knobs, params, vocab, dtype=jnp.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    back = tree.named_leaves(hf.load_params(hf.read(tmp_path), abstract(of)))
    for leaf, value in tree.named_leaves(params).items():
        want = np.asarray(value).astype(jnp.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(back[leaf], want, leaf)


def test_every_parameter_has_a_name():
    for case in CASES:
        name, knobs, _, params, _ = build(case)
        table = registry.module("models", name).HF.tensors(knobs)
        listed = [
            n for t in table for n in ([t.ours] if isinstance(t.ours, str) else t.ours)
        ]
        assert sorted(listed) == sorted(tree.named_leaves(params)), case


def change(folder, **fields):
    path = pathlib.Path(folder) / "config.json"
    held = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not ...}))


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"model_type": "mamba"},
            "model_type 'mamba'.*want one of bert, gemma2, gemma3_text, gpt2",
        ),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"hidden_size": ...}, "KeyError: 'hidden_size'"),
        ({"intermediate_size": 7}, "shape .* as config.json says"),
        ({"num_hidden_layers": 9}, "no tensor 'model.layers.2"),
        ({"num_hidden_layers": 1}, "tensors that 'llama' does not have"),
        ({"rope_parameters": {"rope_type": "odd"}}, "rope_type 'odd'"),
        ({"hidden_size": None}, "width None"),
        ({"num_attention_heads": None}, "heads None"),
        ({"num_hidden_layers": None}, "layers None"),
        ({"rms_norm_eps": 2**70}, "epsilon"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "linear", "factor": math.inf}}, "scaling"),
        ({"rope_theta": -1.0, "rope_parameters": None}, "rope_base"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, fields, message):
    name, knobs, of, params, vocab = build("llama")
    export(tmp_path, name, knobs, params, vocab)
    change(tmp_path, **fields)
    with pytest.raises(InputError, match=message):
        found = hf.read(tmp_path)
        spec = registry.spec("models", found.name, **found.knobs)
        of = registry.build("models", spec, vocab_size=vocab + 3)
        hf.load_params(found, abstract(of))


@pytest.mark.parametrize(
    "case, fields, message",
    [
        ("qwen3 moe", {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ("qwen3 moe", {"mlp_only_layers": [0]}, r"mlp_only_layers=\[0\]"),
        ("mixtral", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("gemma2", {"use_bidirectional_attention": True}, "bidirectional"),
        (
            "gemma3",
            {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
            "rope_type 'yarn' of sliding_attention",
        ),
        ("olmo2", {"attention_bias": True}, "attention_bias=True"),
    ],
)
def test_forms_that_are_not_supported(tmp_path, case, fields, message):
    name, knobs, _, params, vocab = build(case)
    export(tmp_path, name, knobs, params, vocab)
    change(tmp_path, **fields)
    with pytest.raises(InputError, match=message):
        hf.read(tmp_path)


@pytest.mark.parametrize(
    "case, knobs, message",
    [
        ("mixtral", {"renormalise": False}, "without renormalise"),
        ("mixtral", {"windows": (4, 0)}, "want one window"),
        ("gemma3", {"rope_local": 0.0}, "qk_norm without rope_local"),
        ("gemma3", {"attention_softcap": 50.0}, "qk_norm and attention_softcap"),
        ("gemma2", {"rope_local": 1e4}, "rope_local without qk_norm"),
        ("gemma2", {"windows": (4, 5)}, "want one window"),
    ],
)
def test_knobs_that_have_no_foreign_form(tmp_path, case, knobs, message):
    name, known, _, params, vocab = build(case)
    with pytest.raises(InputError, match=message):
        export(tmp_path, name, known | knobs, params, vocab)


def test_older_files_of_gemma_mean_the_same(tmp_path):
    """Before there were `layer_types` and ropes by the kind of layer."""
    older = {"layer_types": ..., "rope_parameters": ...}
    for case, fields in (
        ("gemma2", {"sliding_window_pattern": 2}),
        ("gemma3", {"sliding_window_pattern": 3,
                    "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    ):  # fmt: skip
        name, knobs, _, params, vocab = build(case)
        export(tmp_path, name, knobs, params, vocab)
        want = hf.read(tmp_path).knobs
        change(tmp_path, **older, **fields)
        assert hf.read(tmp_path).knobs == want
    change(tmp_path, rope_theta=..., rope_local_base_freq=..., rope_scaling=None)
    found = hf.read(tmp_path).knobs
    assert (found["rope_base"], found["rope_local"]) == (1e6, 1e4)
    assert found["rope_scaling"] == ()


def test_no_folder_no_json(tmp_path):
    with pytest.raises(InputError, match="want a folder with config"):
        hf.read(tmp_path / "none")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a model's"):
        hf.read(tmp_path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("hidden_size", "64"),
        ("hidden_size", 1.5),
        ("num_hidden_layers", 10**9),
        ("head_dim", 10**9),
        ("vocab_size", 10**9),
        ("num_attention_heads", [4]),
        ("rms_norm_eps", None),
        ("rms_norm_eps", []),
        ("model_type", []),
    ],
)
def test_fields_that_no_model_has(tmp_path, field, value):
    export(tmp_path, *[build("llama")[n] for n in (0, 1, 3, 4)])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(InputError) as caught:
        hf.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_json_that_is_too_deep(tmp_path, file):
    export(tmp_path, *[build("llama")[n] for n in (0, 1, 3, 4)])
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).write_text("[" * 100_000)
    with pytest.raises(InputError):
        hf.read(tmp_path)
