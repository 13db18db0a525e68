"""Llamas in GGUF files: their settings and tensors under Hugging Face's names.

What is read becomes what `hf.load_params` takes, and what `hf.write` wrote becomes a
file, so that the table of names of `llm/models/llama.py` is the only one. Architecture
`llama` keeps the rows of queries and keys in another order: there, neighbouring rows
are rotated together, here (as in Hugging Face's form, and in `qwen2` and `qwen3`) row i
and row i + H/2.

    found = read(gguf.open_file("model.gguf"))       # as hf.read(folder)
    write(path, config, tensors, tokenizer_keys, "q8_0")
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from llm.errors import InputError
from llm.interop import config_fields, gguf, hf
from llm.nn.hf_names import rope_parameters
from llm.nn.positions import rope_frequencies

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# What --to=gguf can make: the number format of matrices, and general.file_type.
KINDS = {"f16": ("F16", 1), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2)}
# Ours for the numbers of a llama3 scaling, of which GGUF keeps only the result.
_SCALING = "llm.rope_scaling"
_FREQUENCIES = "rope_freqs.weight"
_LLAMA3 = (1.0, 4.0, 8192)  # as every published model has it
_FLOAT16_MOST = 65504.0

# Keys of an architecture that are read, or that tell of a file or a training.
_READ = frozenset({
    "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon",
    "attention.sliding_window", "expert_count", "rope.dimension_count", "vocab_size",
    "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",
})  # fmt: skip
# Those that change what a model computes, and with which values they do not.
_CHANGE = {
    "logit_scale": (0, 1), "embedding_scale": (0, 1), "residual_scale": (0, 1),
    "final_logit_softcapping": (0,), "attn_logit_softcapping": (0,),
    "attention.causal": (True,), "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,), "attention.scale": (0,),
    "attention.sliding_window_pattern": (0, False), "attention.temperature_scale": (0,),
    "attention.temperature_length": (0,), "attention.use_norm": (False,),
    "expert_used_count": (0,), "use_parallel_residual": (False,),
    "rope.dimension_sections": ([],), "rope.freq_base_swa": (0,),
    "rope.scaling.attn_factor": (0, 1), "rope.scaling.yarn_attn_factor": (0, 1),
    "rope.scaling.yarn_ext_factor": (1,), "rope.scaling.yarn_log_multiplier": (0,),
    "pooling_type": (0,), "no_rope_layer_step": (0,), "token_shift_count": (0,),
}  # fmt: skip

_WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class _Turned(NamedTuple):
    """A tensor whose rows are put in another order as it is read."""

    stored: Any
    turn: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def read(self) -> np.ndarray:
        return self.turn(self.stored.read())


def read(held: gguf.File) -> hf.Found:
    """The model of a file.

    Raises:
      InputError: another architecture, or settings that are missing or not supported.
    """
    config = _config(held)
    name, dialect = hf.dialects()[config["model_type"]]
    knobs = dialect.knobs(config)
    vocab_size = knobs.pop("vocab_size")
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    tensors: dict[str, Any] = {}
    for theirs, stored in held.tensors.items():
        if theirs == _FREQUENCIES:
            continue
        part = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", theirs)
        if part and config["model_type"] == "llama":
            stored = _Turned(stored, _halves(heads[part[1]]))
        tensors[_their_name(theirs)] = stored
    return hf.Found(name, knobs, vocab_size, tensors, config)


def _their_name(name: str) -> str:
    """Hugging Face's name of a tensor; unknown ones keep their own."""
    part, _, end = name.rpartition(".")
    if part in _WHOLE:
        return f"{_WHOLE[part]}.{end}"
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)", part)
    if found and found[2] in _OF_LAYER:
        return f"model.layers.{int(found[1])}.{_OF_LAYER[found[2]]}.{end}"
    return name


def _name(theirs: str) -> str:
    """GGUF's name of a tensor of Hugging Face's."""
    part, _, end = theirs.rpartition(".")
    whole = {value: key for key, value in _WHOLE.items()}
    if part in whole:
        return f"{whole[part]}.{end}"
    _, _, number, rest = part.split(".", 3)
    of_layer = {value: key for key, value in _OF_LAYER.items()}
    return f"blk.{number}.{of_layer[rest]}.{end}"


def _halves(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of each head from neighbours that rotate together to halves that do."""

    def turn(array):
        if array.shape[0] % (2 * heads):
            return array  # of a wrong shape, which is said where it is compared
        pairs = array.reshape(heads, -1, 2, *array.shape[1:])
        return pairs.swapaxes(1, 2).reshape(array.shape)

    return turn


def _neighbours(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """The inverse of `_halves`."""

    def turn(array):
        halves = array.reshape(heads, 2, -1, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return turn


def _config(held: gguf.File) -> dict[str, Any]:
    """What config.json would say."""
    kind = held.keys.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise InputError(
            got=f"{held.path} of architecture {kind!r}",
            want=f"one of {', '.join(ARCHITECTURES)}",
        )

    def setting(name, *default, many=False):
        value = held.keys.get(f"{kind}.{name}", *default)
        fits = type(value) in ((int, float) if many else (int,))
        if not fits or not value >= 0:
            raise InputError(
                got=f"{held.path} with {kind}.{name} {value!r}", want="one number there"
            )
        # From float32: 1e-5, not 9.99999974e-06.
        return float(str(np.float32(value))) if many else value

    for absent in ("attention.sliding_window", "expert_count"):
        if setting(absent, 0):
            raise InputError(
                got=f"{held.path} with {kind}.{absent} {setting(absent)}",
                want="a dense Llama that sees all keys",
            )
    embedding = held.tensors.get("token_embd.weight")
    if embedding is None:
        raise InputError(got=f"{held.path} without token_embd.weight", want="it")
    heads, width = setting("attention.head_count"), setting("embedding_length")
    if not heads or setting("block_count") > len(held.tensors):
        raise InputError(
            got=f"{held.path} with {heads} heads and {setting('block_count')} blocks",
            want="one or more heads, and tensors for each block",
        )
    head_dim = setting("attention.key_length", width // heads)
    if setting("rope.dimension_count", head_dim) != head_dim:
        raise InputError(
            got=f"{held.path}, which rotates {setting('rope.dimension_count')} of "
            f"{head_dim} numbers of a head",
            want="all of them",
        )
    # Before anything of these sizes is made.
    known = {size for tensor in held.tensors.values() for size in tensor.shape}
    kv_heads = setting("attention.head_count_kv", heads)
    for size in (width, setting("feed_forward_length"), heads * head_dim,
                 kv_heads * head_dim):  # fmt: skip
        if size not in known:
            raise InputError(
                got=f"{held.path} with settings for a size of {size}",
                want="those of its tensors",
            )
    usual = {"attention.scale": head_dim**-0.5}
    _check_keys(held, kind, {"attention.value_length": head_dim}, usual)
    base = setting("rope.freq_base", 10_000.0, many=True)
    return {
        "model_type": kind,
        "vocab_size": embedding.shape[0],
        "hidden_size": width,
        "intermediate_size": setting("feed_forward_length"),
        "num_hidden_layers": setting("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": setting("attention.layer_norm_rms_epsilon", many=True),
        "max_position_embeddings": setting("context_length"),
        "rope_parameters": _rope(held, kind, base, head_dim),
        "tie_word_embeddings": "output.weight" not in held.tensors,
    }


def _check_keys(held, kind: str, sizes, usual) -> None:
    """Raises InputError for a key that changes the model, and names unknown ones.

    Args:
      sizes: {key: what it must be}.
      usual: {key: a value besides that changes nothing}.
    """
    unknown = []
    for whole, value in held.keys.items():
        prefix, _, key = whole.partition(".")
        if prefix != kind:
            continue
        value = value.tolist() if isinstance(value, np.ndarray) else value
        neutral = _CHANGE.get(key, ())
        fits = value in neutral
        if key in usual and isinstance(value, float):
            fits = fits or abs(value - usual[key]) < 1e-5
        if (key in _CHANGE and not fits) or value != sizes.get(key, value):
            raise InputError(
                got=f"{held.path} with {whole} {str(value)[:40]}, which changes what "
                "the model computes",
                want="a model without it",
            )
        if key not in _CHANGE and key not in _READ:
            unknown.append(whole)
    if unknown:
        names = ", ".join(sorted(unknown))
        config_fields.say_once(f"{held.path}: not read: {names}")


def _rope(held: gguf.File, kind: str, base: float, head_dim: int) -> dict[str, Any]:
    """`rope_parameters`; those of llama3 are found again from what they make."""
    # As llama.cpp: the older key has the same factor, and without a type it is linear.
    factors = {
        float(held.keys[key])
        for key in (f"{kind}.rope.scaling.factor", f"{kind}.rope.scale_linear")
        if held.keys.get(key)
    }
    if len(factors) > 1:
        raise InputError(
            got=f"{held.path} with rope.scaling.factor and rope.scale_linear of "
            f"{' and '.join(map(str, sorted(factors)))}",
            want="the same in both",
        )
    factor = max(factors, default=1.0)
    plain = "none" if factor == 1.0 else "linear"
    name = held.keys.get(f"{kind}.rope.scaling.type", plain)
    context = held.keys.get(f"{kind}.rope.scaling.original_context_length")
    if _FREQUENCIES in held.tensors and name != "none":
        raise InputError(
            got=f"{held.path} with a {_FREQUENCIES} and rope scaling {name!r} of "
            f"{factor:g}",
            want="one of them",
        )
    if _FREQUENCIES in held.tensors:
        given = held.tensors[_FREQUENCIES].read()
        numbers = [float(x) for x in held.keys.get(_SCALING, ())]
        numbers = numbers or [float(given.max()), *_LLAMA3]
        if len(numbers) == 4 and min(numbers) > 0 and given.shape == (head_dim // 2,):
            scaling = ("llama3", *numbers[:3], int(numbers[3]))
            made = _factors(base, scaling, head_dim)
            if np.allclose(given, made, rtol=1e-3):
                return rope_parameters(base, scaling)
        raise InputError(
            got=f"{held.path} with a {_FREQUENCIES} of its own",
            want=f"those of llama3 for a context of {_LLAMA3[2]}",
        )
    if name == "none":
        return rope_parameters(base, ())
    if name == "linear":
        return rope_parameters(base, ("linear", float(factor)))
    if name == "yarn" and type(context) is int:
        return {
            "rope_type": "yarn",
            "rope_theta": base,
            "factor": float(factor),
            "original_max_position_embeddings": context,
            **{
                field: float(held.keys[f"{kind}.rope.scaling.yarn_{field}"])
                for field in ("beta_fast", "beta_slow")
                if f"{kind}.rope.scaling.yarn_{field}" in held.keys
            },
        }
    raise InputError(
        got=f"{held.path} with rope scaling {name!r}", want="linear, yarn or llama3"
    )


def _factors(base: float, scaling: tuple, head_dim: int) -> np.ndarray:
    """What the frequencies are divided by, [head_dim / 2]."""
    plain = np.asarray(rope_frequencies(head_dim, base, ()))
    return plain / np.asarray(rope_frequencies(head_dim, base, scaling))


def check(config: Mapping[str, Any]) -> None:
    """Raises InputError for a config.json whose model a GGUF file cannot hold."""
    kind = config["model_type"]
    if kind not in ARCHITECTURES:
        raise InputError(
            got=f"a {kind}, for GGUF", want=" or ".join(ARCHITECTURES), do="use to=hf"
        )
    if config.get("use_sliding_window"):
        raise InputError(
            got="windows, for GGUF", want="a model without", do="use to=hf"
        )
    _rope_keys(config)


def write(
    path: pathlib.Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Any],
    tokenizer_keys: Mapping[str, Any],
    kind: str,
) -> None:
    """Writes a model in Hugging Face's form (config.json, tensors) as a file.

    Vectors stay float32, and with q4_0 the embedding and the head are q8_0.

    Args:
      kind: a name of KINDS.

    Raises:
      InputError: a model that GGUF, as we write it, cannot hold.
    """
    check(config)
    name, head_dim = config["model_type"], config["head_dim"]
    rope, scaled = _rope_keys(config)
    of_model = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": head_dim,
        "vocab_size": config["vocab_size"],
        **rope,
    }
    keys = {
        "general.architecture": name,
        "general.file_type": KINDS[kind][1],
        "general.quantization_version": 2,
        **{f"{name}.{key}": value for key, value in of_model.items()},
        **tokenizer_keys,
    }
    made = [
        _made(theirs, stored, config, KINDS[kind][0])
        for theirs, stored in tensors.items()
    ]
    if scaled is not None:
        keys[_SCALING] = np.array(scaled[1:], np.float32)
        factors = _factors(rope["rope.freq_base"], scaled, head_dim)
        made.append(gguf.Made(_FREQUENCIES, factors.shape, "F32", lambda: factors))
    gguf.write_file(path, keys, made)


def _rope_keys(config):
    """(settings, the llama3 scaling if it is one)."""
    given = config["rope_parameters"]
    kind, base = given["rope_type"], float(given["rope_theta"])
    keys: dict[str, Any] = {"rope.freq_base": base}
    if kind == "llama3":
        numbers = [given[k] for k in ("factor", "low_freq_factor", "high_freq_factor")]
        context = given["original_max_position_embeddings"]
        return keys, ("llama3", *numbers, context)
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": given["factor"]}
    if kind == "yarn":
        context = given["original_max_position_embeddings"]
        keys["rope.scaling.original_context_length"] = context
        usual = {"beta_fast": 32, "beta_slow": 1}
        usual["attention_factor"] = 1 + 0.1 * np.log(max(given["factor"], 1.0))
        for field, value in usual.items():
            if abs(given[field] - value) > 1e-6:
                raise InputError(
                    got=f"yarn with {field} {given[field]}, for GGUF",
                    want=f"{value}, which it takes for granted",
                    do="use to=hf",
                )
    return keys, None


def _made(theirs: str, stored: Any, config: Mapping[str, Any], form: str) -> gguf.Made:
    name, shape = _name(theirs), stored.shape
    if len(shape) == 1:
        form = "F32"
    elif form != "F16" and shape[-1] % 32:
        form = "F16"
    elif form == "Q4_0" and name in ("token_embd.weight", "output.weight"):
        form = "Q8_0"
    part = re.search(r"attn_([qk])\.(weight|bias)", name)
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    turned = part and config["model_type"] == "llama"

    def make():
        values = np.asarray(stored.read(), np.float32)
        if form == "F16" and np.abs(values).max(initial=0) > _FLOAT16_MOST:
            raise InputError(
                got=f"{theirs} with numbers beyond {_FLOAT16_MOST:g}",
                want="what float16 can hold",
                do="use q8_0, or to=hf with bfloat16",
            )
        return _neighbours(heads[part[1]])(values) if turned else values

    return gguf.Made(name, tuple(shape), form, make)
