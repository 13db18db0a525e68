"""Low-rank adaptation (arXiv:2106.09685): kernels stay, a product of two thin ones is
added to each.

    y = x @ kernel + (alpha / rank) * (x @ a) @ b

`b` starts at zero, so training starts from the model as it is. Only `a` and `b` are in
checkpoints and have moments; the kernels need no gradient, which is a third of the work
of a step. Kernels of experts are left alone.
"""

import re

import jax
import jax.numpy as jnp
from flax import linen as nn

from llm.adapters import Adapter, named_boxes, nested
from llm.errors import InputError
from llm.knobs import Positive
from llm.nn.weights import Lora
from llm.tree import STACKING, is_matrix, named_leaves

TINY = {"rank": 2}


def make(
    *,
    rank: Positive = 16,
    alpha: float = 32.0,
    targets: str = r".*/(query|key|value|out|gate|up|down)/kernel",
) -> Adapter:
    """Low-rank adaptation.

    Args:
      rank: of the update of a kernel.
      alpha: the update is scaled by alpha / rank.
      targets: regular expression of the kernels that are adapted.

    Raises:
      InputError: a rank below 1, a bad regular expression, or, when parameters are
        there, one that names no kernel.
    """
    try:
        pattern = re.compile(targets)
    except re.error as error:
        raise InputError(
            got=f"adapter.targets {targets!r} ({error})", want="a regular expression"
        ) from error
    scale = alpha / rank

    def split(key, boxed):
        leaves = named_boxes(boxed)
        fitting = [n for n, box in leaves.items() if _adaptable(n, box.names)]
        chosen = [n for n in fitting if pattern.fullmatch(n)]
        if not chosen:
            raise InputError(
                got=f"adapter.targets {targets!r}, which names no kernel",
                want=f"a regular expression of some of {', '.join(fitting)}",
            )
        keys = jax.random.split(key, len(chosen))
        made = {
            name: _pair(k, leaves[name], rank)
            for name, k in zip(chosen, keys, strict=True)
        }
        return nested(made), boxed

    def join(pairs, kernels):
        own = named_leaves(kernels)
        held = named_leaves(pairs)
        for name in {n.rpartition("/")[0] for n in held}:
            a, b = held[f"{name}/a"], held[f"{name}/b"]
            own[name] = Lora(own[name], a, b, scale)
        return nested(own)

    return Adapter(split=split, join=join, plain=_plain)


def _adaptable(name: str, axes: tuple[str, ...]) -> bool:
    return name.endswith("/kernel") and is_matrix(axes) and "experts" not in axes


def _pair(key, box, rank) -> dict[str, nn.LogicallyPartitioned]:
    """`a` from the inputs of a kernel to `rank`, `b` from there to its outputs."""
    shape, axes = jnp.shape(box.value), box.names
    first = sum(axis in STACKING for axis in axes)
    # One side of a kernel is the axis `embed` alone.
    cut = first + 1 if axes[first] == "embed" else len(axes) - 1
    fan_in = 1
    for size in shape[first:cut]:
        fan_in *= size
    a = jax.random.normal(key, (*shape[:cut], rank)) * fan_in**-0.5
    b = jnp.zeros((*shape[:first], rank, *shape[cut:]))
    return {
        "a": nn.LogicallyPartitioned(a, names=(*axes[:cut], "rank")),
        "b": nn.LogicallyPartitioned(b, names=(*axes[:first], "rank", *axes[cut:])),
    }


def _plain(params):
    is_lora = lambda x: isinstance(x, Lora)  # noqa: E731
    return jax.tree.map(
        lambda x: x.merged() if is_lora(x) else x, params, is_leaf=is_lora
    )
