"""Logits of the reference implementations on our tiny weights, for every architecture.

    python tests/reference_models.py     # writes tests/golden/models.npz

Weights come from a numpy generator and go to `transformers` through our own export, so
that what is compared is the file that a user would load. The golden file holds only
what the reference made of them: the light suite compares with the file, the oracle
suite with the library itself, with other dimensions in every run.
"""

import functools
import json
import pathlib
import tempfile

import jax
import numpy as np
import tiny

from llm import registry, tree
from llm.interop import hf
from llm.nn.contract import Inputs

GOLDEN = pathlib.Path(__file__).parent / "golden" / "models.npz"
GEMMA_LIKE = ("linear", 3.0)


def knobs_of(case, rng=None):
    """(model, knobs, vocabulary) of a case; with `rng`, of random dimensions."""
    draw = (lambda a, b: int(rng.integers(a, b + 1))) if rng else (lambda a, b: a + 1)
    kv, groups, half = draw(1, 3), draw(1, 3), draw(2, 5)
    decoder = {
        "layers": draw(1, 3), "width": kv * groups * draw(3, 6), "kv_heads": kv,
        "heads": kv * groups, "head_dim": 2 * half, "mlp": draw(17, 40),
        "residual_scale": 1.0, "rope_base": 500.0, "epsilon": 1e-5,
    }  # fmt: skip
    # Its configuration asks that heads divide the width.
    gemma = decoder | {"layers": draw(2, 3), "width": kv * groups * draw(3, 6)}
    del gemma["residual_scale"]
    olmo = {k: v for k, v in decoder.items() if k != "residual_scale"}
    experts = decoder | {"experts": draw(3, 5), "top_k": draw(1, 3)}
    heads = draw(2, 4)
    plain = {"layers": draw(1, 3), "heads": heads, "width": heads * 2 * draw(2, 4)}
    plain |= {"mlp": draw(17, 40)}
    encdec = {
        "layers": draw(1, 3), "decoder_layers": draw(2, 3), "width": 4 * draw(3, 6),
        "heads": heads, "head_dim": 2 * half, "mlp": draw(17, 40), "buckets": 8,
        "farthest": 10,
    }  # fmt: skip
    recurrent = {"layers": draw(1, 3), "width": 4 * draw(3, 6)}
    name, knobs = {
        "llama": ("llama", decoder | {"qk_norm": False}),
        "llama 3.1": (
            "llama",
            decoder | {"qk_norm": False, "tied": True,
                       "rope_scaling": ("llama3", 8.0, 1.0, 4.0, 8)},
        ),
        "llama linear": (
            "llama", decoder | {"qk_norm": False, "rope_scaling": GEMMA_LIKE}
        ),
        "mistral": ("llama", decoder | {"qk_norm": False, "windows": (4,)}),
        "qwen2": (
            "llama",
            decoder | {"qk_norm": False, "qkv_bias": True, "windows": (0, 3)},
        ),
        "qwen3": (
            "llama",
            decoder | {"qk_norm": True, "tied": True,
                       "rope_scaling": ("yarn", 4.0, 32.0, 1.0, 8, 1.13)},
        ),
        "gemma2": (
            "gemma",
            gemma | {"qk_norm": False, "windows": (4, 0, 4), "query_scalar": 11,
                     "attention_softcap": 3.0, "softcap": 9.0, "rope_local": 0.0},
        ),
        "gemma3": (
            "gemma",
            gemma | {"qk_norm": True, "windows": (3, 3, 0), "query_scalar": 7,
                     "rope_local": 100.0, "rope_scaling": GEMMA_LIKE},
        ),
        "olmo2": ("olmo2", olmo),
        "mixtral": ("moe", experts | {"qk_norm": False, "windows": (4,)}),
        "qwen3 moe": (
            "moe", experts | {"qk_norm": True, "renormalise": False, "tied": True}
        ),
        # With random dimensions, room for a prompt and 32 new tokens.
        "gpt2": ("gpt", plain | {"length": 48 if rng else 24}),
        "bert": ("bert", plain | {"length": 24}),
        "bert with pooler": ("bert", plain | {"length": 24, "pooler": True}),
        "t5": ("t5", encdec | {"gated": False, "tied": True, "scaled": True}),
        "t5 1.1": ("t5", encdec | {"gated": True, "tied": False}),
        "lstm": ("lstm", recurrent),
        "gru": ("gru", recurrent | {"tied": True}),
    }[case]  # fmt: skip
    return name, registry.spec("models", name, **knobs), 2 * draw(20, 40) + 1


CASES = (
    "llama", "llama 3.1", "llama linear", "mistral", "qwen2", "qwen3", "gemma2",
    "gemma3", "olmo2", "mixtral", "qwen3 moe", "gpt2", "bert", "bert with pooler", "t5",
    "t5 1.1", "lstm", "gru",
)  # fmt: skip


def build(case, rng=None):
    """(model, params, vocabulary): a model with a padded vocabulary, random weights."""
    name, knobs, vocab = knobs_of(case, rng)
    of = registry.build("models", knobs, vocab_size=vocab + 3)
    seed = int(rng.integers(1 << 30)) if rng else 5
    params = tiny.params(of, seed=seed)
    if name == "t5":  # its scores are not scaled: sharper ones would be all rounding
        for kernel in (n for n in tree.named_leaves(params) if "query" in n):
            tree.named_leaves(params)[kernel][...] *= 0.25
    return name, knobs, of, without_padding(params, vocab), vocab


def without_padding(params, vocab):
    """What pads the vocabulary is not exported: it must not count."""

    def cut(path, leaf):
        leaf = np.array(leaf)
        for axis, size in enumerate(leaf.shape):
            if size == vocab + 3:
                leaf[(slice(None),) * axis + (slice(vocab, None),)] = 0
        return leaf

    return jax.tree_util.tree_map_with_path(cut, params)


def batch(vocab, kind, rng):
    """(inputs, real_BT): unequal texts, padded on the right and on the left."""
    T = 14
    real = np.ones((4, T), bool)
    real[1, 9:] = real[2, :5] = real[3, 1:] = False
    tokens = rng.integers(1, vocab, (4, T))
    inputs = _inputs(tokens, real)
    if kind == "encdec":
        seen = np.ones((4, 11), bool)
        seen[0, 6:] = seen[2, :3] = False
        source = _inputs(rng.integers(1, vocab, (4, 11)), seen)
        inputs = inputs._replace(source=source)
    if kind == "masked":
        inputs = inputs._replace(types_BT=rng.integers(0, 2, (4, T)).astype(np.int32))
    return inputs, real


def _inputs(tokens, real):
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return Inputs(
        np.where(real, tokens, 0).astype(np.int32),
        positions.astype(np.int32),
        real.astype(np.int32),
        np.arange(len(tokens), dtype=np.int32),
    )


def export(folder, name, knobs, params, vocab):
    """Writes the model as a user would."""
    hf.write(pathlib.Path(folder), name, knobs, params, vocab)


def reference(folder):
    """The reference implementation with the weights of a folder, and its parameters."""
    import transformers

    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    if config["model_type"] in ("lstm", "gru"):
        return _Recurrent(folder, config)
    auto = {
        "bert": transformers.AutoModelForPreTraining
        if "BertForPreTraining" in config["architectures"]
        else transformers.AutoModelForMaskedLM,
        "t5": transformers.AutoModelForSeq2SeqLM,
    }.get(config["model_type"], transformers.AutoModelForCausalLM)
    plain = {"attn_implementation": "eager"}
    if config["model_type"] in ("mixtral", "qwen3_moe"):
        plain["experts_implementation"] = "eager"
    found, report = auto.from_pretrained(folder, output_loading_info=True, **plain)
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    assert not report["mismatched_keys"], report
    return found.float().eval()


def reference_logits(theirs, inputs):
    """A torch tensor [B, T, V]."""
    import torch

    to = functools.partial(torch.tensor, dtype=torch.long)
    if isinstance(theirs, _Recurrent):
        return theirs(to(inputs.tokens_BT), inputs.segments_BT)
    given = {
        "input_ids": to(inputs.tokens_BT),
        "attention_mask": to(inputs.segments_BT),
        "position_ids": to(inputs.positions_BT),
    }
    if inputs.types_BT is not None:
        given["token_type_ids"] = to(inputs.types_BT)
    if inputs.source is not None:
        given = {
            "input_ids": to(inputs.source.tokens_BT),
            "attention_mask": to(inputs.source.segments_BT),
            "decoder_input_ids": to(inputs.tokens_BT),
            "decoder_attention_mask": to(inputs.segments_BT),
        }
    found = theirs(**given)
    return found.prediction_logits if "prediction_logits" in found else found.logits


def reference_gradients(theirs):
    """{name in its files: gradient}; its experts are joined in memory, not in files."""
    kind = getattr(getattr(theirs, "config", None), "model_type", "")
    mixtral = kind == "mixtral"
    names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    made = {}
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            continue
        whole = parameter.grad.numpy()
        name = name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name
        if ".experts." not in name:
            made[name] = whole
            continue
        base, _, last = name.rpartition(".")
        joined = last == "gate_up_proj"
        parts = np.split(whole, 2, axis=1) if joined else [whole]
        for part, arrays in zip(names[:2] if joined else names[2:], parts, strict=True):
            for expert, array in enumerate(arrays):
                made[f"{base}.{expert}.{part}.weight"] = array
    return made


class _Recurrent:
    """torch.nn's embedding, recurrence and projection, one text at a time."""

    def __init__(self, folder, config):
        import torch
        from safetensors.torch import load_file

        held = load_file(pathlib.Path(folder) / "model.safetensors")
        D, V = config["hidden_size"], config["vocab_size"]
        cell = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[config["model_type"]]
        self.model = torch.nn.ModuleDict(
            {
                "embed": torch.nn.Embedding(V, D),
                "rnn": cell(D, D, config["num_layers"], batch_first=True),
                "head": torch.nn.Linear(D, V, bias=False),
            }
        )
        if config["tie_word_embeddings"]:
            self.model["head"].weight = self.model["embed"].weight
            held["head.weight"] = held["embed.weight"]
        self.model.load_state_dict(held)

    def named_parameters(self):
        return self.model.named_parameters()

    def __call__(self, tokens_BT, segments_BT):
        import torch

        rows = []
        for tokens, real in zip(tokens_BT, segments_BT > 0, strict=True):
            made = self.model["rnn"](self.model["embed"](tokens[real])[None])[0]
            logits = self.model["head"](made)[0]
            row = torch.zeros(len(tokens), logits.shape[-1])
            rows.append(row.index_put((torch.tensor(np.flatnonzero(real)),), logits))
        return torch.stack(rows)


def golden_logits(case):
    """What the reference makes of a case with its fixed dimensions."""
    import torch

    name, knobs, _, params, vocab = build(case)
    kind = registry.module("models", name).KIND
    inputs, real = batch(vocab, kind, np.random.default_rng(7))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        export(folder, name, knobs, params, vocab)
        return reference_logits(reference(folder), inputs).numpy() * real[..., None]


if __name__ == "__main__":
    found = {case: golden_logits(case).astype(np.float32) for case in CASES}
    np.savez_compressed(GOLDEN, **found)
    for name, array in found.items():
        print(name, array.shape, float(np.abs(array).max()))
