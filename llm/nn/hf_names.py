"""What a model's knobs and parameters are called elsewhere: the contract of a table.

A model file exports `HF`, a `Dialect`. A tensor there is one of our leaves with its
axes merged and in another order, which a `Tensor` writes down:

    Tensor("stack/layer/attention/query/kernel",
           "model.layers.{layer}.self_attn.q_proj.weight", "(nh)d -> dnh")

On the left are the axes of theirs, merged ones in parentheses; on the right the axes of
ours, without the leading `layers` axis of a stacked leaf. `{expert}` in a name stands
for the axis `e`, which theirs does not have. Where theirs holds several of ours, they
are listed, and the first letter on the right counts them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llm.errors import InputError


class Tensor(NamedTuple):
    """See the module docstring."""

    ours: str | tuple[str, ...]
    theirs: str
    axes: str


class Dialect(NamedTuple):
    """How another library calls a model.

    Attributes:
      model_types: the `model_type`s of config.json that this model can be.
      knobs: from config.json, and the names of all `tensors` beside it, to knobs of
        `make`, with `vocab_size`; raises InputError for what the model cannot do.
      config: from knobs and the true `vocab_size` to config.json.
      tensors: from knobs to the table.
      extras: names (regular expressions) in their files that hold nothing of a model.
      copies: (name, original) of tensors that repeat another one. A head that differs
        from the embedding is a head of its own; anything else that differs is refused.
      defaults: by model type, what its config has where a field is missing.
    """

    model_types: tuple[str, ...]
    knobs: Callable[[dict[str, Any]], dict[str, Any]]
    config: Callable[[dict[str, Any], int], dict[str, Any]]
    tensors: Callable[[dict[str, Any]], tuple[Tensor, ...]]
    extras: tuple[str, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    defaults: Mapping[str, Mapping[str, Any]] = {}


HEAD = "lm_head.weight"
# The head of a decoder that is tied.
TIED_HEAD = ((HEAD, "model.embed_tokens.weight"),)


def require(config: dict[str, Any], **wanted: Any) -> None:
    """Raises InputError for the first field whose value is none of those wanted.

    A missing field passes: its default is what the model does.
    """
    for field, value in wanted.items():
        known = value if isinstance(value, tuple) else (value,)
        if field in config and config[field] not in known:
            raise InputError(
                got=f"{config.get('model_type')} with {field}={config[field]!r}",
                want=" or ".join(map(repr, known)),
                do="this form of the architecture is not supported",
            )


def attention_tensors(
    ours: str,
    theirs: str,
    names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
    qk_norm: str = "",
) -> list[Tensor]:
    """The four kernels of an attention.

    Args:
      qk_norm: axes of the norms of queries and keys; '' where there are none.
    """
    table = []
    for part, name in zip(("query", "key", "value", "out"), names, strict=True):
        axes = "d(nh) -> nhd" if part == "out" else "(nh)d -> dnh"
        table.append(Tensor(f"{ours}/{part}/kernel", f"{theirs}.{name}.weight", axes))
    if qk_norm:
        norms = {"query_norm": "q_norm", "key_norm": "k_norm"}
        table += norm_tensors(ours, theirs, norms, qk_norm)
    return table


def gated_tensors(
    ours: str,
    theirs: str,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> list[Tensor]:
    """The three kernels of a gated feed-forward layer."""
    table = []
    for part, name in zip(("gate", "up", "down"), names, strict=True):
        axes = "df -> fd" if part == "down" else "fd -> df"
        table.append(Tensor(f"{ours}/{part}/kernel", f"{theirs}.{name}.weight", axes))
    return table


def norm_tensors(
    ours: str, theirs: str, names: Mapping[str, str], axes: str = "d -> d"
) -> list[Tensor]:
    """The scales of norms, {our name: theirs}."""
    return [
        Tensor(f"{ours}/{mine}/scale", f"{theirs}.{its}.weight", axes)
        for mine, its in names.items()
    ]


def decoder_tensors(layer: Sequence[Tensor], tied: bool) -> tuple[Tensor, ...]:
    """Those of a Llama and its like: of one `layer`, and around the layers."""
    table = [
        Tensor("embed/embedding", "model.embed_tokens.weight", "vd -> vd"),
        Tensor("final_norm/scale", "model.norm.weight", "d -> d"),
        *layer,
    ]
    if not tied:
        table.append(Tensor("head/kernel", "lm_head.weight", "vd -> dv"))
    return tuple(table)


def decoder_knobs(config: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a Llama and its like, but for `mlp`."""
    heads = config["num_attention_heads"]
    return {
        "vocab_size": config["vocab_size"],
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "epsilon": config["rms_norm_eps"],
    }


def decoder_config(knobs: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """What `decoder_knobs` and `rope_knobs` read, and `mlp`."""
    base, scaling = knobs["rope_base"], knobs["rope_scaling"]
    rope = rope_parameters(base, scaling)
    older = {name: value for name, value in rope.items() if name != "rope_theta"}
    return {
        "vocab_size": vocab_size,
        "hidden_size": knobs["width"],
        "intermediate_size": knobs["mlp"],
        "num_hidden_layers": knobs["layers"],
        "num_attention_heads": knobs["heads"],
        "num_key_value_heads": knobs["kv_heads"],
        "head_dim": knobs["head_dim"],
        "rms_norm_eps": knobs["epsilon"],
        "rope_parameters": rope,
        # As releases of transformers before 5 read it.
        "rope_theta": base,
        "rope_scaling": older | {"type": rope["rope_type"]} if scaling else None,
    }


def rope_knobs(config: dict[str, Any]) -> dict[str, Any]:
    """Our base and scaling, from either generation of config.json."""
    given, older = (config.get(n) or {} for n in ("rope_parameters", "rope_scaling"))
    for name, one in (("rope_parameters", given), ("rope_scaling", older)):
        _check_rope(name, one)
    _check_agree(config, given, older)
    given = given | older
    base = float(given.get("rope_theta", config.get("rope_theta", 10_000.0)))
    kind = given.get("rope_type", given.get("type", "default"))
    return {"rope_base": base, "rope_scaling": _scaling(kind, given, config)}


# What else of a rope changes angles, and with which values it does not.
_ROPE_CHANGES = {
    "partial_rotary_factor": (1,), "mrope_section": (), "mrope_interleaved": (),
    "long_factor": (), "short_factor": (), "long_mscale": (), "short_mscale": (),
    "alpha": (), "interleaved": (),
}  # fmt: skip


def _check_rope(name: str, rope: Mapping[str, Any]) -> None:
    """Raises InputError for a rope of which a part would be left out."""
    nested = [key for key, value in rope.items() if isinstance(value, Mapping)]
    kinds = {rope[key] for key in ("type", "rope_type") if key in rope}
    numbers = {"factor", "low_freq_factor", "beta_fast", "attention_factor"} & {
        key for key, value in rope.items() if value is not None
    }
    changes = [
        key
        for key, neutral in _ROPE_CHANGES.items()
        if rope.get(key) and rope[key] not in neutral
    ]
    wrong = ""
    if nested:
        wrong = f"a rope for each of {', '.join(nested)}"
    elif len(kinds) > 1:
        wrong = f"type {rope['type']!r} and rope_type {rope['rope_type']!r}"
    elif not kinds and numbers:
        wrong = f"{', '.join(sorted(numbers))} and no rope_type"
    elif changes:
        wrong = f"{changes[0]} {str(rope[changes[0]])[:40]}"
    if wrong:
        raise InputError(
            got=f"{name} with {wrong}",
            want="one rope, of one type, whose fields we know",
        )


def _check_agree(config, newer: Mapping[str, Any], older: Mapping[str, Any]) -> None:
    """Raises InputError where the two generations say different things."""
    plain = {"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}
    kinds = [{"rope_type": x.get("rope_type", x.get("type"))} for x in (newer, older)]
    pairs = ((newer, older | plain), kinds if newer and older else ({}, {}))
    for one, other in pairs:
        for field in one.keys() & other.keys():
            if one[field] != other[field]:
                raise InputError(
                    got=f"rope_parameters with {field} {one[field]!r}, and {field} "
                    f"{other[field]!r} beside them or in rope_scaling",
                    want="the same in both",
                    do="remove the one that is wrong from config.json",
                )


def _scaling(kind, given, config) -> tuple:
    context = given.get(
        "original_max_position_embeddings", config.get("max_position_embeddings")
    )
    if kind in ("default", None):
        return ()
    if kind == "linear":
        return ("linear", float(given["factor"]))
    if kind == "llama3":
        factors = [given[k] for k in ("factor", "low_freq_factor", "high_freq_factor")]
        return ("llama3", *map(float, factors), int(context))
    if kind == "yarn" and given.get("truncate", True):
        return _yarn(given, int(context))
    if kind == "yarn":
        raise InputError(got="rope_type 'yarn' with truncate=false", want="truncate")
    raise InputError(got=f"rope_type {kind!r}", want="default, linear, llama3 or yarn")


def _yarn(given: dict[str, Any], context: int) -> tuple:
    factor = float(given["factor"])

    def gain(scale, weight=1.0):
        return 0.1 * weight * math.log(scale) + 1.0 if scale > 1 else 1.0

    found = given.get("attention_factor")
    if found is None:
        one, all_ = given.get("mscale"), given.get("mscale_all_dim")
        found = gain(factor, one) / gain(factor, all_) if one and all_ else gain(factor)
    fast, slow = given.get("beta_fast") or 32, given.get("beta_slow") or 1
    return ("yarn", factor, float(fast), float(slow), context, float(found))


def rope_parameters(base: float, scaling: tuple) -> dict[str, Any]:
    """The `rope_parameters` of config.json."""
    kind = scaling[0] if scaling else "default"
    names = {
        "default": (),
        "linear": ("factor",),
        "llama3": (
            "factor", "low_freq_factor", "high_freq_factor",
            "original_max_position_embeddings",
        ),
        "yarn": (
            "factor", "beta_fast", "beta_slow", "original_max_position_embeddings",
            "attention_factor",
        ),
    }[kind]  # fmt: skip
    numbers = dict(zip(names, scaling[1:], strict=True))
    return {"rope_type": kind, "rope_theta": base, **numbers}
