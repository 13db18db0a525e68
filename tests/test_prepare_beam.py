"""Apache Beam leaves what the local runner leaves, to the byte.

Needs the extra `beam`, in an environment of its own: launch/test_beam.sh. (The tests of
beams in generation are tests/test_beam_search.py.)
"""

import pytest
from test_runner import WEB, files, outcome, settings, shape  # noqa: F401

from llm import registry
from llm.corpus import beam_runner, file_source, runner
from llm.errors import InputError

STAGES = (*WEB, ("c4_lines", {}), ("exact_dedup", {}))


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(InputError, match="extra `beam`"):
        beam_runner.run(
            runner.Settings(tmp_path, {"name": "text", "path": __file__}, ())
        )


@pytest.mark.parametrize("name", ["direct", "processes"])
def test_what_the_local_runner_leaves(name, files, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("apache_beam")
    local = runner.run(settings(tmp_path / "local", files, STAGES))
    monkeypatch.setattr(file_source, "_PART_BYTES", 20_000)
    monkeypatch.setattr(beam_runner, "_CHUNK", 7)
    options = ["--runner=DirectRunner"]
    if name == "processes":
        options += ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    made = beam_runner.run(settings(tmp_path / "beam", files, STAGES), options)
    assert outcome(made) == outcome(local)
    assert len(made.names) > 10


@pytest.mark.parametrize("option", ["--runner=NoSuch", "--nonsense=3"])
def test_what_beam_does_not_take_is_one_line(option, tmp_path):
    pytest.importorskip("apache_beam")
    source = {"name": "text", "path": __file__}
    with pytest.raises(InputError, match="runner_options") as caught:
        beam_runner.run(runner.Settings(tmp_path, source, ()), [option])
    assert "\n" not in str(caught.value)


def test_bad_input_of_a_worker_is_one_line(tmp_path):
    pytest.importorskip("apache_beam")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "odd.txt").write_bytes(b"a\0b")
    source = {"name": "text", "path": str(tmp_path / "texts")}
    with pytest.raises(InputError, match="a binary file") as caught:
        beam_runner.run(runner.Settings(tmp_path / "beam", source, ()))
    assert "\n" not in str(caught.value) and "while running" not in str(caught.value)


def test_every_stage(tmp_path):
    pytest.importorskip("apache_beam")
    source = {"name": "stdlib", "max_documents": 40}
    stages = []
    for name in registry.choices("stages"):
        if name in ("language", "label", "functions", "python_tokens"):
            continue
        knobs = dict(registry.module("stages", name).TINY)
        stages.append((name, knobs))
    local = runner.run(runner.Settings(tmp_path / "local", source, stages))
    made = beam_runner.run(runner.Settings(tmp_path / "beam", source, stages))
    assert outcome(made) == outcome(local)
