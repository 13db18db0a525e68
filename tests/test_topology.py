"""Pods by name; and the real step compiled for one, where libtpu is installed."""

import pathlib
import types

import numpy as np
import pytest

from llm import config
from llm.errors import InputError
from llm.planning import aot, budget, compiler_options, flops, topology
from llm.precision import Policy

CONFIGS = str(pathlib.Path(__file__).parent.parent / "configs" / "plan.py")
needs_libtpu = pytest.mark.skipif(
    not topology.available(), reason="libtpu is not installed: pip install .[tpu]"
)


@pytest.mark.parametrize("name", ["v5e", "v5e:4", "v5x:4x4", "v5p:4x4", "x v5e:4x4"])
def test_unknown_names(name):
    with pytest.raises(InputError, match="want a slice such as v4:2x2x2"):
        topology.find(name)


def test_no_options_but_on_a_tpu():
    assert compiler_options.options(Policy("bfloat16", "cpu")) == {}
    assert compiler_options.options(Policy("bfloat16", "gpu", 8, "NVIDIA H100")) == {}


def test_what_a_compiler_does_not_know_is_named():
    policy = Policy("bfloat16", "tpu", 4, "TPU v5 lite")
    name, *others = compiler_options.OPTIONS[r"tpu.*"]
    assert compiler_options.left_out(policy, dict.fromkeys(others, "true")) == [name]
    assert compiler_options.left_out(Policy("bfloat16", "cpu"), {}) == []


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
    pod = types.SimpleNamespace(mesh=lambda axes: budget.planned_mesh(axes, 4))
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
    assert list(compiler_options.probed(wanted, device)) == [
        "xla_enable_async_all_gather"
    ]


@pytest.mark.parametrize(
    "said, lacking",
    [
        ("Ran out of memory on HBM, the total memory required for HLO temporaries "
         "(29.50G) exceeds available HBM (15.75G).", 29.5 - 15.75 + 0.5),
        ("Ran out of memory in memory space hbm. Used 20.0G of 15.75G hbm. Exceeded "
         "hbm capacity by 4.25G.", 4.25),
        ("Out of something else.", None),
    ],
)  # fmt: skip
def test_by_how_much_a_step_does_not_fit(said, lacking):
    chip = flops.CHIPS["v5e"]
    pod = types.SimpleNamespace(chip=chip)
    found = aot._too_large(f"RESOURCE_EXHAUSTED: {said}\nmore", 2**29, pod)
    assert found["why"] == f"RESOURCE_EXHAUSTED: {said}" and not found["fits"]
    spare = found["spare_bytes"]
    assert spare == (None if lacking is None else pytest.approx(-lacking * 2**30))


@needs_libtpu
def test_a_step_that_does_not_fit():
    c = config.load(CONFIGS, "1b")
    c.model.update(layers=4, remat="none")
    pod = topology.find("v5e:2x2")
    found = aot.compiled(aot.placed(c, pod, 16), pod)
    assert not found["fits"] and 5 * 2**30 < -found["spare_bytes"] < 9 * 2**30
    assert found["largest"][0]["name"] == "forward Llama/stack"
    kept = [x["shape"] for x in found["largest"]]
    assert "bfloat16[4,64,2048,8192]" in kept  # of all layers and devices
