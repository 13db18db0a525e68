"""Plug-ins are found by file name, and knobs are checked against make()."""

import pathlib

import pytest

import llm
from llm import registry
from llm.errors import InputError

SOURCE = pathlib.Path(llm.__file__).parent
FOLDERS = ("models", "objectives", "evals", "sources", "stages")


@pytest.mark.parametrize("folder", [*FOLDERS, "workloads"])
def test_choices_are_the_files(folder):
    files = {p.stem for p in (SOURCE / folder).iterdir() if p.suffix == ".py"}
    assert set(registry.choices(folder)) == files - {"__init__"}
    assert list(registry.choices(folder)) == sorted(registry.choices(folder))


@pytest.mark.parametrize(
    "folder, name", [(f, n) for f in FOLDERS for n in registry.choices(f)]
)
def test_every_plug_in_has_make_and_tiny(folder, name):
    module = registry.module(folder, name)
    knobs = registry.defaults(module.make)
    assert set(module.TINY) <= set(knobs)
    assert registry.spec(folder, name) == {"name": name, **knobs}
    for knob, value in module.TINY.items():
        assert type(value) is type(knobs[knob]), knob


@pytest.mark.parametrize("name", registry.choices("workloads"))
def test_every_workload_runs(name):
    assert registry.build("workloads", name) is registry.module("workloads", name).run


def test_defaults_are_the_literal_ones():
    def make(*, size: int, rate=0.5, name="x", flag=False, axes=(1,), given=None):
        raise AssertionError

    assert registry.defaults(make) == {
        "rate": 0.5, "name": "x", "flag": False, "axes": (1,),
    }  # fmt: skip


def test_build_gives_knobs_and_what_code_supplies():
    model = registry.build(
        "models", {"name": "llama", "layers": 3, "width": 64}, vocab_size=256
    )
    assert (model.layers, model.width, model.vocab_size) == (3, 64, 256)
    assert model.cfg.heads == registry.spec("models", "llama")["heads"]
    spec = {"name": "llama", "layers": 3}
    registry.build("models", spec, vocab_size=256)
    assert spec == {"name": "llama", "layers": 3}  # not taken apart


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: registry.module("models", "lama"), "did you mean 'llama'?"),
        (lambda: registry.build("objectives", "causal"), "one of causal_lm"),
        (lambda: registry.spec("models", "llama", layer=2), "did you mean 'layers'?"),
        (
            lambda: registry.build("models", {"name": "llama", "vocab_size": 3}),
            "knob 'vocab_size' for models 'llama'",
        ),
        (
            lambda: registry.module("models", "../models/llama"),
            "want one of bert, g",
        ),
    ],
)
def test_errors_name_the_choices(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
