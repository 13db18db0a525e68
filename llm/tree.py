"""Names, masks, counts and casts of parameter trees.

A leaf's name is its path joined by '/': `layers/attention/query/kernel`.

    >>> matches({"norm": {"scale": 1}, "mlp": {"kernel": 2}}, ".*kernel")
    {'mlp': {'kernel': True}, 'norm': {'scale': False}}
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Axes of a leaf that only stack what are separate parameters.
STACKING = ("layers", "experts")


def name(path: tuple) -> str:
    """The '/'-joined name of a key path as jax.tree_util gives it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Maps `function(name, leaf, *leaves of rest)` over a tree."""

    def visit(path, leaf, *others):
        return function(name(path), leaf, *others)

    return jax.tree_util.tree_map_with_path(visit, tree, *rest)


def matches(tree: Any, pattern: str) -> Any:
    """A tree of bools: whether the whole leaf name matches the regular expression."""
    return map_named(lambda n, _: bool(re.fullmatch(pattern, n)), tree)


def named_leaves(tree: Any) -> dict[str, Any]:
    """{name: leaf} in tree order."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name(path): leaf for path, leaf in found}


def count(tree: Any) -> int:
    """The number of elements; leaves may be abstract."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def size_bytes(tree: Any) -> int:
    """The bytes that the leaves take; they may be abstract."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in leaves)


def global_norm(tree: Any) -> jax.Array:
    """Square root of the sum of squares of all leaves, in float32."""
    squares = [
        jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares))


def is_matrix(axes: tuple[str, ...]) -> bool:
    """Whether a leaf is a hidden layer's matrix (a stack of them, with heads unfolded).

    Embeddings and the output projection have the axis `vocab` and are not.
    """
    own = [a for a in axes if a not in STACKING]
    return len(own) >= 2 and "embed" in (own[0], own[-1]) and "vocab" not in own
