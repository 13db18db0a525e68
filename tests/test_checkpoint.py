"""Checkpoints: what is kept, what is noticed, what is never overwritten."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llm import checkpoint, sharding
from llm.checkpoint import Checkpoints, LoopState, State, digest, restore_params
from llm.errors import InputError


def make(step, mesh=None, ema=True, scale=1.0):
    rng = np.random.default_rng(step)
    params = {
        "kernel": jnp.asarray(scale * rng.normal(size=(64, 16)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(8,)), jnp.bfloat16),
    }
    average = jax.tree.map(lambda x: x + 1, params) if ema else None
    opt_state = ({"count": jnp.int32(step)}, {"trace": params["kernel"] * 2})
    state = State(jnp.int32(step), params, average, opt_state)
    return jax.device_put(state, placing(mesh)) if mesh else state


def placing(mesh):
    return NamedSharding(mesh, PartitionSpec())


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def write(folder, steps, losses=None, **keep):
    """Saves `steps` one after the other, as the training loop does."""
    checkpoints, loop = Checkpoints(folder, (), **keep), LoopState()
    for step in steps:
        checkpoints.save(make(step), loop, (losses or {}).get(step))
    checkpoints.close()
    return loop


def held(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_comes_back_as_it_was(tmp_path):
    checkpoints = Checkpoints(tmp_path, ())
    assert checkpoints.restore(abstract(make(0))) is None
    state = make(7)
    loop = LoopState(events=[{"step": 3}], seconds=1.5, waited=2)
    checkpoints.save(state, loop, 2.5)
    checkpoints.close()
    restored, back = Checkpoints(tmp_path, ()).restore(abstract(make(0)))
    same(restored, state)
    assert back == dataclasses.replace(loop, best=[[2.5, 7]])


def test_an_older_one_takes_the_place_of_the_newer(tmp_path):
    write(tmp_path, [1, 3, 5], {5: 1.0}, keep_last=3)
    checkpoints = Checkpoints(tmp_path, (), keep_last=3)
    assert [checkpoints.newest(), checkpoints.newest(5)] == [5, 3]
    assert checkpoints.newest(1) == -1
    assert checkpoints.restore(abstract(make(0)), before=1) is None
    assert held(tmp_path) == [1, 3, 5]  # none that is older: nothing is lost
    state, loop = checkpoints.restore(abstract(make(0)), before=4)
    same(state, make(3))
    assert held(tmp_path) == [1, 3]
    checkpoints.save(make(4), loop, None)  # below one that was there
    checkpoints.close()
    assert held(tmp_path) == [1, 3, 4]


def test_donated_memory_is_not_what_is_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, ())
    state = make(1)
    want = jax.tree.map(np.array, state)
    checkpoints.save(state, LoopState(), None)
    burn = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    for _ in range(3):
        state = burn(state)
    checkpoints.close()
    same(Checkpoints(tmp_path, ()).restore(abstract(make(0)))[0], want)


def test_keeps_the_newest(tmp_path):
    write(tmp_path, range(1, 7), keep_last=2, keep_best=1)
    assert held(tmp_path) == [5, 6]
    Checkpoints(tmp_path, (), keep_last=1, keep_best=0).close()  # only looked
    assert held(tmp_path) == [5, 6]


@pytest.mark.parametrize(
    "keep_last, keep_best, want", [(1, 1, [2, 6]), (2, 2, [2, 3, 5, 6]), (1, 0, [6])]
)
def test_keeps_the_best(tmp_path, keep_last, keep_best, want):
    losses = {1: 5.0, 2: 2.0, 3: 2.5, 4: 3.0, 5: 2.6, 6: 4.0}
    loop = write(
        tmp_path, range(1, 7), losses, keep_last=keep_last, keep_best=keep_best
    )
    assert held(tmp_path) == want
    assert [s for _, s in loop.best] == [2, 3][:keep_best]


def test_the_best_survives_a_restart(tmp_path):
    write(tmp_path, [1, 2], {1: 1.0, 2: 2.0}, keep_last=1)
    again = Checkpoints(tmp_path, (), keep_last=1)
    _, loop = again.restore(abstract(make(0)))
    for step in (3, 4):
        again.save(make(step), loop, None)
    again.close()
    assert held(tmp_path) == [1, 4]


@pytest.mark.parametrize("ema", [True, False], ids=["average", "none"])
@pytest.mark.parametrize("which, step", [("best", 1), ("last", 2)])
def test_parameters_to_use(tmp_path, which, step, ema):
    checkpoints, loop = Checkpoints(tmp_path, ()), LoopState()
    for at, loss in ((1, 1.0), (2, 2.0)):
        checkpoints.save(make(at, ema=ema), loop, loss)
    checkpoints.close()
    shapes = abstract(make(0).params)
    params, found = restore_params(tmp_path, shapes, which=which)
    assert found == step
    state = make(step, ema=ema)
    same(params, state.ema if ema else state.params)


@pytest.mark.parametrize(
    "axes, spec",
    [((("data", -1),), ("data",)), ((("data", 2), ("tensor", 4)), ("tensor", "data"))],
)
def test_goes_on_another_mesh(tmp_path, devices, axes, spec):
    write(tmp_path, [3])
    mesh = sharding.make_mesh(axes, devices)
    wanted = abstract(make(0, mesh))
    cut = NamedSharding(mesh, PartitionSpec(*spec))
    wanted.params["kernel"] = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=cut)
    state, _ = Checkpoints(tmp_path, ()).restore(wanted)
    assert state.params["kernel"].sharding == cut
    same(state, make(3))
    assert digest(state) == digest(make(3))


def test_nothing_is_pickled(tmp_path):
    write(tmp_path, [1])
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files
    for path in files:
        assert not path.name.endswith((".pkl", ".pickle"))
        assert not path.read_bytes().startswith(b"\x80\x04"), path


def test_the_digest_sees_every_bit():
    state = make(1)
    for place, bit in [(0, 0), (5, 31), (1023, 17)]:
        bits = np.array(state.params["kernel"]).view(np.uint32)
        bits.flat[place] ^= np.uint32(1 << bit)
        params = state.params | {"kernel": jnp.asarray(bits.view(np.float32))}
        assert digest(state._replace(params=params)) != digest(state)
    counted = ({"count": jnp.int32(2)}, state.opt_state[1])
    assert digest(state._replace(opt_state=counted)) != digest(state)
    # A tree whose leaves change places is another tree.
    a, b = jnp.ones(2), jnp.zeros(2)
    assert digest({"x": a, "y": b}) != digest({"x": b, "y": a})


def array_files(folder, step):
    """Data files of the arrays of a checkpoint, largest first."""
    root = folder / "checkpoints" / str(step)
    files = [p for p in root.rglob("*") if p.is_file() and "/d/" in str(p)]
    return sorted(files, key=lambda p: -p.stat().st_size)


def restore_and_listen(folder):
    said = []
    found = Checkpoints(folder, ()).restore(abstract(make(0)), say=said.append)
    return found, said


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("item", ["params", "opt_state", "ema"])
def test_a_flipped_byte_falls_back(tmp_path, item, where):
    write(tmp_path, [1, 2])
    path = next(p for p in array_files(tmp_path, 2) if f"/{item}/" in str(p))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0x10
    path.write_bytes(content)
    (state, _), said = restore_and_listen(tmp_path)
    same(state, make(1))
    assert len(said) == 1 and said[0].startswith("checkpoint 2 cannot be read (")
    assert "\n" not in said[0]
    assert held(tmp_path) == [1] and (tmp_path / "unreadable" / "2").exists()


def test_damaged_parameters_are_not_used(tmp_path):
    """The file system reports nothing, but these are not the weights of the run."""
    write(tmp_path, [1])
    path = next(p for p in array_files(tmp_path, 1) if "/ema/" in str(p))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        restore_params(tmp_path, abstract(make(0).params))


def damage_metadata(root):
    for path in root.rglob("_METADATA"):
        path.write_text("{")


def damage_loop(root):
    for path in (root / "loop").iterdir():
        if path.is_file():
            path.write_text(path.read_text()[:-20])


def lose_an_item(root):
    (root / "opt_state").rename(root.parent.parent / "lost")


def cut_arrays(root):
    for path in root.rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [damage_metadata, damage_loop, lose_an_item, cut_arrays]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_falls_back(tmp_path, damage):
    write(tmp_path, [1, 2])
    damage(tmp_path / "checkpoints" / "2")
    (state, loop), said = restore_and_listen(tmp_path)
    same(state, make(1))
    assert len(said) == 1
    # The run goes on over the step whose checkpoint was set aside.
    again = Checkpoints(tmp_path, ())
    again.restore(abstract(make(0)))
    again.save(make(2), loop, None)
    again.close()
    same(Checkpoints(tmp_path, ()).restore(abstract(make(0)))[0], make(2))


def tree_of(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_nothing_readable_stops_every_time(tmp_path):
    write(tmp_path, [1, 2])
    for step in (1, 2):
        damage_loop(tmp_path / "checkpoints" / str(step))
    before = tree_of(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            restore_and_listen(tmp_path)
        assert "none readable" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert tree_of(tmp_path) == before


def test_another_model_does_not_fit(tmp_path):
    write(tmp_path, [1])
    wanted = abstract(make(0))
    wanted.params["kernel"] = jax.ShapeDtypeStruct(
        (64, 17), jnp.float32, sharding=wanted.params["half"].sharding
    )
    with pytest.raises(InputError, match="none readable"):
        Checkpoints(tmp_path, ()).restore(wanted, say=lambda line: None)
    with pytest.raises(InputError, match="tokenizer and the config that it was") as got:
        restore_params(tmp_path, wanted.params)
    assert "\n" not in str(got.value)
    assert held(tmp_path) == [1]


def test_no_checkpoint_to_use(tmp_path):
    with pytest.raises(InputError, match="has no checkpoint"):
        restore_params(tmp_path, abstract(make(0).params))
    assert not list(tmp_path.iterdir())


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    """What a kill leaves: a folder under orbax's temporary name."""
    write(tmp_path, [1])
    root = tmp_path / "checkpoints"
    (root / "2.orbax-checkpoint-tmp-17" / "params").mkdir(parents=True)
    (state, _), said = restore_and_listen(tmp_path)
    same(state, make(1))
    assert not said


def test_an_array_larger_than_what_may_be_in_flight(tmp_path, monkeypatch):
    """Whatever the bound on memory, an array of any size is written and read."""
    monkeypatch.setattr(checkpoint, "_IN_FLIGHT", 1 << 10)
    large = {"a": jnp.arange(5000.0), "b": jnp.ones(3)}
    state = State(jnp.int32(4), large, None, None)
    checkpoints = Checkpoints(tmp_path, large)
    checkpoints.save(state, LoopState(), None)
    checkpoints.close()
    found, step = checkpoint.restore_params(str(tmp_path), abstract(state).params)
    assert step == 4 and (np.asarray(found["a"]) == np.arange(5000)).all()


def test_a_digest_holds_few_arrays_at_once(monkeypatch):
    """A CPU copies those of one program; what they add up to stays the same."""
    arrays = [jnp.arange(n, dtype=jnp.float32) for n in (5, 100, 200, 1, 2, 90)]
    whole, asked, sums = checkpoint.digest(arrays), [], checkpoint._sums_of_words
    monkeypatch.setattr(checkpoint, "_IN_FLIGHT", 4 * 110)
    monkeypatch.setattr(
        checkpoint, "_sums_of_words",
        lambda some: asked.append([x.size for x in some]) or sums(some),
    )  # fmt: skip
    assert checkpoint.digest(arrays) == whole
    assert asked == [[5, 100], [200], [1, 2, 90]]


def test_a_checkpoint_of_an_older_version_is_read():
    assert LoopState.of({"seconds": 2.0}) == LoopState(seconds=2.0)


def test_a_checkpoint_of_a_newer_version_stops_the_run(tmp_path, monkeypatch):
    """It is whole: to pass it over for an older one would lose what it learned."""
    write(tmp_path, [1])
    with monkeypatch.context() as newer:
        newer.setattr(LoopState, "VERSION", LoopState.VERSION + 1)
        write(tmp_path, [2])
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="that a newer version of this program wrote"):
        Checkpoints(tmp_path, ()).restore(abstract(make(0)))
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
