"""Weights and configs as other programs write them: read as they mean, or refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny
from reference_models import build, export

from llm import registry, tree
from llm.errors import InputError
from llm.interop import config_fields, gguf, gguf_llama, hf, peft, safetensors
from llm.nn import hf_names, quantized

# A tensor that repeats another one, and whether a different one may stand for itself.
COPIES = {
    "llama 3.1": ("lm_head.weight", "model.embed_tokens.weight", True),
    "qwen3": ("lm_head.weight", "model.embed_tokens.weight", True),
    "qwen3 moe": ("lm_head.weight", "model.embed_tokens.weight", True),
    "gemma2": ("lm_head.weight", "model.embed_tokens.weight", False),
    "gemma3": ("lm_head.weight", "model.embed_tokens.weight", False),
    "gpt2": ("lm_head.weight", "transformer.wte.weight", False),
    "bert": ("cls.predictions.decoder.weight",
             "bert.embeddings.word_embeddings.weight", False),
    "t5": ("encoder.embed_tokens.weight", "shared.weight", False),
}  # fmt: skip


def tensors_of(folder):
    return {n: np.array(t.read()) for n, t in safetensors.open_folder(folder).items()}


def rewrite(folder, tensors):
    made = [
        safetensors.Made(n, x.shape, x.dtype, lambda x=x: x) for n, x in tensors.items()
    ]
    safetensors.write_file(folder / "model.safetensors", made)


def change(folder, **fields):
    """Fields of config.json changed; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))


def loaded(folder):
    found = hf.read(folder)
    of = registry.build(
        "models", {"name": found.name, **found.knobs}, vocab_size=found.vocab_size
    )
    return found, hf.load_params(found, jax.eval_shape(lambda: tiny.params(of)))


@pytest.mark.parametrize("case", COPIES)
def test_a_copy_that_differs_is_never_dropped(case, tmp_path, capsys):
    name, original, own = COPIES[case]
    model, knobs, _, params, vocab = build(case)
    export(tmp_path, model, knobs, params, vocab)
    tensors = tensors_of(tmp_path)
    rewrite(tmp_path, tensors | {name: tensors[original]})
    assert loaded(tmp_path)[0].knobs.get("tied", True)  # equal: as if it were not there
    rewrite(tmp_path, tensors | {name: tensors[original] + 1})
    if not own:
        with pytest.raises(InputError, match="differs from"):
            loaded(tmp_path)
        return
    found, made = loaded(tmp_path)
    assert "a head of its own" in capsys.readouterr().out
    kernel = tree.named_leaves(made)["head/kernel"]
    np.testing.assert_array_equal(kernel.T, tensors[original] + 1)
    assert found.knobs["tied"] is False


def test_what_is_not_read_is_named(tmp_path, capsys):
    model, knobs, _, params, vocab = build("gpt2")
    export(tmp_path, model, knobs, params, vocab)
    masks = {"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32)}
    rewrite(tmp_path, tensors_of(tmp_path) | masks)
    loaded(tmp_path)
    assert "not read: transformer.h.0.attn.bias" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, wrong):
    model, knobs, _, params, vocab = build("llama")
    export(tmp_path, model, knobs, params, vocab)
    tensors = tensors_of(tmp_path)
    tensors["model.norm.weight"][1] = wrong
    rewrite(tmp_path, tensors)
    with pytest.raises(InputError, match=r"'model.norm.weight' with 1 numbers"):
        loaded(tmp_path)


@pytest.mark.parametrize("field", ["tie_word_embeddings", "attention_bias", "mlp_bias"])
@pytest.mark.parametrize("value", ["false", "true", 0, []])
def test_flags_are_true_or_false(tmp_path, field, value):
    model, knobs, _, params, vocab = build("llama")
    export(tmp_path, model, knobs, params, vocab)
    change(tmp_path, **{field: value})
    with pytest.raises(InputError, match=f"{field} .*; want true or false"):
        hf.read(tmp_path)


# --- positions


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e4},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0},
         "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "default"},
         "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ],
)  # fmt: skip
def test_generations_that_disagree_are_refused(fields):
    with pytest.raises(InputError, match="remove the one that is wrong"):
        hf_names.rope_knobs({"max_position_embeddings": 64} | fields)


SCALINGS = [(), ("linear", 2.0), ("llama3", 8.0, 1.0, 4.0, 64),
            ("yarn", 4.0, 32.0, 1.0, 64, 1.1386294361119891)]  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
def test_each_generation_reads_what_we_export(scaling):
    """Either half of what we write says all of it."""
    knobs = build("llama")[1] | {"rope_base": 5e5, "rope_scaling": scaling}
    config = hf_names.decoder_config(knobs, 64) | {"max_position_embeddings": 64}
    want = {"rope_base": 5e5, "rope_scaling": scaling}
    for gone in ((), ("rope_parameters",), ("rope_scaling", "rope_theta")):
        rest = {name: value for name, value in config.items() if name not in gone}
        assert hf_names.rope_knobs(rest) == want


# --- fields that are missing

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3Text", "Olmo2",
            "Mixtral", "Qwen3Moe", "GPT2", "Bert")  # fmt: skip
FIELDS = (
    "rope_theta", "rope_parameters", "rms_norm_eps", "layer_norm_eps",
    "layer_norm_epsilon", "sliding_window", "max_window_layers", "use_sliding_window",
    "num_key_value_heads", "head_dim", "tie_word_embeddings", "hidden_act",
    "hidden_activation", "activation_function", "norm_topk_prob", "num_experts_per_tok",
    "n_inner", "query_pre_attn_scalar", "attn_logit_softcapping", "attention_bias",
    "final_logit_softcapping", "layer_types", "type_vocab_size",
    "max_position_embeddings", "n_positions",
)  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_field_has_the_default_of_its_model_type(family):
    """Each alone is left out of a config: we read what transformers fills in."""
    transformers = pytest.importorskip("transformers")
    of = getattr(transformers, f"{family}Config")
    small = {} if family == "GPT2" else {"hidden_size": 512, "num_hidden_layers": 40}
    whole = json.loads(json.dumps(of(**small).to_dict(), default=str))
    _, dialect = hf.dialects()[whole["model_type"]]
    compared = 0
    for field in [None, *FIELDS]:
        rest = {k: v for k, v in whole.items() if k != field}
        filled = of(**{k: v for k, v in rest.items() if k != "model_type"}).to_dict()
        want = dialect.knobs({**filled, "tensors": ()})
        try:
            made = dialect.knobs(hf.completed(rest, dialect) | {"tensors": ()})
        except (InputError, LookupError):
            continue  # refused
        assert made == want, field
        compared += 1
    assert compared > len(FIELDS) / 2  # what is refused shows nothing


# --- fields that no table reads

# (case, fields): what changes a model of that kind.
CHANGES = [
    ("llama", {"partial_rotary_factor": 0.5}), ("llama", {"logits_scaling": 8.0}),
    ("llama", {"embedding_multiplier": 12.0}), ("llama", {"residual_multiplier": 0.2}),
    ("llama", {"attention_multiplier": 0.01}), ("olmo2", {"logit_scale": 0.5}),
    ("llama", {"final_logit_softcapping": 30.0}), ("llama", {"sliding_window": 8}),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}),
    ("olmo2", {"layer_types": ["sliding_attention"] * 2}),
    ("llama", {"no_rope_layers": [1, 0]}), ("qwen3", {"no_rope_layers": [0, 1]}),
    ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    ("gpt2", {"quantization_config": {"quant_method": "awq"}}),
    ("llama", {"use_bidirectional_attention": True}), ("gpt2", {"qk_norm": True}),
    ("llama", {"is_causal": False}), ("t5", {"tie_encoder_decoder": True}),
    ("gemma2", {"logits_scaling": 2}),
]  # fmt: skip
NEUTRAL = [
    ("llama", {"partial_rotary_factor": 1.0, "logits_scaling": 1, "logit_scale": None}),
    ("llama", {"sliding_window": 4096, "use_sliding_window": False}),
    ("llama", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    ("llama", {"no_rope_layers": [1, 1], "is_causal": True, "qk_norm": False}),
    ("llama", {"attention_multiplier": 6**-0.5, "pretraining_tp": 1}),
    ("llama", {"torch_dtype": "bfloat16", "use_cache": True, "attention_dropout": 0.1,
               "_name_or_path": "x", "bos_token_id": [1, 2], "initializer_range": 0.1,
               "transformers_version": "5", "auto_map": {"x": "y"}}),
    ("gemma2", {"hidden_act": "gelu_pytorch_tanh"}),
    ("gpt2", {"n_ctx": 16, "task_specific_params": {"text-generation": {"x": 1}},
              "resid_pdrop": 0.1, "summary_type": "cls_index", "do_sample": True}),
    ("bert", {"gradient_checkpointing": False, "hidden_dropout_prob": 0.1,
              "classifier_dropout": 0.1}),
    ("t5", {"dense_act_fn": "relu", "n_positions": None, "initializer_factor": 1.0}),
    ("qwen3 moe", {"intermediate_size": 6144, "max_window_layers": 28,
                   "router_aux_loss_coef": 0.1, "output_router_logits": True}),
]  # fmt: skip


def exported(folder, case, **fields):
    model, knobs, _, params, vocab = build(case)
    export(folder, model, knobs, params, vocab)
    want = hf.read(folder).knobs
    change(folder, **fields)
    return want


@pytest.mark.parametrize(("case", "fields"), CHANGES)
def test_fields_that_change_a_model_are_refused_by_name(case, fields, tmp_path):
    exported(tmp_path, case, **fields)
    with pytest.raises(InputError, match=f"config.json with {list(fields)[-1]} "):
        hf.read(tmp_path)


@pytest.mark.parametrize(("case", "fields"), NEUTRAL)
def test_fields_that_change_nothing_are_left_alone(case, fields, tmp_path, capsys):
    want = exported(tmp_path, case, **fields)
    assert hf.read(tmp_path).knobs == want
    assert not capsys.readouterr().out


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "bert", "t5", "qwen3 moe"])
def test_fields_that_nobody_knows_are_named_once(case, tmp_path, capsys):
    exported(tmp_path, case, foo_bar=3, baz=None, new_gate={"x": 1})
    hf.read(tmp_path)
    hf.read(tmp_path)
    said = capsys.readouterr().out
    assert said == f"{tmp_path / 'config.json'}: not read: foo_bar, new_gate\n"


@pytest.mark.oracle
@pytest.mark.parametrize("family", [*FAMILIES, "T5"])
def test_the_own_fields_of_a_model_type_are_known(family, capsys):
    """All that transformers writes for a plain model."""
    transformers = pytest.importorskip("transformers")
    of = getattr(transformers, f"{family}Config")
    whole = json.loads(json.dumps(of().to_dict(), default=str))
    _, dialect = hf.dialects()[whole["model_type"]]
    watched = config_fields.Watched(hf.completed(whole, dialect) | {"tensors": ()})
    config_fields.check(watched, dialect.knobs(watched), "config.json")
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "rope", "what"),
    [
        ("rope_scaling", {"factor": 2.0}, "factor and no rope_type"),
        ("rope_parameters", {"rope_theta": 1e4, "factor": 2.0}, "no rope_type"),
        ("rope_scaling", {"type": "linear", "rope_type": "default", "factor": 2.0},
         "type 'linear' and rope_type 'default'"),
        ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5},
         "partial_rotary_factor 0.5"),
        ("rope_scaling", {"type": "default", "mrope_section": [2, 1]}, "mrope_section"),
        ("rope_parameters", {"full_attention": {"rope_theta": 1e4}},
         "a rope for each of full_attention"),
    ],
)  # fmt: skip
def test_parts_of_a_rope_that_would_be_left_out_are_refused(name, rope, what):
    with pytest.raises(InputError, match=what):
        hf_names.rope_knobs({"max_position_embeddings": 64, name: rope})


def test_fields_of_a_rope_that_nobody_knows_are_named(tmp_path, capsys):
    scaling = {"rope_type": "linear", "factor": 2.0, "offset": 7, "finetuned": True}
    exported(tmp_path, "llama", rope_scaling=scaling, rope_parameters="gone")
    assert hf.read(tmp_path).knobs["rope_scaling"] == ("linear", 2.0)
    assert "not read: rope_scaling.offset\n" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"]
)
def test_whole_numbers_without_scales_are_no_weights(dtype, name, tmp_path):
    exported(tmp_path, "llama")
    tensors = tensors_of(tmp_path)
    rewrite(tmp_path, tensors | {name: np.ones(tensors[name].shape, dtype)})
    with pytest.raises(InputError, match=f"tensor '{name}' of {np.dtype(dtype)}"):
        loaded(tmp_path)


# --- settings of GGUF files


def rope_of(folder, name="llama", case="llama", **keys):
    """The knobs of a file with more keys of its architecture."""
    model, knobs, _, params, vocab = build(case)
    hf.write(folder, model, knobs | {"rope_scaling": ()}, params, vocab)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 64
    tensors = safetensors.open_folder(folder)
    gguf_llama.write(folder / "m.gguf", config, tensors, {}, "f16")
    held = gguf.open_file(folder / "m.gguf")
    more = {f"{name}.{key.replace('__', '.')}": value for key, value in keys.items()}
    return gguf_llama.read(held._replace(keys={**held.keys, **more})).knobs


SCALED = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0,
          "rope__scaling__original_context_length": 16}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ({"rope__scale_linear": 4.0}, ("linear", 4.0)),
        ({"rope__scaling__factor": 4.0}, ("linear", 4.0)),
        ({"rope__scaling__factor": 4.0, "rope__scale_linear": 4.0}, ("linear", 4.0)),
        ({"rope__scaling__factor": 4.0, "rope__scaling__type": "none"}, ()),
        ({"rope__scaling__factor": 1.0}, ()),
        ({"rope__scale_linear": 0.0}, ()),
        (SCALED | {"rope__scaling__yarn_beta_fast": 8.0,
                   "rope__scaling__yarn_beta_slow": 2.0},
         ("yarn", 4.0, 8.0, 2.0, 16, 1 + 0.1 * np.log(4))),
    ],
)  # fmt: skip
def test_scalings_of_gguf_files(keys, want, tmp_path, capsys):
    found = rope_of(tmp_path, **keys)["rope_scaling"]
    assert found[:1] == want[:1]
    np.testing.assert_allclose(found[1:], want[1:])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "neutral"),
    [
        ("rope__scaling__attn_factor", 2.0, 1.0),
        ("rope__scaling__yarn_log_multiplier", 0.1, 0.0),
        ("rope__scaling__yarn_ext_factor", 0.5, 1.0), ("logit_scale", 8.0, 1.0),
        ("embedding_scale", 12.0, 1.0), ("residual_scale", 0.2, 1.0),
        ("attention__scale", 0.1, 6**-0.5), ("final_logit_softcapping", 30.0, 0.0),
        ("attn_logit_softcapping", 50.0, 0.0), ("attention__causal", False, True),
        ("attention__clamp_kqv", 5.0, 0.0), ("attention__max_alibi_bias", 8.0, 0.0),
        ("attention__sliding_window", 8, 0), ("expert_used_count", 2, 0),
        ("attention__value_length", 7, 6), ("use_parallel_residual", True, False),
        ("rope__dimension_sections", np.array([1, 2]), np.array([])),
    ],
)  # fmt: skip
def test_keys_that_change_a_gguf_model_are_refused(key, value, neutral, tmp_path):
    for case in ("llama", "qwen3"):
        want = rope_of(tmp_path, case, case)
        assert rope_of(tmp_path, case, case, **{key: neutral}) == want
        with pytest.raises(InputError, match=f"{case}.{key.replace('__', '.')} "):
            rope_of(tmp_path, case, case, **{key: value})


@pytest.mark.parametrize(
    "keys",
    [{"rope__scaling__factor": 4.0, "rope__scale_linear": 2.0},
     {"rope__scaling__type": "longrope"}, {"rope__scaling__type": "yarn"}],
)  # fmt: skip
def test_scalings_that_are_not_to_be_had_are_refused(keys, tmp_path):
    with pytest.raises(InputError, match=r"rope.scal"):
        rope_of(tmp_path, **keys)


def test_keys_of_gguf_that_nobody_knows_are_named_once(tmp_path, capsys):
    for _ in range(2):
        rope_of(tmp_path, foo=1, rope__bar=2, context_length=64)
    said = capsys.readouterr().out
    assert said == f"{tmp_path / 'm.gguf'}: not read: llama.foo, llama.rope.bar\n"


# --- files


def header(folder, text):
    data = text.encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + b"\0" * 64)
    return path


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "U32", "F4"])
def test_other_types_are_not_damage(tmp_path, dtype):
    path = header(tmp_path, json.dumps(
        {"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}
    ))  # fmt: skip
    with pytest.raises(
        InputError, match=f"'a' of dtype {dtype}, which is not supported"
    ):
        safetensors.open_file(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{" * 9])
def test_a_nested_header_is_one_line(tmp_path, text):
    with pytest.raises(InputError, match="a header that is not JSON") as caught:
        safetensors.open_file(header(tmp_path, text))
    assert "\n" not in str(caught.value)


# --- adapters


@pytest.mark.oracle
def test_patterns_of_ranks_and_alphas(tmp_path):
    """PEFT gives modules ranks and scales of their own; merged by both, compared."""
    library = pytest.importorskip("peft")
    torch = pytest.importorskip("torch")
    from reference_models import reference, reference_logits

    from llm.nn.contract import plain_inputs

    name, knobs, of, params, vocab = build("llama")
    export(tmp_path, name, knobs, params, vocab)
    config = library.LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 3}, alpha_pattern={"layers.0.self_attn.q_proj": 32},
        init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = library.get_peft_model(reference(tmp_path), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    merged = peft.merged(tmp_path / "adapter", name, knobs, tree.named_leaves(params))
    inputs = plain_inputs(np.random.default_rng(0).integers(3, vocab, (2, 9)))
    want = reference_logits(theirs, jax.tree.map(np.asarray, inputs)).detach().numpy()
    nested = {}
    for path, leaf in merged.items():
        *parts, last = path.split("/")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = leaf
    found = np.asarray(tiny.logits(of, nested, inputs))[..., :vocab]
    np.testing.assert_allclose(found, want, atol=1e-3, rtol=1e-3)


def adapter(folder, tensors=None, targets=("q_proj",), **config):
    """A plain adapter of queries, in both layers, with other fields."""
    name, knobs, _, params, _ = build("llama")
    rng, made = np.random.default_rng(0), {}
    for layer in range(knobs["layers"]):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj."
        inputs, outputs = knobs["width"], knobs["heads"] * knobs["head_dim"]
        made[at + "lora_A.weight"] = rng.normal(size=(2, inputs)).astype(np.float32)
        made[at + "lora_B.weight"] = rng.normal(size=(outputs, 2)).astype(np.float32)
    made |= tensors(made) if tensors else {}
    safetensors.write_file(
        folder / "adapter_model.safetensors",
        [safetensors.Made(n, x.shape, x.dtype, lambda x=x: x) for n, x in made.items()],
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4,
              "target_modules": list(targets)} | config  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, default=str))
    merged = peft.merged(folder, name, knobs, tree.named_leaves(params))
    return np.asarray(merged["stack/layer/attention/query/kernel"])


# Fields of PEFT's config, with a value that is set, and whether it may be.
ADAPTER_FIELDS = {
    "alora_invocation_tokens": [1, 2], "arrow_config": {"top_k": 2}, "bias": "all",
    "fan_in_fan_out": True, "kasa_config": {"x": 1}, "layer_replication": [[0, 2]],
    "lora_bias": True, "modules_to_save": ["lm_head"], "monteclora_config": {"x": 1},
    "target_parameters": ["x"], "trainable_token_indices": [1],
    "use_bdlora": {"x": 1}, "use_dora": True, "use_qalora": True,
}  # fmt: skip
NEUTRAL_FIELDS = {
    "task_type": "CAUSAL_LM", "auto_mapping": {"x": 1}, "peft_version": "0.9",
    "base_model_name_or_path": "x/y", "revision": "main", "inference_mode": True,
    "lora_dropout": 0.1, "megatron_config": {"x": 1}, "megatron_core": "x",
    "loftq_config": {"bits": 4}, "eva_config": {"x": 1}, "corda_config": {"x": 1},
    "lora_ga_config": {"x": 1}, "velora_config": {"x": 1}, "qalora_group_size": 8,
    "runtime_config": {"x": 1}, "ensure_weight_tying": True,
    "exclude_modules": ["v_proj"], "layers_to_transform": [0, 1],
    "layers_pattern": "layers",
}  # fmt: skip
READ_FIELDS = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
               "peft_type", "target_modules", "init_lora_weights"}  # fmt: skip


@pytest.mark.parametrize("field", ADAPTER_FIELDS)
def test_fields_that_change_an_adapter_are_refused_by_name(field, tmp_path, capsys):
    with pytest.raises(InputError, match=f"an adapter with {field} "):
        adapter(tmp_path, **{field: ADAPTER_FIELDS[field]})
    want = adapter(tmp_path)
    for unset in (None, "none" if field == "bias" else False):
        np.testing.assert_array_equal(adapter(tmp_path, **{field: unset}), want)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("field", NEUTRAL_FIELDS)
def test_fields_of_the_training_alone_change_nothing(field, tmp_path, capsys):
    made = adapter(tmp_path, **{field: NEUTRAL_FIELDS[field]})
    np.testing.assert_array_equal(made, adapter(tmp_path))
    assert not capsys.readouterr().out


@pytest.mark.oracle
def test_every_field_of_peft_is_one_of_these():
    library = pytest.importorskip("peft")
    fields = {field.name for field in dataclasses.fields(library.LoraConfig)}
    assert fields == READ_FIELDS | ADAPTER_FIELDS.keys() | NEUTRAL_FIELDS.keys()


@pytest.mark.parametrize(
    ("init", "fits"),
    [(True, True), (False, True), (None, True), ("gaussian", True), ("eva", True),
     ("orthogonal", True), ("mica", True), ("pissa", False), ("pissa_niter_4", False),
     ("olora", False), ("corda", False), ("loftq", False), ("lora_ga", False),
     ("news", False), ({}, False)],
)  # fmt: skip
def test_beginnings_that_change_the_model_are_refused(init, fits, tmp_path):
    if fits:
        np.testing.assert_array_equal(
            adapter(tmp_path, init_lora_weights=init), adapter(tmp_path)
        )
        return
    with pytest.raises(InputError, match=r"init_lora_weights .* changes the model"):
        adapter(tmp_path, init_lora_weights=init)


def test_fields_of_an_adapter_that_nobody_knows_are_named(tmp_path, capsys):
    adapter(tmp_path, new_kind={"x": 1}, other=None, newer=True)
    assert capsys.readouterr().out == "adapter_config.json: not read: new_kind, newer\n"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_adapters_that_are_not_finite_are_refused_by_name(part, wrong, tmp_path):
    def spoil(tensors):
        name = next(name for name in tensors if part in name)
        tensors[name][0, 0] = wrong
        return {}

    with pytest.raises(InputError, match=f"q_proj.{part}.weight' with 1 numbers"):
        adapter(tmp_path, spoil)


def test_targets_without_tensors_are_named(tmp_path, capsys):
    with pytest.raises(InputError, match="without tensors of v_proj"):
        adapter(tmp_path, targets=["q_proj", "v_proj"])
    adapter(tmp_path, targets=["q_proj", "query_key_value"])  # which no Llama has
    assert not capsys.readouterr().out

    def lose(tensors):
        for name in [name for name in tensors if "layers.1." in name]:
            del tensors[name]
        return {}

    adapter(tmp_path, lose)
    said = capsys.readouterr().out
    assert "without tensors of base_model.model.model.layers.1.self_attn.q_proj" in said


# --- few bits


@pytest.mark.parametrize("shape", ["normal", "heavy tails", "one sided"])
def test_four_bits_lose_less_than_ggufs_form(shape):
    """Squared error of groups of 32 against Q4_0 of the library gguf: same bits."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda: rng.normal(size=(256, 128)),
        "heavy tails": lambda: rng.standard_t(3, size=(256, 128)),
        "one sided": lambda: np.abs(rng.normal(size=(256, 128))),
    }[shape]
    kernel = draw().astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q4_0
    rows = np.ascontiguousarray(kernel.T)  # blocks go along the inputs
    theirs = gguf.dequantize(gguf.quantize(rows, kind), kind).T
    ours = quantized.quantize_kernel(kernel, 1, bits="int4", group=32)
    lost = [
        float(np.square(np.asarray(x) - kernel).sum()) for x in (ours.dense(), theirs)
    ]
    assert lost[0] < 0.95 * lost[1]
    assert set(np.unique(np.asarray(ours.values, np.int8))) <= set(range(-8, 8))
