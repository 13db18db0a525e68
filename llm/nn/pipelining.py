"""A pipeline: the layers of a stack in stages, one on each part of a mesh.

The mesh axis `stage` cuts the leading axis of a scanned stack's parameters, so these
are the same on any mesh. A batch goes through in micro-batches (GPipe,
arXiv:1811.06965): at each tick all stages work, one micro-batch each, and hand it on to
the next stage. That is written as one computation over an axis of stages, of which each
device holds its own (GSPMD, 2105.04663, section 3.3): what is handed on is a roll of
that axis, and fsdp, tensor and context go on within a stage as without it. At the first
and last ticks some stages work for nothing: (S - 1) of (M + S - 1) ticks.

`S stages, M micro-batches, L layers, B batch`
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from llm import sharding
from llm.errors import InputError

AXIS = "stage"
_FILL = 4  # micro-batches for each stage, where the batch has as many rows


def stages() -> int:
    """Stages of the mesh that a program is traced for; 1 is no pipeline."""
    return sharding.ways(AXIS)


def check_stages(layers: int, how: str, stages: int) -> None:
    """Raises InputError for a stack that cannot be cut into stages."""
    if layers % stages:
        raise InputError(
            got=f"model.layers {layers} on {stages} stages of the mesh",
            want=f"a multiple of {stages} layers",
        )
    if stages > 1 and how == "loop":
        raise InputError(
            got="model.how 'loop' on a mesh with stages", want="scan or unroll"
        )


def micro_batches(rows: int, batch_ways: int, stages: int) -> int:
    """Into how many parts a batch is cut: enough to fill the pipeline, if it has them.

    Each part stays spread over the devices that the batch is spread over.
    """
    each = rows // batch_ways if rows % batch_ways == 0 else 1
    return max(m for m in range(1, _FILL * stages + 1) if each % m == 0)


def pipelined(
    layer: Callable, x: jax.Array, given: Any, shared: tuple, layers: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(x after all layers, sums over micro-batches of what each layer noted, [L]).

    Args:
      layer: (x, what is given of a layer, shared) -> (x, noted), noted of sums over
        its rows.
      given: with a leading axis of layers.
      shared: the same for all layers; arrays with the rows of x go along with them.
    """
    S, rows = stages(), x.shape[0]
    batch_ways = math.prod(sharding.ways(a) for a in sharding.BATCH_AXES)
    M = micro_batches(rows, batch_ways, S)
    leaves, tree = jax.tree.flatten(shared)
    along = [getattr(leaf, "shape", ())[:1] == (rows,) for leaf in leaves]

    def stage(given, moving):
        x, *rest = moving
        rest = iter(rest)
        own = [next(rest) if a else x_ for a, x_ in zip(along, leaves, strict=True)]
        shared = jax.tree.unflatten(tree, own)
        return jax.lax.scan(lambda x, given: layer(x, given, shared), x, given)

    every = jax.vmap(stage, spmd_axis_name=AXIS)
    moving = [x, *(leaf for leaf, a in zip(leaves, along, strict=True) if a)]
    parts = [_in_turn(leaf, M) for leaf in moving]
    given = jax.tree.map(lambda a: a.reshape(S, layers // S, *a.shape[1:]), given)
    place_S = jnp.arange(S)

    def tick(carry, at):
        held, sums = carry
        held = [
            _handed_on(leaf, part[jnp.minimum(at, M - 1)], place_S)
            for leaf, part in zip(held, parts, strict=True)
        ]
        x, noted = every(given, held)
        works_S = (at >= place_S) & (at < place_S + M)

        def add(total, n):
            works = works_S.reshape(S, *(1,) * (n.ndim - 1))
            return total + jnp.where(works, n, 0)

        sums = jax.tree.map(add, sums, noted)
        x = _cut(x)
        return ([x, *held[1:]], sums), x

    # Until its first micro-batch comes, a stage works on a copy of it.
    held = [_cut(jnp.broadcast_to(part[:1], (S, *part.shape[1:]))) for part in parts]
    noted = jax.eval_shape(every, given, held)[1]
    sums = jax.tree.map(lambda n: jnp.zeros(n.shape, n.dtype), noted)
    (_, sums), made = jax.lax.scan(tick, (held, sums), jnp.arange(M + S - 1))
    made = made[S - 1 :, -1].swapaxes(0, 1).reshape(x.shape)
    return made, jax.tree.map(lambda s: s.reshape(layers, *s.shape[2:]), sums)


def _in_turn(leaf: jax.Array, parts: int) -> jax.Array:
    """[B, ...] as [parts, B / parts, ...]: row r goes to part r % parts."""
    rows = leaf.shape[0]
    return leaf.reshape(rows // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)


def _handed_on(leaf: jax.Array, first: jax.Array, place_S: jax.Array) -> jax.Array:
    """Each stage has what the one before it had; the first has something new."""
    at_first = (place_S == 0).reshape(-1, *(1,) * first.ndim)
    return _cut(jnp.where(at_first, first[None], jnp.roll(leaf, 1, axis=0)))


def _cut(leaf: jax.Array) -> jax.Array:
    """Each stage on its devices; the other axes are the compiler's."""
    spec = P(AXIS, *(P.UNCONSTRAINED,) * (leaf.ndim - 1))
    return jax.lax.with_sharding_constraint(leaf, spec)
