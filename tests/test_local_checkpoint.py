"""What a machine keeps for itself: whole, of its layout, and of its run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llm.checkpoint import LoopState, State
from llm.training.local_checkpoint import LocalCheckpoints


def sharded(count=4):
    mesh = jax.make_mesh((count,), ("fsdp",), devices=jax.devices()[:count])
    return lambda *spec: NamedSharding(mesh, PartitionSpec(*spec))


def make(step, put=None):
    put = put or sharded()
    x = jnp.arange(32, dtype=jnp.float32).reshape(8, 4) * step
    return State(
        step=jax.device_put(jnp.int32(step), put()),
        params={"w": jax.device_put(x, put("fsdp")), "b": jax.device_put(x[0], put())},
        ema=None,
        opt_state={"mu": jax.device_put(x.astype(jnp.bfloat16), put(None, "fsdp"))},
    )


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


@pytest.fixture
def local(tmp_path):
    (tmp_path / "run").mkdir()
    return LocalCheckpoints(str(tmp_path / "disk"), str(tmp_path / "run"))


def save(local, *steps):
    for step in steps:
        local.save(make(step), LoopState(saved=step))
    local.wait()


def test_comes_back_as_it_was(local):
    save(local, 2, 4, 6)
    assert local.steps() == [4, 6]
    state, loop = local.restore(abstract(make(1)), after=5)
    assert loop == LoopState(saved=6)
    want = make(6)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert a.sharding == b.sharding and a.dtype == b.dtype


def test_a_part_is_written_once(local, tmp_path):
    save(local, 1)
    (path,) = tmp_path.glob("disk/*/*/1/arrays.safetensors")
    numbers = 32 * 4 + 4 * 4 + 32 * 2  # b is on all four devices
    assert numbers < path.stat().st_size < numbers + 1000


def test_what_is_donated_is_not_what_is_written(local):
    state = make(3)
    want = np.asarray(state.params["w"]).copy()
    local.save(state, LoopState())
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)(state)
    local.wait()
    found, _ = local.restore(abstract(make(1)), after=-1)
    np.testing.assert_array_equal(np.asarray(found.params["w"]), want)


def test_a_newer_one_that_is_shared_wins(local):
    save(local, 5)
    assert local.restore(abstract(make(1)), after=5) is None
    assert local.restore(abstract(make(1)), after=9) is None
    assert local.restore(abstract(make(1)), after=4)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 8
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "arrays.safetensors"),
        lambda folder: (folder / "arrays.safetensors").unlink(),
        lambda folder: (folder / "arrays.safetensors").write_bytes(b"x"),
        lambda folder: (folder / "loop.json").write_text("{"),
        lambda folder: (folder / "loop.json").write_text("[]"),
    ],
    ids=["flipped bit", "lost", "cut", "half a record", "no record"],
)
def test_damage_is_passed_over(local, tmp_path, damage):
    save(local, 5)
    (folder,) = tmp_path.glob("disk/*/*/5")
    damage(folder)
    assert local.restore(abstract(make(1)), after=-1) is None


def test_another_layout_is_passed_over(local):
    save(local, 5)
    other = abstract(make(1, put=sharded(2)))
    assert local.restore(other, after=-1) is None


def test_another_run_does_not_find_them(local, tmp_path):
    save(local, 5)
    (tmp_path / "run" / "local_checkpoints.txt").unlink()  # the workdir was made anew
    again = LocalCheckpoints(str(tmp_path / "disk"), str(tmp_path / "run"))
    assert again.steps() == [] and again.restore(abstract(make(1)), after=-1) is None


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path, monkeypatch):
    said = []
    (tmp_path / "run").mkdir()
    (tmp_path / "disk").write_text("no folder")
    local = LocalCheckpoints(str(tmp_path / "disk"), str(tmp_path / "run"), said.append)
    save(local, 1, 2)
    assert len(said) == 1 and "\n" not in said[0]


def test_nothing_stays_when_the_run_is_over(local, tmp_path):
    save(local, 1)
    local.remove()
    assert list((tmp_path / "disk").iterdir()) == []
