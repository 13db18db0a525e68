"""A life cycle of two steps that need no training: order, resuming, the page."""

import json

import pytest
from ml_collections import ConfigDict

from llm import config, registry
from llm.errors import InputError
from llm.workloads import lifecycle

CALLS = []


def life(order=("one", "two")):
    c = config.base("lifecycle")
    c.order = order
    c.runs = ConfigDict()
    for name in ("one", "two"):
        c.runs[name] = config.base()
        c.runs[name].workload = "prepare_data"
    c.runs.two.data.corpus_dir = "{workdir}/one"
    return c


@pytest.fixture
def recorded(monkeypatch):
    CALLS.clear()

    def run(c, workdir):
        CALLS.append((workdir, c.data.corpus_dir))
        if c.data.corpus_dir == "stop":
            raise InputError(got="a stop", want="none")

    monkeypatch.setattr(registry.module("workloads", "prepare_data"), "run", run)


def test_in_order_each_in_its_directory(recorded, tmp_path):
    lifecycle.run(life(), str(tmp_path))
    assert [
        (f"{tmp_path}/one", ""),
        (f"{tmp_path}/two", f"{tmp_path}/one"),
    ] == CALLS
    assert set(json.loads((tmp_path / "lifecycle.json").read_text())["seconds"]) == {
        "one", "two",
    }  # fmt: skip
    page = (tmp_path / "lifecycle.html").read_text()
    assert "2 of 2 steps" in page and page.index(">one<") < page.index(">two<")


def test_what_is_done_is_not_done_again(recorded, tmp_path, capsys):
    c = life()
    c.runs.two.data.corpus_dir = "stop"
    for _ in range(2):
        with pytest.raises(InputError, match="a stop"):
            lifecycle.run(c, str(tmp_path))
    assert [name.rpartition("/")[2] for name, _ in CALLS] == ["one", "two", "two"]
    assert "one: done before" in capsys.readouterr().out
    assert "1 of 2 steps" in (tmp_path / "lifecycle.html").read_text()


def test_time_is_that_of_all_attempts(recorded, tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(lifecycle.time, "perf_counter", lambda: next(clock))
    c = life()
    c.runs.two.data.corpus_dir = "stop"
    for _ in range(2):
        with pytest.raises(InputError, match="a stop"):
            lifecycle.run(c, str(tmp_path))
    held = json.loads((tmp_path / "lifecycle.json").read_text())
    assert held["seconds"] == {"one": 10} and held["unfinished"] == {"two": 20}
    c.runs.two.data.corpus_dir = ""
    (tmp_path / "config.json").unlink(missing_ok=True)
    lifecycle.run(c, str(tmp_path))
    held = json.loads((tmp_path / "lifecycle.json").read_text())
    assert held == {"seconds": {"one": 10, "two": 30}, "unfinished": {}}


def test_figures_are_those_of_the_runs(recorded, tmp_path):
    c = life()
    (tmp_path / "one").mkdir(parents=True)
    (tmp_path / "one" / "train.json").write_text('{"parameters": 1234567}')
    (tmp_path / "one" / "report.html").write_text("x")
    before = {"bits": 800, "perplexity": 3.0, "tokens_per_s": 2.0}
    told = {"method": {"name": "int8"}, "before": before, "after": before | {"bits": 8}}
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "compress.json").write_text(json.dumps(told))
    lifecycle.run(c, str(tmp_path))
    page = (tmp_path / "lifecycle.html").read_text()
    for text in ("1,234,567", 'href="one/report.html"', "int8", "100 B", "<td>1 B<"):
        assert text in page, text


@pytest.mark.parametrize("order", [(), ("one", "three")])
def test_refused(order, tmp_path):
    with pytest.raises(InputError, match="a config for each"):
        lifecycle.run(life(order), str(tmp_path))
    assert not list(tmp_path.iterdir())
