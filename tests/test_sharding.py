"""Meshes and shardings against written-out tables, and activations that obey them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from llm import sharding
from llm.errors import InputError


@pytest.mark.parametrize(
    "axes, shape",
    [
        ((("data", -1),), {"data": 8}),
        ((("data", 8),), {"data": 8}),
        ((("data", -1), ("tensor", 2)), {"data": 4, "tensor": 2}),
        (
            (("data", 2), ("fsdp", 2), ("tensor", 2)),
            {"data": 2, "fsdp": 2, "tensor": 2},
        ),
        ((("fsdp", 1), ("data", -1)), {"fsdp": 1, "data": 8}),
        ((("data", 2), ("expert", -1)), {"data": 2, "expert": 4}),
    ],
)
def test_meshes(devices, axes, shape):
    mesh = sharding.make_mesh(axes, devices)
    assert dict(mesh.shape) == shape
    assert sorted(d.id for d in mesh.devices.flat) == [d.id for d in devices]
    ways = shape.get("data", 1) * shape.get("fsdp", 1) * shape.get("expert", 1)
    assert sharding.batch_ways(mesh) == ways


@pytest.mark.parametrize(
    "axes, message",
    [
        ((("data", 3),), "on 8 devices"),
        ((("data", 4),), "on 8 devices"),
        ((("data", 16),), "on 8 devices"),
        ((("data", -1), ("tensor", -1)), "one may be -1"),
        ((("data", 0),), "on 8 devices"),
        ((("data", -2),), "on 8 devices"),
        ((("data", -2), ("tensor", -4)), "on 8 devices"),
        ((("data", 2), ("data", 4)), "different axes"),
        ((("model", 8),), "mesh axis 'model'; want one of stage, data, fsdp, expert"),
        ((), "on 8 devices"),
        (("data",), "want pairs"),
        ((("data", "all"),), "want pairs"),
        ((("data", 2.5), ("fsdp", -1)), "want pairs of a name and a whole number"),
        ((("data", True), ("fsdp", -1)), "want pairs of a name and a whole number"),
    ],
)
def test_meshes_that_do_not_fit(devices, axes, message):
    with pytest.raises(InputError) as caught:
        sharding.make_mesh(axes, devices)
    assert message in str(caught.value)


def test_unknown_rules(devices):
    mesh = sharding.make_mesh((("data", -1),), devices)
    with pytest.raises(InputError, match="one of replicated, fsdp, hybrid, tensor"):
        sharding.rules_for("zero3", mesh)


def box(shape, *names):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)


TREE = {
    "query": box((4, 16, 8, 2), "layers", "embed", "heads", "head_dim"),
    "table": box((32, 16), "vocab", "embed"),
    "down": box((12, 16), "mlp", "embed"),
    "scale": box((16,), "norm"),
    "odd": box((7, 16), "mlp", "embed"),
    "narrow": box((12, 6), "mlp", "embed"),
    "experts": box((4, 16, 8), "experts", "embed", "mlp"),
    "step": jax.ShapeDtypeStruct((), jnp.int32),
}
DATA, MIXED = (("data", -1),), (("data", 2), ("fsdp", 2), ("tensor", 2))
EXPERT = (("data", 2), ("expert", 2), ("tensor", 2))
NONE = P(None)
TABLE = {
    ("replicated", MIXED): {
        "query": P(None, None, None, None), "table": P(None, None),
        "down": P(None, None), "scale": NONE, "odd": P(None, None),
        "narrow": P(None, None), "experts": P(None, None, None), "step": P(),
    },
    ("fsdp", DATA): {
        "query": P(None, "data", None, None), "table": P(None, "data"),
        "down": P(None, "data"), "scale": NONE, "odd": P(None, "data"),
        # 6 columns do not go on 8 devices.
        "narrow": P(None, None), "experts": P(None, "data", None), "step": P(),
    },
    ("fsdp", MIXED): {
        "query": P(None, ("data", "fsdp"), "tensor", None),
        "table": P("tensor", ("data", "fsdp")),
        "down": P("tensor", ("data", "fsdp")), "scale": NONE,
        "odd": P(None, ("data", "fsdp")), "narrow": P("tensor", None),
        "experts": P(None, ("data", "fsdp"), "tensor"), "step": P(),
    },
    ("fsdp", EXPERT): {
        "query": P(None, ("data", "expert"), "tensor", None),
        "table": P("tensor", ("data", "expert")),
        "down": P("tensor", ("data", "expert")), "scale": NONE,
        "odd": P(None, ("data", "expert")), "narrow": P("tensor", None),
        "experts": P("expert", "data", "tensor"), "step": P(),
    },
    ("tensor", MIXED): {
        "query": P(None, None, "tensor", None), "table": P("tensor", None),
        "down": P("tensor", None), "scale": NONE, "odd": P(None, None),
        "narrow": P("tensor", None), "experts": P(None, None, "tensor"), "step": P(),
    },
    ("tensor", EXPERT): {
        "query": P(None, None, "tensor", None), "table": P("tensor", None),
        "down": P("tensor", None), "scale": NONE, "odd": P(None, None),
        "narrow": P("tensor", None), "experts": P("expert", None, "tensor"),
        "step": P(),
    },
}  # fmt: skip


@pytest.mark.parametrize("preset, axes", TABLE)
def test_shardings_table(devices, preset, axes):
    mesh = sharding.make_mesh(axes, devices)
    got = sharding.shardings_of(TREE, mesh, preset)
    assert got.keys() == TREE.keys()
    for name, want in TABLE[preset, axes].items():
        shape = nn.meta.unbox(TREE[name]).shape
        # Compared by the piece that each device holds.
        held = got[name].devices_indices_map(shape)
        wanted = jax.NamedSharding(mesh, want).devices_indices_map(shape)
        assert held == wanted, name


@pytest.mark.parametrize(
    "preset, axes, want",
    [
        ("replicated", MIXED, set()),
        ("fsdp", DATA, {"narrow"}),
        ("fsdp", MIXED, {"odd", "narrow"}),
        ("tensor", MIXED, {"odd"}),
    ],
)
def test_what_is_left_whole(devices, preset, axes, want):
    mesh = sharding.make_mesh(axes, devices)
    boxes = {n: b for n, b in TREE.items() if n != "step"}
    shardings = sharding.shardings_of(boxes, mesh, preset)
    names = {n: b.names for n, b in boxes.items()}
    assert set(sharding.left_whole(names, shardings, preset)) == want


def test_batches(devices):
    mesh = sharding.make_mesh(MIXED, devices)
    batch = jax.device_put(np.zeros((8, 3)), sharding.batch_sharding(mesh))
    assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}
    whole = jax.device_put(np.zeros((8, 3)), sharding.replicated(mesh))
    assert {s.data.shape for s in whole.addressable_shards} == {(8, 3)}


def test_models_are_laid_out_only_within(devices):
    """Within the block a logical constraint reaches the compiler; outside, it does not.

    An axis of a size that the mesh does not divide stays whole.
    """
    mesh = sharding.make_mesh((("data", 4), ("tensor", 2)), devices)

    def model(x):
        return nn.with_logical_constraint(x + 1, ("batch", "length", "mlp"))

    x = np.zeros((8, 3, 4), np.float32)
    with sharding.laid_out(mesh, "fsdp"):
        made = jax.jit(model)(x)
        odd = jax.jit(model)(x[:1])
    assert {s.data.shape for s in made.addressable_shards} == {(2, 3, 2)}
    assert {s.data.shape for s in odd.addressable_shards} == {(1, 3, 2)}
    assert len(jax.jit(lambda x: model(x))(x).devices()) == 1


class Chip:
    """Of a slice; what the order of devices is made of."""

    platform, device_kind, process_index = "gpu", "chip", 0

    def __init__(self, number):
        self.id, self.slice_index = number, number // 4


@pytest.mark.parametrize(
    "axes, across",
    [
        ((("data", 2), ("fsdp", -1)), "data"),
        ((("fsdp", 2), ("data", -1)), "data"),
        ((("stage", 2), ("tensor", 4)), "stage"),
    ],
)
def test_one_axis_crosses_slices(axes, across):
    """Along every other axis, all chips are of one slice."""
    chips = [Chip(n) for n in range(8)]
    names, sizes = zip(*axes, strict=True)
    sizes = [8 // 2 if size == -1 else size for size in sizes]
    grid = sharding._over_slices(names, sizes, 2, chips)
    slices = np.vectorize(lambda chip: chip.slice_index)(grid)
    for at, name in enumerate(names):
        crosses = (slices != np.take(slices, [0], axis=at)).any()
        assert crosses == (name == across)


def test_no_axis_can_cross_slices():
    with pytest.raises(InputError, match="a multiple of 2; such as"):
        sharding._over_slices(("tensor",), [8], 2, [Chip(n) for n in range(8)])


def test_what_a_process_places(devices):
    """Rows over the batch axes, lengths over context."""
    mesh = sharding.make_mesh((("data", 2), ("context", 4)), devices)
    x = np.arange(4 * 8).reshape(4, 8)
    made = sharding.placed({"x": x, "index": np.arange(4)}, mesh)
    np.testing.assert_array_equal(made["x"], x)
    assert {s.data.shape for s in made["x"].addressable_shards} == {(2, 2)}
    assert {s.data.shape for s in made["index"].addressable_shards} == {(2,)}
