"""Low-rank adaptation (arXiv:2106.09685): kernels stay, a product of two thin ones is
added to each.

    y = x @ kernel + (alpha / rank) * (x @ a) @ b

`b` starts at zero, so training starts from the model as it is. Only `a` and `b` are in
checkpoints and have moments; the kernels need no gradient, which is a third of the work
of a step. Kernels of experts are left alone. What `full` names is trained as it is,
such as the vector that the objective `reward` adds to a model, which is random at
first: no low-rank update of a model makes up for it.
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
    full: str = "",
) -> Adapter:
    """Low-rank adaptation.

    Args:
      rank: of the update of a kernel.
      alpha: the update is scaled by alpha / rank.
      targets: regular expression of the kernels that are adapted.
      full: regular expression of the parameters that are trained as they are.

    Raises:
      InputError: a rank below 1, a bad regular expression, or, when parameters are
        there, one that names no kernel.
    """
    pattern, whole = _pattern("targets", targets), _pattern("full", full)
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
        kept = {n: box for n, box in leaves.items() if whole.fullmatch(n)}
        if (full and not kept) or set(kept) & set(chosen):
            raise InputError(
                got=f"adapter.full {full!r}, which names {_some(kept) or 'nothing'}",
                want=f"parameters that are not adapted, of {_some(leaves)}",
            )
        return nested(made | kept), boxed

    def join(pairs, kernels):
        own = named_leaves(kernels)
        held = named_leaves(pairs)
        own |= {name: leaf for name, leaf in held.items() if name in own}
        for name in {n.rpartition("/")[0] for n in held.keys() - own.keys()}:
            a, b = held[f"{name}/a"], held[f"{name}/b"]
            own[name] = Lora(own[name], a, b, scale)
        return nested(own)

    return Adapter(split=split, join=join, plain=_plain)


def _pattern(knob: str, expression: str) -> re.Pattern:
    try:
        return re.compile(expression)
    except re.error as error:
        raise InputError(
            got=f"adapter.{knob} {expression!r} ({error})", want="a regular expression"
        ) from error


def _some(names) -> str:
    return ", ".join(list(names)[:4])


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
