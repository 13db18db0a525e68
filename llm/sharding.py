"""Logical axes of arrays, and the rules that lay them out on a mesh of devices.

Models name the axes of every parameter and activation; a rule preset maps the names to
mesh axes; XLA inserts the communication. The vocabulary:

    parameters   layers experts embed mlp heads kv_heads head_dim vocab norm
    activations  batch length expert_batch (examples, in rows that lie with their
                 experts) and, of the above, experts mlp heads kv_heads vocab

    >>> make_mesh((("data", -1), ("tensor", 2)), jax.devices())  # 8 devices: 4 x 2
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from llm.errors import InputError

# Mesh axes: data (batch only), fsdp (batch and parameters), expert (batch and experts),
# tensor (heads, mlp, vocab).
MESH_AXES = ("data", "fsdp", "expert", "tensor")
_BATCH_AXES = ("data", "fsdp", "expert")
_BATCH = ("batch", _BATCH_AXES)
_EXPERT = (("experts", "expert"), ("expert_batch", ("data", "fsdp")))
_TENSOR = (
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("vocab", "tensor"),
)
PRESETS = {
    # Parameters whole on every device.
    "replicated": (_BATCH, ("expert_batch", _BATCH_AXES)),
    # Parameters cut along their embedding axis over every batch device (ZeRO-3), those
    # of experts over `expert` first; and over `tensor`, where the mesh has that axis.
    "fsdp": (_BATCH, *_EXPERT, ("embed", _BATCH_AXES), *_TENSOR),
    # Parameters cut over `tensor` and `expert` only.
    "tensor": (_BATCH, *_EXPERT, *_TENSOR),
}


def make_mesh(axes: Sequence[tuple[str, int]], devices: Sequence[Any]) -> Mesh:
    """A mesh of named axes over all devices; one size may be -1, it fills.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    try:
        names = tuple(axis for axis, _ in axes)
        sizes = [int(size) for _, size in axes]
    except (TypeError, ValueError) as error:
        raise InputError(
            got=f"mesh {axes!r}", want="pairs, such as (('data', -1), ('tensor', 2))"
        ) from error
    fixed = math.prod(size for size in sizes if size != -1)
    fills = sizes.count(-1)
    positive = all(size > 0 or size == -1 for size in sizes)
    distinct = len(set(names)) == len(names)
    if fills > 1 or not positive or not distinct or len(devices) % fixed:
        raise _mesh_error(axes, len(devices))
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise _mesh_error(axes, len(devices))
    unknown = set(names) - set(MESH_AXES)
    if unknown:
        raise InputError(
            got=f"mesh axis {sorted(unknown)[0]!r}",
            want="data, fsdp, expert or tensor",
        )
    if devices[0].platform == "cpu":
        grid = np.asarray(devices).reshape(sizes)
        return Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.make_mesh(
        sizes, names, axis_types=(AxisType.Auto,) * len(names), devices=devices
    )


def _mesh_error(axes, count):
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    return InputError(
        got=f"mesh {tuple(tuple(a) for a in axes)} on {count} devices",
        want=f"different axes whose sizes multiply to {count} "
        f"(each one of {', '.join(map(str, divisors))}; one may be -1)",
    )


def rules_for(preset: str, mesh: Mesh) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The rules of a preset, less the mesh axes that this mesh does not have."""
    if preset not in PRESETS:
        raise InputError(got=f"rules {preset!r}", want=f"one of {', '.join(PRESETS)}")
    rules = []
    for logical, physical in PRESETS[preset]:
        axes = (physical,) if isinstance(physical, str) else physical
        axes = tuple(a for a in axes if a in mesh.axis_names)
        if axes:
            rules.append((logical, axes))
    return tuple(rules)


@contextlib.contextmanager
def laid_out(mesh: Mesh, preset: str) -> Iterator[None]:
    """Within it, traced models constrain their activations to the mesh by the rules."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules_for(preset, mesh)):
        yield


def shardings_of(boxed: Any, mesh: Mesh, preset: str) -> Any:
    """Shardings of an abstract tree, `nn.LogicallyPartitioned` boxes and bare leaves.

    Bare leaves are replicated, and so is an axis that its mesh axes do not divide: a
    small array cut unevenly costs more than it saves.
    """
    rules = dict(rules_for(preset, mesh))

    def shard(leaf):
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
        shape = nn.meta.unbox(leaf).shape
        spec, used = [], set()
        for size, axis in zip(shape, names, strict=False):
            axes = tuple(a for a in rules.get(axis, ()) if a not in used)
            ways = math.prod(mesh.shape[a] for a in axes)
            if not axes or size % ways:
                axes = ()
            used.update(axes)
            spec.append(axes or None)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(
        shard, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )


def left_whole(
    axes: dict[str, tuple[str, ...]], shardings: dict[str, NamedSharding], preset: str
) -> list[str]:
    """Names of the leaves with an axis that a rule would cut, were it divisible.

    Args:
      axes: the logical axes of each leaf.
      shardings: what `shardings_of` made of them.
    """
    found = []
    for name, sharding in shardings.items():
        rules = dict(rules_for(preset, sharding.mesh))
        for axis, cut in zip(axes[name], sharding.spec, strict=False):
            ways = math.prod(sharding.mesh.shape[a] for a in rules.get(axis, ()))
            if cut is None and ways > 1:
                found.append(name)
    return found


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    axes = tuple(a for a in _BATCH_AXES if a in mesh.axis_names)
    return NamedSharding(mesh, PartitionSpec(axes or None))


def batch_ways(mesh: Mesh) -> int:
    """Into how many parts the batch is cut."""
    return math.prod(mesh.shape[a] for a in _BATCH_AXES if a in mesh.axis_names)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())
