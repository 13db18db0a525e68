"""The contract of a compression: from parameters to fewer or smaller ones.

`apply(params, axes)` is a pure function of arrays and of the logical axes of each leaf;
what it returns is a model for everything but training. It can be traced, so the shapes
of a compressed model are known before it is read. One that is `calibrated` weighs its
errors by how large a kernel's inputs are, where `apply(params, axes, squares)` is given
that (`llm/inference/calibration.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm import registry
from llm.errors import InputError
from llm.precision import Weight
from llm.tree import STACKING, is_matrix

Axes = dict[str, tuple[str, ...]]
OUTPUT = ("embed", "vocab")  # axes of the kernel that makes logits


class Compression(NamedTuple):
    """See the module docstring."""

    apply: Callable[..., Any]
    calibrated: bool = False


def build(spec: Any) -> Compression:
    """The compression of a config."""
    return registry.build("compress", spec)


def inputs_of(name: str, axes: tuple[str, ...]) -> tuple[int, int]:
    """(axes that stack layers, axes of inputs) of a kernel that is one product.

    (0, 0) for any other leaf: experts, norms, tables.
    """
    if not name.endswith("/kernel") or "experts" in axes:
        return 0, 0
    if axes == OUTPUT:
        return 0, 1
    if not is_matrix(axes):
        return 0, 0
    first = sum(axis in STACKING for axis in axes)
    own = axes[first:]
    return first, 1 if own[0] == "embed" else len(own) - 1


def is_table(name: str, axes: tuple[str, ...]) -> bool:
    """Whether a leaf is the table of the tokens' vectors."""
    return axes == ("vocab", "embed")


def check_plain(params: Any) -> None:
    """Raises InputError for parameters that are compressed already."""
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Weight))
    if any(isinstance(x, Weight) for x in leaves):
        raise InputError(
            got="a model in few bits", want="the model that it was made of"
        )


def bits(params: Any) -> int:
    """What the leaves take, stored as tightly as their types allow."""
    return sum(
        leaf.size * (4 if leaf.dtype == jnp.int4 else 8 * leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(params)
    )
