"""A run directory belongs to one config, and shows how another one differs."""

import json

import pytest

from llm import config, run_dir
from llm.errors import InputError

CONFIG = {"seed": 0, "mesh": (("data", -1),), "train": {"steps": 3, "rate": 0.1}}


def claim(folder, config=CONFIG):
    run_dir.claim(folder, config, device="cpu", devices=8)


def test_says_what_it_is(tmp_path):
    claim(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record == run_dir.load(tmp_path / "run")
    assert record["config"] == {**CONFIG, "mesh": [["data", -1]]}
    assert (record["device_kind"], record["devices"]) == ("cpu", 8)
    assert {"jax", "flax", "optax", "numpy"} <= set(record["versions"])
    assert set(record) >= {"git_commit", "python"}


def test_the_same_config_comes_back(tmp_path):
    claim(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    (tmp_path / "metrics.jsonl").write_text("")
    claim(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_config_is_refused_with_the_difference(tmp_path):
    claim(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = {"seed": 0, "mesh": (("data", 8),), "train": {"steps": 2, "rate": 0.1}}
    with pytest.raises(InputError) as caught:
        claim(tmp_path, other)
    text = str(caught.value)
    assert "train.steps (3 there, 2 here)" in text
    assert "rate" not in text and "seed" not in text and "mesh" not in text
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_goes_on_elsewhere_and_in_another_way(tmp_path, capsys):
    claim(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")
    other = CONFIG | {"mesh": (("data", 2), ("fsdp", 4))}
    claim(tmp_path, other)
    said = capsys.readouterr().out
    assert "mesh ([['data', -1]] there, [['data', 2], ['fsdp', 4]] here)" in said
    held = run_dir.load(tmp_path)["config"]
    assert held["mesh"] == [["data", 2], ["fsdp", 4]] and held["seed"] == 0
    claim(tmp_path, other)
    assert not capsys.readouterr().out


def test_fields_that_a_run_may_go_on_with_exist():
    known = config.base()
    for name in run_dir._HOW:
        part = known
        for key in name.split("."):
            assert key in part, name
            part = part[key]


def test_a_folder_in_which_nothing_was_made_is_free(tmp_path):
    claim(tmp_path)
    (tmp_path / ".corpus.partial").mkdir()
    claim(tmp_path, CONFIG | {"seed": 1})
    assert run_dir.load(tmp_path)["config"]["seed"] == 1


def test_prepared_data_outlives_a_training_that_did_not_begin(tmp_path):
    claim(tmp_path)
    for name in ("corpus", "tokens"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "prepare_data.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    claim(tmp_path, CONFIG | {"seed": 1})
    assert run_dir.load(tmp_path)["config"]["seed"] == 1
    (tmp_path / "checkpoints" / "5").mkdir()
    with pytest.raises(InputError, match="seed"):
        claim(tmp_path, CONFIG)


def test_fields_that_only_one_has():
    got = run_dir.differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}})
    assert got == ["a (1 there, None here)", "b.d (None there, 3 here)"]


@pytest.mark.parametrize(
    "content, message", [(None, "has no config.json"), ("{", "is not JSON")]
)
def test_what_is_not_a_run(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        run_dir.load(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        claim(tmp_path / "file" / "run")
