"""The contract of an adapter: which parameters training changes.

`split` takes the parameters that training begins with apart, into what is trained and
what stays; `join` puts them together for the model, which never knows. `plain` gives
parameters as arrays of the model alone, such as those of a low-rank update added in.

    trainable, frozen = adapter.split(key, boxed)
    logits = model.apply({"params": adapter.join(trainable, frozen)}, ...)

Parameters come in their `nn.LogicallyPartitioned` boxes, so that what an adapter adds
has logical axes, too. `join` and `plain` are given bare arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from llm import registry, tree


class Adapter(NamedTuple):
    """See the module docstring.

    Attributes:
      whole: whether everything is trained: nothing is frozen, and a checkpoint holds
        the parameters as they are.
    """

    split: Callable[[jax.Array, Any], tuple[Any, Any]]
    join: Callable[[Any, Any], Any]
    plain: Callable[[Any], Any]
    whole: bool = False


def build(spec: Any) -> Adapter:
    """The adapter of a config; runs that are older than adapters have none: all."""
    return registry.build("adapters", spec or "full")


def is_box(x: Any) -> bool:
    """Whether a node is a parameter with its axes."""
    return isinstance(x, nn.LogicallyPartitioned)


def named_boxes(boxed: Any) -> dict[str, nn.LogicallyPartitioned]:
    """{leaf name: box}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=is_box)
    return {tree.name(path): box for path, box in leaves}


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """{'a/b': x} as {'a': {'b': x}}."""
    made: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *folders, last = name.split("/")
        place = made
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = leaf
    return made
