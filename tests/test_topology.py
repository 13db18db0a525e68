"""Pods by name; and the real step compiled for one, where libtpu is installed."""

import types

import numpy as np
import pytest

from llm import aot, compiler, config, plan, topology
from llm.errors import InputError
from llm.precision import Policy

needs_libtpu = pytest.mark.skipif(
    not topology.available(), reason="libtpu is not installed: pip install .[tpu]"
)


@pytest.mark.parametrize("name", ["v5e", "v5e:4", "v5x:4x4", "v5p:4x4", "x v5e:4x4"])
def test_unknown_names(name):
    with pytest.raises(InputError, match="want a slice such as v4:2x2x2"):
        topology.find(name)


def test_no_options_but_on_a_tpu():
    assert compiler.options(Policy("bfloat16", "cpu")) == {}
    assert compiler.options(Policy("bfloat16", "gpu", 8, "NVIDIA H100")) == {}


def test_the_fastest_that_fits_is_best():
    tries = [
        {"fits": False},
        {"fits": True, "tokens_per_s": 5.0, "remat": "full"},
        {"fits": True, "tokens_per_s": 9.0, "remat": "selective"},
        {"fits": True, "cycles": None},
    ]
    assert aot.best(tries)["remat"] == "selective"
    assert aot.best(tries[:1]) is None


def test_a_search_climbs_while_it_gets_faster(monkeypatch):
    speeds = {1: 3.0, 2: 5.0, 4: 4.0, 8: 99.0}
    monkeypatch.setattr(aot, "placed", lambda c, pod, rows: rows)
    monkeypatch.setattr(
        aot, "compiled", lambda rows, pod: {"fits": True, "tokens_per_s": speeds[rows]}
    )
    c = config.base()
    c.model = {"name": "llama", "remat": "none"}
    pod = types.SimpleNamespace(mesh=lambda axes: plan.planned_mesh(axes, 4))
    found = aot.search(c, pod, remats=("full",), meshes=((("fsdp", -1),),))
    assert [x["tokens_per_s"] for x in found] == [3.0, 5.0, 4.0]


@pytest.mark.parametrize(
    "devices, along",
    [
        ((0, 1, 2, 3), ("context", False)),
        ((0, 4), ("stage", False)),
        ((0, 1, 4, 5), ("stage, context", False)),
        ((0, 8), ("data", True)),
        ((), ("all", True)),
        (tuple(range(16)), ("all", True)),
        ((3,), ("none", False)),
    ],
)
def test_the_axes_of_a_collective(devices, along):
    """Of eight devices each in two slices; axes of equal size are told apart."""
    chips = np.array([types.SimpleNamespace(slice_index=n // 8) for n in range(16)])
    mesh = types.SimpleNamespace(
        shape={"data": 2, "stage": 2, "context": 4, "tensor": 1}, size=16,
        devices=chips.reshape(2, 2, 4, 1),
    )  # fmt: skip
    assert aot._along(devices, mesh) == along


@needs_libtpu
def test_the_data_axis_goes_across_slices():
    pod = topology.find("2xv5e:2x2")
    for axes in ((("data", 2), ("fsdp", -1)), (("data", 2), ("fsdp", 4))):
        mesh = pod.mesh(axes)
        assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
        for row, its in enumerate(mesh.devices):
            assert {d.slice_index for d in its} == {row}
    with pytest.raises(InputError, match="want a multiple of 2"):
        pod.mesh((("data", 1), ("fsdp", -1)))


@needs_libtpu
@pytest.mark.parametrize(
    "name, chips, devices, mesh",
    [
        ("v4:2x2x2", 8, 8, {"fsdp": 8}),
        ("v5e:16x16", 256, 256, {"fsdp": 256}),
        ("v5p:4x4x4", 64, 64, {"fsdp": 64}),
        ("v6e:16x16", 256, 256, {"fsdp": 256}),
        ("tpu7x:2x2x1", 4, 8, {"fsdp": 8}),
        ("2xv5e:4x4", 32, 32, {"data": 2, "fsdp": 16}),
    ],
)
def test_pods(name, chips, devices, mesh):
    pod = topology.find(name)
    assert (pod.chips, len(pod.devices)) == (chips, devices)
    assert dict(pod.mesh((("fsdp", -1),)).shape) == mesh


@needs_libtpu
def test_options_that_the_compiler_does_not_know_are_left_out():
    device = topology.find("v5e:2x2").devices[0]
    wanted = {"xla_tpu_no_such_thing": "true", "xla_enable_async_all_gather": "true"}
    assert list(compiler.probed(wanted, device)) == ["xla_enable_async_all_gather"]
