"""The end of memory, as the allocator really says it."""

import jax
import jax.numpy as jnp
import pytest

from llm.errors import InputError
from llm.training import out_of_memory

SHARD = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
STATE = {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=SHARD)
    for name, shape, dtype in [
        ("small", (8,), jnp.float32),
        ("table", (512, 1024), jnp.float32),
        ("half", (512, 1024), jnp.bfloat16),
    ]
}


def test_one_line_and_a_file(tmp_path):
    with pytest.raises(InputError) as caught, out_of_memory.told(str(tmp_path), STATE):
        jnp.zeros(1 << 46, jnp.float32).block_until_ready()
    line = str(caught.value)
    assert "\n" not in line and "RESOURCE_EXHAUSTED" in line
    assert ": table 2 MiB, half 1 MiB, small 32 B, " in line
    told = (tmp_path / "memory.txt").read_text()
    assert "3.00 MiB of training state" in told and "281474976710656" in told
    assert (tmp_path / "memory.prof").stat().st_size > 0


def test_what_runs_is_named_too(tmp_path):
    def step(x):
        with jax.named_scope("mlp"):
            y = x @ x
        return jnp.sort(y)

    program = lambda: jax.jit(step).trace(jnp.zeros((256, 256))).jaxpr  # noqa: E731
    with (
        pytest.raises(InputError) as caught,
        out_of_memory.told(str(tmp_path), STATE, program),
    ):
        jnp.zeros(1 << 46, jnp.float32).block_until_ready()
    line = str(caught.value)
    named = "float32[256,256] of update mlp, 256 KiB"
    assert named in line and "\n" not in line
    assert named in (tmp_path / "memory.txt").read_text()


def test_a_part_of_an_array_is_what_a_device_holds():
    mesh = jax.make_mesh((4,), ("fsdp",), devices=jax.devices()[:4])
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    leaf = jax.ShapeDtypeStruct((64, 2), jnp.float32, sharding=spec)
    assert out_of_memory.largest({"x": leaf}) == [("x", 16 * 2 * 4)]


def test_other_failures_pass(tmp_path):
    with pytest.raises(TypeError), out_of_memory.told(str(tmp_path), STATE):
        jnp.zeros(3) @ jnp.zeros(4)
    assert not list(tmp_path.iterdir())
