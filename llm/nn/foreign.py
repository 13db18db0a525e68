"""What a model's knobs and parameters are called elsewhere: the contract of a table.

A model file that Hugging Face knows exports `HF`, a `Dialect`. A tensor there is one of
our leaves with its axes merged and in another order, which a `Tensor` writes down:

    Tensor("stack/layer/attention/query/kernel",
           "model.layers.{layer}.self_attn.q_proj.weight", "(nh)d -> dnh")

On the left are the axes of theirs, merged ones in parentheses; on the right the axes of
ours, without the leading `layers` axis of a stacked leaf. `{expert}` in a name stands
for the axis `e`, which theirs does not have. Where theirs holds several of ours, they
are listed, and the first letter on the right counts them.
"""

import math
from collections.abc import Callable
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
      knobs: from config.json to knobs of `make`, with `vocab_size`; raises InputError
        for what the model cannot do.
      config: from knobs and the true `vocab_size` to config.json.
      tensors: from knobs to the table.
      extras: names (regular expressions) in their files that hold nothing of a model.
    """

    model_types: tuple[str, ...]
    knobs: Callable[[dict[str, Any]], dict[str, Any]]
    config: Callable[[dict[str, Any], int], dict[str, Any]]
    tensors: Callable[[dict[str, Any]], tuple[Tensor, ...]]
    extras: tuple[str, ...] = ()


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


def rope_of(config: dict[str, Any], field: str = "rope_parameters") -> tuple:
    """(base, scaling) in our form, from either generation of config.json."""
    given = config.get(field) or {}
    given = given | (config.get("rope_scaling") or {})
    base = given.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = given.get("rope_type", given.get("type", "default"))
    context = given.get(
        "original_max_position_embeddings", config.get("max_position_embeddings")
    )
    if kind in ("default", None):
        return float(base), ()
    if kind == "linear":
        return float(base), ("linear", float(given["factor"]))
    if kind == "llama3":
        factors = [given[k] for k in ("factor", "low_freq_factor", "high_freq_factor")]
        return float(base), ("llama3", *map(float, factors), int(context))
    if kind == "yarn" and given.get("truncate", True):
        return float(base), _yarn(given, int(context))
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
