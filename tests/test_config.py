"""Argument strings, sibling configs, and the base config itself."""

import inspect
import json
import math
import pathlib
import re
import sys
from typing import Annotated, Literal

import pytest

from llm import config, knobs, registry
from llm.errors import InputError

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def test_arguments_take_the_type_of_their_default():
    arg = config.parse_arg("layers=3,rate=1e-2,debug,name=x", layers=1, rate=0.5,
                           debug=False, name="", other=7)  # fmt: skip
    assert arg.to_dict() == {
        "layers": 3, "rate": 0.01, "debug": True, "name": "x", "other": 7,
    }  # fmt: skip
    for text, value in (("true", True), ("1", True), ("False", False), ("0", False)):
        assert config.parse_arg(f"debug={text}", debug=False).debug is value
    assert config.parse_arg(None, debug=False).debug is False
    assert config.parse_arg("", debug=True).debug is True
    assert config.parse_arg("path=a=b", path="").path == "a=b"


@pytest.mark.parametrize(
    "text, shown",
    [
        (
            "layer=3",
            "config argument 'layer'; want layers, debug (did you mean 'layers'?)",
        ),
        ("layers=many", "config argument layers='many'; want a int"),
        ("layers=", "config argument layers=''"),
        ("layers", "config argument layers='true'"),
        ("debug=2", "config argument debug='2'; want a bool"),
    ],
)
def test_bad_arguments(text, shown):
    with pytest.raises(InputError) as caught:
        config.parse_arg(text, layers=1, debug=False)
    assert shown in str(caught.value)


def test_load_a_sibling():
    c = config.load(str(CONFIGS / "plan.py"), "1b")
    assert c.model.name == "llama"
    with pytest.raises(InputError, match=r"one of 125m, 1b, .*did you mean '1b'"):
        config.load(str(CONFIGS / "plan.py"), "1bb")


def test_a_size_and_a_folder_of_one_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1b").mkdir()
    with pytest.raises(InputError, match=r"model=\./1b"):
        config.load(str(CONFIGS / "x"), "sft", "model=1b")
    c = config.load(str(CONFIGS / "x"), "sft", "model=./1b")
    assert c.init_from == "./1b"


@pytest.mark.parametrize("cls", config.sections(), ids=lambda cls: cls.__name__)
def test_every_field_has_a_comment_and_a_default_in_its_bounds(cls):
    """A comment stands above each field, or above the run of fields it is for."""
    lines = inspect.getsource(cls).splitlines()
    fields = [n for n, line in enumerate(lines) if re.match(r"    \w+: ", line)]
    first = lines[fields[0] - 1].strip()
    assert first.startswith("#"), first
    assert cls.__doc__.strip().endswith(".")
    knobs.check(cls.PATH, cls, vars(cls()))


def test_the_reference_is_up_to_date():
    sys.path.insert(0, str(CONFIGS.parent / "docs"))
    import config_reference

    assert config_reference.PAGE.read_text("utf-8") == config_reference.page(), (
        "run python docs/config_reference.py"
    )


@knobs.section("some")
class Some:
    """Bounds of every form."""

    share: knobs.Share = 0.5
    part: knobs.Between0And1 = 0.5
    count: knobs.Count = 0
    way: Literal["up", "down"] = "up"
    bits: Annotated[int, knobs.Range(2, 8)] = 4


@pytest.mark.parametrize(
    "values, said",
    [
        ({"share": 1.5}, "some.share 1.5; want from 0 to 1"),
        ({"share": math.nan}, "some.share nan; want from 0 to 1"),
        ({"part": 1.0}, "some.part 1.0; want above 0 and below 1"),
        ({"count": -1}, "some.count -1; want 0 or more"),
        ({"way": "dwn"}, "some.way 'dwn'; want one of up, down .did you mean 'down'"),
        ({"bits": 9}, "some.bits 9; want from 2 to 8"),
        ({"share": 1.0, "part": 0.1, "count": 10**9, "way": "down", "bits": 2}, ""),
    ],
)
def test_bounds(values, said):
    if not said:
        return knobs.check("some", Some, values)
    with pytest.raises(InputError, match=said):
        knobs.check("some", Some, values)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"objective.z_loss": -1.0}, "objective.z_loss -1.0; want 0 or more"),
        ({"data.stage.minhash.bands": 0}, "data.stage.minhash.bands 0; want 1 or more"),
        ({"model.heads": 0}, "model.heads 0; want 1 or more"),
        ({"generate.top_p": 0.0}, "generate.top_p 0.0; want above 0 and at most 1"),
        ({"data.mixture.temperature": 0.0}, "data.mixture.temperature 0.0; want above"),
        ({"workload": "serve"}, "without the section serve, with the workload serve"),
    ],
)
def test_a_config_is_checked_before_it_runs(change, said):
    c = config.load(str(CONFIGS / "x"), "quickstart")
    config.check(c)
    c.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=said):
        config.check(c)


def test_a_config_holds_the_sections_of_its_workload_alone():
    c = config.base("serve")
    assert set(c) == {"workload", "seed", "serve"}
    config.extend(c, "selftest")
    assert c.workload == "selftest" and c.generate.prompts and set(c.serve)
    assert "sweep" not in config.base("pipeline")


def test_base_holds_no_none_and_no_list():
    """Neither can be overridden from the command line."""

    def check(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, f"{path}.{key}")
        else:
            assert isinstance(value, (bool, int, float, str, tuple)), path

    check(config.base().to_dict(), "c")


def test_base_takes_the_defaults_of_the_plug_ins():
    c = config.base()
    for folder, entry in (("models", c.model), ("objectives", c.objective)):
        assert entry.to_dict() == registry.spec(folder, entry.name)


# A rate that grows in three steps says nothing.
STEPS = {"lr_range": 20}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_config_has_a_debug_form(path, tmp_path):
    of = ""
    if path.stem == "again":
        held = {"config": config.load(str(path), "quickstart").to_dict()}
        (tmp_path / "config.json").write_text(json.dumps(held))
        of = f"run={tmp_path}"
    c = config.load(str(path), path.stem, f"{of},debug".strip(","))
    assert c.workload in registry.choices("workloads")
    full = config.load(str(path), path.stem, of)
    assert full.workload == c.workload
    c, full = c.get("trial", c), full.get("trial", full)
    if "train" not in c:
        assert "train" not in full
        return
    assert c.train.steps == STEPS.get(path.stem, 3)
    assert not c.train.tokens and not c.train.epochs
    # The same structure, whatever the size.
    assert sorted(full.model) == sorted(c.model)
    given = [bool(full.train[name]) for name in ("steps", "tokens", "epochs")]
    assert sum(given) == 1 or full.workload == "convert"


def test_the_config_of_a_run_comes_back(tmp_path):
    """Types and tuples survive JSON; fields that are newer have their defaults."""
    c = config.load(str(CONFIGS / "x"), "quickstart")
    c.data.mixture.weights = (("prose", 1.0), ("code", 2.0))
    c.optimizer.learning_rate = 1.0
    held = json.loads(json.dumps(c.to_dict()))
    del held["train"]["patience"], held["plan"], held["optimizer"]["base_width"]
    (tmp_path / "config.json").write_text(json.dumps({"config": held}))
    for path in (tmp_path, tmp_path / "config.json"):
        found = config.of_run(str(path))
        assert found.to_dict() == c.to_dict()
        assert type(found.optimizer.learning_rate) is float
    with pytest.raises(InputError, match=r"no config\.json"):
        config.of_run(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ("quickstart", "dpo", "grpo", "lifecycle", "serve"))
def test_an_older_config_has_new_fields_at_their_defaults(name):
    """Else a run that is older than a field could not be resumed."""
    arg = "model=quickstart" if name == "grpo" else None
    whole = json.loads(json.dumps(config.load("configs/x", name, arg).to_dict()))
    older = json.loads(json.dumps(whole))
    for path in (
        "evaluate.task.perplexity", "evaluate.task.generation.point", "train.spike",
        "rollouts.reward.length", "objective.clip_low", "objective.form", "preview",
        "serve.port",
    ):  # fmt: skip
        *folders, last = path.split(".")
        place = older
        for folder in folders:
            place = place.get(folder, {})
        place.pop(last, None)
    assert json.loads(json.dumps(config.with_new_fields(older, whole))) == whole
