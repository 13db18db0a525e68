"""Logical axes of arrays, and the rules that lay them out on a mesh of devices.

Models name the axes of every parameter and activation; a rule preset maps the names to
mesh axes; XLA inserts the communication. The vocabulary:

    parameters   layers experts embed mlp heads kv_heads head_dim vocab norm
    activations  batch length stream (the length, where blocks hand over to blocks)
                 expert_batch (examples, in rows that lie with their experts)
                 and, of the above, experts mlp heads kv_heads vocab

    >>> make_mesh((("data", -1), ("tensor", 2)), jax.devices())  # 8 devices: 4 x 2
"""

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from llm.errors import InputError

# Mesh axes: data (batch only), fsdp (batch and parameters), expert (batch and experts),
# stage (layers: a pipeline), context (length: ring attention), tensor (heads, mlp,
# vocab, and the length between blocks). Neighbours on the last axis are the nearest.
MESH_AXES = ("stage", "data", "fsdp", "expert", "context", "tensor")
BATCH_AXES = ("data", "fsdp", "expert")
_ACROSS = ("data", "stage", "fsdp")  # which axis crosses slices, the first that can
_BATCH = ("batch", BATCH_AXES)
_PLACES = (("length", "context"), ("layers", "stage"))
_WHOLE = (_BATCH, *_PLACES, ("stream", "context"))
_EXPERT = (("experts", "expert"), ("expert_batch", ("data", "fsdp")))
_TENSOR = (
    ("stream", ("context", "tensor")),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("vocab", "tensor"),
)
PRESETS = {
    # Parameters whole on every device (of a stage).
    "replicated": (*_WHOLE, ("expert_batch", BATCH_AXES)),
    # Parameters cut along their embedding axis over every device with other tokens
    # (ZeRO-3), those of experts over `expert` first; and over `tensor`.
    "fsdp": (
        _BATCH, *_PLACES, *_EXPERT, ("embed", (*BATCH_AXES, "context")), *_TENSOR
    ),
    # The same, but whole along `data`: between slices go gradients only.
    "hybrid": (
        _BATCH, *_PLACES, *_EXPERT, ("embed", ("fsdp", "expert", "context")), *_TENSOR
    ),
    # Parameters cut over `tensor` and `expert` only.
    "tensor": (_BATCH, *_PLACES, *_EXPERT, *_TENSOR),
}  # fmt: skip


def make_mesh(axes: Sequence[tuple[str, int]], devices: Sequence[Any]) -> Mesh:
    """A mesh of named axes over all devices; one size may be -1, it fills.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    try:
        names = tuple(axis for axis, _ in axes)
        sizes = [operator.index(size) for _, size in axes]
    except (TypeError, ValueError) as error:
        raise _not_pairs(axes) from error
    if any(isinstance(size, bool) for _, size in axes):
        raise _not_pairs(axes)
    unknown = set(names) - set(MESH_AXES)
    if unknown:
        raise InputError(
            got=f"mesh axis {sorted(map(str, unknown))[0]!r}",
            want=f"one of {', '.join(MESH_AXES)}",
        )
    fixed = math.prod(size for size in sizes if size != -1)
    fills = sizes.count(-1)
    positive = all(size > 0 or size == -1 for size in sizes)
    distinct = len(set(names)) == len(names)
    if fills > 1 or not positive or not distinct or len(devices) % fixed:
        raise _mesh_error(axes, len(devices))
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise _mesh_error(axes, len(devices))
    types = (AxisType.Auto,) * len(names)
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if devices[0].platform == "cpu":
        return Mesh(np.asarray(devices).reshape(sizes), names, axis_types=types)
    if slices > 1:
        return Mesh(_over_slices(names, sizes, slices, devices), names, types)
    return jax.make_mesh(sizes, names, axis_types=types, devices=devices)


def _over_slices(names, sizes, slices: int, devices) -> np.ndarray:
    """Devices such that one axis alone crosses the slow network between slices."""
    fitting = [
        axis
        for axis in _ACROSS
        if axis in names and sizes[names.index(axis)] % slices == 0
    ]
    if not fitting:
        raise InputError(
            got=f"mesh {tuple(zip(names, sizes, strict=True))} on {slices} slices",
            want=f"{' or '.join(_ACROSS)} of a multiple of {slices}",
            do=f"such as (('data', {slices}), ('fsdp', -1)) with the rules 'hybrid'",
        )
    across = [slices if axis == fitting[0] else 1 for axis in names]
    within = [size // times for size, times in zip(sizes, across, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(within, across, devices)


def _not_pairs(axes):
    return InputError(
        got=f"mesh {axes!r}",
        want="pairs of a name and a whole number, such as "
        "(('data', -1), ('tensor', 2))",
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
    axes = tuple(a for a in BATCH_AXES if a in mesh.axis_names)
    return NamedSharding(mesh, PartitionSpec(axes or None))


def row_part(mesh: Mesh) -> tuple[int, int]:
    """(which part of a batch this process reads, of how many).

    Processes whose devices hold the same rows, such as two halves of a `context` axis,
    read the same part.
    """
    if jax.process_count() == 1:
        return 0, 1
    ways = batch_ways(mesh)
    places = batch_sharding(mesh).addressable_devices_indices_map((ways,))
    mine = sorted({place[0].indices(ways)[0] for place in places.values()})
    first, count = mine[0], len(mine)
    if mine[-1] - first + 1 == count and ways % count == 0 == first % count:
        return first // count, ways // count
    return 0, 1  # scattered: it reads the whole batch and keeps its rows


def placed(batch: Any, mesh: Mesh) -> Any:
    """Arrays on the mesh of what each process read: its part of the rows."""
    part, parts = row_part(mesh)
    (rows,) = batch_sharding(mesh).spec
    context = mesh.shape.get("context", 1)

    def place(x):
        spec = [rows]
        if x.ndim > 1 and context > 1 and x.shape[1] % context == 0:
            spec.append("context")
        where = NamedSharding(mesh, PartitionSpec(*spec))
        count = len(x)

        def piece(index):
            start, stop, _ = index[0].indices(count * parts)
            own = slice(start - part * count, stop - part * count)
            return x[(own, *index[1:])]

        shape = (count * parts, *x.shape[1:])
        return jax.make_array_from_callback(shape, where, piece)

    return jax.tree.map(place, batch)


def batch_ways(mesh: Mesh) -> int:
    """Into how many parts the batch is cut."""
    return math.prod(mesh.shape[a] for a in BATCH_AXES if a in mesh.axis_names)


def mesh_axes() -> tuple[str, ...]:
    """Axes of the mesh that a program is traced for; none without one."""
    return jax.sharding.get_abstract_mesh().axis_names


def on_each_device(
    function: Callable[..., tuple[jax.Array, ...]],
    axes: Sequence[str],
    *arrays: jax.Array,
) -> tuple[jax.Array, ...]:
    """`function` of what each device has of arrays; it keeps their shapes.

    Where the mesh does not divide the arrays, they come back as they are: what
    `function` does may only be of use, never of consequence.

    Args:
      axes: the logical axes of the arrays, which have one shape.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    spec = nn.logical_to_mesh_axes(axes)
    for size, cut in zip(arrays[0].shape, spec, strict=True):
        cut = (cut,) if isinstance(cut, str) else cut or ()
        if size % math.prod(map(ways, cut)):
            return arrays
    return jax.shard_map(function, in_specs=spec, out_specs=spec, check_vma=False)(
        *arrays
    )


def batch_axes(rows: int) -> tuple[str, ...]:
    """Of these, those that a batch of so many rows is cut over."""
    axes = tuple(a for a in BATCH_AXES if a in mesh_axes())
    return () if rows % math.prod(map(ways, axes)) else axes


def ways(axis: str) -> int:
    """Size of an axis of the mesh that a program is traced for; 1 without one."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())
