"""A corpus is made whole, kept when it is finished, and refused when it cannot be."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import data_config
import pytest

from llm import config, files
from llm.corpus import file_source, runner, shards, storage
from llm.errors import InputError
from llm.workloads import prepare_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, prepare_data.run(data_config.make(), workdir)


def test_report_agrees_with_the_corpus(prepared):
    workdir, result = prepared
    assert result == json.loads((workdir / "prepare_data.json").read_text())
    manifest = storage.manifest(workdir / "corpus")
    everything = []
    for name, part in result["splits"].items():
        documents = storage.read(workdir / "corpus", name)
        everything += documents
        assert part["documents"] == len(documents) > 0
        assert part["bytes"] == sum(len(d.text.encode()) for d in documents)
        assert part["bytes"] == manifest["splits"][name]["text_bytes"]
        assert part["groups"] == sorted({d.group for d in documents})
    groups = [g for part in result["splits"].values() for g in part["groups"]]
    assert len(groups) == len(set(groups)), "a group was cut"
    assert [stage["name"] for stage in result["stages"]] == list(data_config.STAGES)
    first, last = result["stages"][0], result["stages"][-1]
    assert result["documents"] == first["documents_in"]
    assert last["documents_out"] == len(everything)
    dropped = sum(
        entry["documents"]
        for stage in result["stages"]
        for entry in stage["dropped"].values()
    )
    assert first["documents_in"] - dropped == len(everything)


def test_finished_corpus_is_kept(prepared):
    workdir, result = prepared
    before = {p: p.stat().st_mtime_ns for p in (workdir / "corpus").iterdir()}
    assert prepare_data.run(data_config.make(), workdir) == result
    assert before == {p: p.stat().st_mtime_ns for p in (workdir / "corpus").iterdir()}


def test_other_settings_do_not_overwrite(prepared):
    workdir, _ = prepared
    c = data_config.make()
    c.data.stage.minhash.threshold = 0.7
    c.data.test_fraction = 0.2
    with pytest.raises(InputError) as caught:
        prepare_data.run(c, workdir)
    text = str(caught.value)
    assert "data.test_fraction (0.1 there, 0.2 here)" in text
    assert "data.stage.minhash.threshold (0.8 there, 0.7 here)" in text
    assert "bands" not in text and "\n" not in text
    assert storage.manifest(workdir / "corpus")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"runner": "spark"}, "runner 'spark'"),
        ({"data.processes": -1}, "data.processes -1; want 0 or more"),
        ({"data.seconds": -1.0}, "seconds -1.0"),
        ({"data.stage.minhash.threshold": 3.0}, "threshold 3.0"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path, knobs, message):
    c = data_config.make()
    c.update_from_flattened_dict(knobs)
    with pytest.raises(InputError, match=message):
        config.check(c)
        prepare_data.run(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_corpus_is_reproducible(prepared, tmp_path):
    prepare_data.run(data_config.make(), tmp_path)
    hashes = {storage.manifest(f / "corpus")["hash"] for f in (tmp_path, prepared[0])}
    assert len(hashes) == 1


def test_corpus_of_another_run(prepared, tmp_path):
    c = data_config.make()
    c.data.corpus_dir = str(prepared[0])
    assert prepare_data.run(c, tmp_path) == {}
    assert not list(tmp_path.iterdir())
    c.data.corpus_dir = str(tmp_path)
    with pytest.raises(InputError, match="no corpus in"):
        prepare_data.run(c, tmp_path / "new")


def write_texts(folder, texts):
    folder.mkdir()
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_bytes(text)
    return str(folder)


WORDS = [" ".join(f"{w}{i}" for w in "abcdefgh").encode() for i in range(9)]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([*WORDS, b"\x7fELF\0\0"], "9.txt"),
        ([*WORDS, b"\xff\xfe"], "9.txt"),
        ([], "no text files"),
        ([b"", b" \n"], "no documents"),
        ([b"\x07", b"\x08"], "all dropped"),
        (WORDS[:2], "at least 3 groups"),
        ([WORDS[0]] * 5, "at least 3 groups"),
    ],
)
def test_bad_text_is_one_line_and_leaves_nothing(tmp_path, texts, words):
    c = data_config.make("text", path=write_texts(tmp_path / "in", texts))
    with pytest.raises(InputError, match=words) as caught:
        prepare_data.run(c, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").iterdir())


def test_folder_of_text(tmp_path):
    c = data_config.make("text", path=write_texts(tmp_path / "in", WORDS))
    result = prepare_data.run(c, tmp_path / "run")
    assert sum(part["documents"] for part in result["splits"].values()) == 9


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_disk_that_refuses(tmp_path, monkeypatch, code):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    c = data_config.make("text", path=write_texts(tmp_path / "in", WORDS))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=os.strerror(code)):
        prepare_data.run(c, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_workdir_under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="parents are folders"):
        prepare_data.run(data_config.make(), tmp_path / "file" / "run")


_SLOW = """
import sys, time
from llm import files
from llm.workloads import prepare_data
import data_config
flush = files._flush
def slow(file):
    print("writing", flush=True)
    time.sleep(0.2)
    flush(file)
files._flush = slow
prepare_data.run(data_config.make(max_documents=30), sys.argv[1])
"""


@pytest.mark.parametrize("writes", [1, 2, 4])
def test_killed_run_is_done_again_whole(tmp_path, writes):
    command = [sys.executable, "-c", _SLOW, str(tmp_path / "run")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        for _ in range(writes):
            assert process.stdout.readline() == "writing\n"
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not (tmp_path / "run" / "corpus").exists()
    with pytest.raises(InputError, match="no corpus in"):
        storage.read(tmp_path / "run" / "corpus", "train")
    c = data_config.make(max_documents=30)
    prepare_data.run(c, tmp_path / "run")
    assert storage.read(tmp_path / "run" / "corpus", "train")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"corpus", "data_card.html", "prepare_data.json"}


def finished(monkeypatch):
    """The markers that this process writes from now on."""
    done, finish = [], shards.finish
    monkeypatch.setattr(
        shards,
        "finish",
        lambda folder, name, counted: (
            done.append(folder / f"{name}.json"),
            finish(folder, name, counted),
        ),
    )
    return done


@pytest.mark.parametrize("write", [6, 9, 14])
def test_a_disk_that_fills_is_one_line_and_then_gone_on_with(
    prepared, tmp_path, monkeypatch, write
):
    real, count = os.fsync, 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count >= write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left") as caught:
            prepare_data.run(data_config.make(), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus").exists()
    kept = list((tmp_path / "work").glob("*/*.json"))
    assert kept, "what was finished is kept"
    done = finished(monkeypatch)
    prepare_data.run(data_config.make(), tmp_path)
    assert done and not {*done} & {*kept}, "nothing is done twice"
    hashes = {storage.manifest(f / "corpus")["hash"] for f in (tmp_path, prepared[0])}
    assert len(hashes) == 1 and not (tmp_path / "work").exists()


def test_a_second_start_leaves_the_first_its_steps(tmp_path):
    step = tmp_path / "work" / "normalise" / "00000.json"
    with files.lock(tmp_path / "work", "prepares a corpus"):
        step.parent.mkdir()
        step.write_text("{}")
        with pytest.raises(InputError, match="another process prepares a corpus"):
            prepare_data.run(data_config.make(), tmp_path)
        assert step.exists()


def many_files(folder, monkeypatch):
    """A config of files of which each is a part, and the third is the largest."""
    rng = random.Random(0)
    for n in range(4):
        texts = [f"{rng.getrandbits(4000):x}" for _ in range(200 if n == 2 else 20)]
        lines = [json.dumps({"id": f"{n}-{t[:9]}", "text": t}) for t in texts]
        (folder / f"{n}.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(file_source, "_PART_BYTES", 1)
    c = data_config.make("jsonl", path=str(folder))
    c.data.stages = ("normalise",)
    return c


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_in_any_process_keeps_what_was_finished(
    tmp_path, monkeypatch, processes
):
    (tmp_path / "in").mkdir()
    c = many_files(tmp_path / "in", monkeypatch)
    whole = prepare_data.run(c, tmp_path / "whole")
    c.data.processes = processes
    # A limit of files is inherited by other processes, as a disk is.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, before[1]))
    try:
        with pytest.raises(InputError, match="File too large") as caught:
            prepare_data.run(c, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    kept = list((tmp_path / "run/work").glob("*/*.json"))
    assert kept, "what was finished is kept"
    c.data.processes = 1
    done = finished(monkeypatch)
    assert prepare_data.run(c, tmp_path / "run")["hashes"] == whole["hashes"]
    assert done and not {*done} & {*kept}, "nothing is done twice"
    assert not (tmp_path / "run/work").exists()


def test_a_process_that_is_ended_keeps_what_was_finished(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    c = many_files(tmp_path / "in", monkeypatch)
    c.data.processes = 2

    def run(settings, processes):
        with runner.spread(processes, None, dict) as do:
            (settings.root / "read").mkdir()
            (settings.root / "read/part.json").write_text("{}")
            do("ending", {"a": (1,), "b": (1,)})

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("llm.corpus.runner._do", os._exit)
    with pytest.raises(InputError, match="a process that was ended"):
        prepare_data.run(c, tmp_path / "run")
    assert (tmp_path / "run/work/read/part.json").exists()


def rows(folder, count=40, **more):
    records = (
        {"text": f"words of text {n} " * 9, "site": f"s{n % 8}", "url": f"u{n}", **more}
        for n in range(count)
    )
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    c = data_config.make("jsonl", path=str(folder / "a.jsonl"))
    c.data.stages = ("exact_dedup",)
    return c


def test_files_that_changed_since_are_said(tmp_path, capsys):
    c = rows(tmp_path)
    made = prepare_data.run(c, tmp_path / "run")
    capsys.readouterr()
    assert prepare_data.run(c, tmp_path / "run") == made
    assert "files are others" not in capsys.readouterr().out
    rows(tmp_path, count=41)
    assert prepare_data.run(c, tmp_path / "run") == made
    assert "its files are others than when it was made" in capsys.readouterr().out
    (tmp_path / "a.jsonl").unlink()  # nor are they needed any more
    assert prepare_data.run(c, tmp_path / "run") == made


def test_a_field_that_no_record_has_splits_nothing(tmp_path):
    c = rows(tmp_path)
    with c.unlocked():
        c.data.source.group = "siet"
    with pytest.raises(InputError, match="'siet', which no document has"):
        prepare_data.run(c, tmp_path / "run")
    c.data.source.group = "site"
    made = prepare_data.run(c, tmp_path / "run")
    assert sum(part["group_count"] for part in made["splits"].values()) == 8


def test_fields_in_which_all_differ_are_not_told(tmp_path):
    made = prepare_data.run(rows(tmp_path, licence="MIT"), tmp_path / "run")
    assert "url" not in made["facts"]


@pytest.mark.parametrize(
    "place, name, value",
    [
        ("source", "max_documents", -5), ("source", "max_line_bytes", -1),
        ("gopher_quality", "least_words", -1),
        ("gopher_quality", "most_hashes", float("nan")),
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense(tmp_path, place, name, value):
    c = rows(tmp_path)
    if place != "source":
        c.data.stages = (place,)
        c.data.stage[place] = {}
    (c.data.source if place == "source" else c.data.stage[place])[name] = value
    with pytest.raises(InputError, match=f"{name} .*want 0 or more"):
        prepare_data.run(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()
