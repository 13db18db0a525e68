"""Runners apply the three kinds in order, their counts add up, and nothing is lost."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import data_config
import numpy as np
import pytest

from llm.corpus import apply_stage, file_source, runner, shard_tasks
from llm.document import Document, Group, Map, Match, Tag
from llm.errors import InputError
from llm.text import hashing


def documents(texts):
    return [Document(i, t, "s", "g", "prose", len(t)) for i, t in texts.items()]


def lengths(document):
    return np.array([[len(document.text)]], np.uint8)


def same_length(rows):
    return [Match(n, 0, "same length") for n in range(1, len(rows))]


PAIR = Group(1, lengths, lambda rows: rows.astype(np.uint64), same_length)
STAGES = [
    ("cut", Map(lambda d: [d] if "é" in d.text else [])),
    (
        "short",
        Tag(
            lambda d: {"length": float(len(d.text))},
            lambda scores: "under 3" if scores["length"] < 3 else "",
        ),
    ),
    ("pair", PAIR),
]


def test_counts_of_a_written_out_case():
    result = data_config.through(
        STAGES, documents({"a": "éab", "b": "abc", "c": "é", "d": "écd", "e": "éabcd"})
    )
    assert [d.id for d in result.documents] == ["a", "e"]
    assert result.links == [("a", "d")]
    cut, short, pair = result.counts
    assert cut == {
        "name": "cut", "documents_in": 5, "documents_out": 4,
        "bytes_in": 4 + 3 + 2 + 4 + 6, "bytes_out": 16,
        "dropped": {
            "no text left": {"documents": 1, "bytes": 3, "examples": [["b", "abc"]]}
        },
        "removed": {}, "kept": {"s": {"": [4, 16]}}, "scores": {}, "scored": 0,
    }  # fmt: skip
    assert short["dropped"] == {
        "under 3": {"documents": 1, "bytes": 2, "examples": [["c", "é"]]}
    }
    # Of lengths 3, 1, 3, 5.
    assert short["scores"] == {
        "length": {"documents": 4, "10%": 1.0, "50%": 3.0, "90%": 5.0, "most": 5.0}
    }
    assert (pair["documents_in"], pair["documents_out"]) == (3, 2)
    assert pair["dropped"]["same length"]["examples"] == [["d", "écd"]]
    assert pair["clusters"] == 1 and pair["largest"] == [[2, "a", "éab"]]


def test_a_link_without_a_reason_drops_nothing():
    def reduce(rows):
        return [Match(1, 0, "")]

    stage = Group(1, lengths, lambda rows: np.zeros((len(rows), 1), np.uint64), reduce)
    result = data_config.through([("link", stage)], documents({"a": "x", "b": "y"}))
    assert len(result.documents) == 2 and result.links == [("a", "b")]
    assert result.counts[0]["dropped"] == {}


def test_map_may_make_several():
    stage = Map(lambda d: documents({d.id + "1": "x", d.id + "2": "yy"}))
    result = data_config.through([("two", stage)], documents({"a": "abc"}))
    assert [d.id for d in result.documents] == ["a1", "a2"]
    assert result.counts[0]["bytes_out"] == 3


def test_three_examples_at_most():
    stage = Map(lambda d: [])
    result = data_config.through(
        [("none", stage)], documents(dict.fromkeys("abcde", "x"))
    )
    assert result.counts[0]["dropped"]["no text left"] == {
        "documents": 5, "bytes": 5, "examples": [["a", "x"], ["b", "x"], ["c", "x"]],
    }  # fmt: skip


def test_a_group_may_take_parts_out():
    """Lines that stood in an earlier document, or earlier in the same one."""

    def cut(document, parts):
        lines = document.text.split("\n")
        left = [line for n, line in enumerate(lines) if n not in parts]
        return documents({document.id: "\n".join(left)})[0] if left else None

    stage = Group(
        hashing.SIZE,
        lambda d: hashing.rows(d.text.split("\n")),
        hashing.keys,
        lambda rows: hashing.same(rows, "line"),
        cut,
    )
    given = {"a": "x\ny\nx", "b": "y\nz", "c": "z\nx", "d": "new"}
    result = data_config.through([("lines", stage)], documents(given))
    left = {d.id: d.text for d in result.documents}
    assert left == {"a": "x\ny", "b": "z", "d": "new"}
    (count,) = result.counts
    assert count["removed"] == {"line": 4}
    assert count["dropped"]["line"]["examples"] == [["c", "z x"]]
    assert result.links == []  # what is alike is gone


def test_one_document_never_ends_the_run():
    def fail(document):
        if document.id == "b":
            raise RecursionError("too deep for jane@mail.org")
        if document.id == "c":
            time.sleep(5)
        return [document] if isinstance(document, Document) else {}

    given = documents({"a": "x", "b": "y", "c": "z"})
    for stage in (
        Map(fail),
        Tag(lambda d: {"x": float(len(fail(d)))}, lambda scores: ""),
        Group(1, lambda d: fail(d) and lengths(d), PAIR.keys, lambda rows: []),
    ):
        named = [apply_stage.Named("stage", {}, stage)]
        with data_config.folder() as root:
            work = runner.make_work(root, lambda skip: iter(given), "key", named, 0.2)
            result = runner.through(work)
            assert [d.id for d in result.documents()] == ["a"]
        assert result.counts[0]["dropped"] == {
            "the stage failed: RecursionError": {
                "documents": 1, "bytes": 1, "examples": [["b", "y"]]},
            "took longer than 0.2 s": {
                "documents": 1, "bytes": 1, "examples": [["c", "z"]]},
        }  # fmt: skip


def test_bad_settings_do_end_it():
    def wrong(document):
        raise InputError(got="a", want="b")

    with pytest.raises(InputError, match="got a; want b"):
        data_config.through([("wrong", Map(wrong))], documents({"a": "x"}))


# From here on: a corpus of files, several shards, real stages.

WEB = (
    ("normalise", {}), ("gopher_quality", {"least_words": 60}), ("fineweb", {}),
    ("pii", {}), ("exact_dedup", {}), ("minhash", {"bands": 12}),
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = random.Random(0)
    vocabulary = [f"{a}{b}ing" for a in "bcdfghklm" for b in "aeiou"]
    vocabulary += ["the", "of", "and", "to"] * 2
    texts = []
    for _ in range(90):
        sentences = [
            " ".join(rng.choices(vocabulary, k=rng.randrange(3, 14))).capitalize() + "."
            for _ in range(rng.randrange(2, 30))
        ]
        texts.append(" ".join(sentences) + f" Ask ann{rng.randrange(5)}@mail.org.")
    texts += rng.choices(texts, k=20)
    texts += [t.replace("the", "THE") + " End." for t in rng.choices(texts, k=20)]
    for n in range(5):
        rows = [{"id": f"{n}-{i}", "text": t} for i, t in enumerate(texts[n::5])]
        rows.append({"id": f"{n}-0", "text": "seen before"})
        lines = [json.dumps(row) for row in rows]
        (folder / f"{n}.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    return folder


def settings(root, files, stages=WEB, **more):
    source = {"name": "jsonl", "path": str(files), **more}
    return runner.Settings(root, source, stages)


def shape(monkeypatch):
    """Small shards, parts and shares, so that there are several of each."""
    monkeypatch.setattr(shard_tasks, "_SHARD_BYTES", 8000)
    monkeypatch.setattr(file_source, "_PART_BYTES", 20_000)
    monkeypatch.setattr("llm.corpus.group_match._KEYS", 200)


def outcome(result):
    content = [*result.documents(), result.counts, result.skipped, result.given]
    return content, result.links.tolist()


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """The outcome as one shard in one process."""
    return outcome(runner.run(settings(tmp_path_factory.mktemp("whole"), files)))


def test_shards_do_not_matter(files, tmp_path, monkeypatch, whole):
    shape(monkeypatch)
    result = runner.run(settings(tmp_path, files))
    assert len(result.names) > 8 and outcome(result) == whole
    assert result.skipped["id seen before"]["documents"] == 5
    assert result.skipped["not JSON"]["documents"] == 5
    dropped = [
        sum(e["documents"] for e in c["dropped"].values()) for c in result.counts
    ]
    assert all(dropped[n] for n in (1, 4, 5)), "the test could not fail"


def test_two_processes_do_what_one_does(files, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(file_source, "_PART_BYTES", 20_000)
    assert outcome(runner.run(settings(tmp_path, files), processes=2)) == whole


def test_bad_input_in_another_process_is_one_line(files, tmp_path, monkeypatch):
    monkeypatch.setattr(file_source, "_PART_BYTES", 1)
    source = {"name": "text", "path": str(files)}
    (files / "odd.bin").write_bytes(b"\0")
    try:
        with pytest.raises(InputError, match="a binary file"):
            runner.run(runner.Settings(tmp_path, source, ()), processes=2)
    finally:
        (files / "odd.bin").unlink()


class Killed(BaseException):
    """What SIGKILL would be: nothing catches it."""


def test_an_end_at_any_task_is_gone_on_from(files, tmp_path, monkeypatch, whole):
    """Ended in each task in turn, begun or done but for its marker; then whole."""
    shape(monkeypatch)
    done = []
    finish = shard_tasks.shards.finish

    def ending(folder, name, counted):
        place = f"{folder.name}/{name}"
        assert place not in done, "done twice"
        if len(done) == limit:
            raise Killed
        finish(folder, name, counted)
        done.append(place)

    monkeypatch.setattr(shard_tasks.shards, "finish", ending)
    limit, ends = 0, 0
    while True:
        try:
            result = runner.run(settings(tmp_path, files))
            break
        except Killed:
            limit, ends = len(done) + 1 + ends % 5, ends + 1
    assert ends > 20 and outcome(result) == whole


_KILLED = """
import pathlib, sys
from llm.corpus import file_source, runner
file_source._PART_BYTES = 20_000
stages = {stages!r}
if __name__ == "__main__":
    settings = runner.Settings(
        pathlib.Path(sys.argv[1]), dict(name="jsonl", path=sys.argv[2]), stages
    )
    print("begun", flush=True)
    runner.run(settings, processes=2)
"""


@pytest.mark.parametrize("seconds", [0.8, 1.4, 2.0])
def test_killed_processes_are_gone_on_from(
    files, tmp_path, whole, monkeypatch, seconds
):
    script = tmp_path / "run.py"
    script.write_text(_KILLED.format(stages=WEB))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "work", files],
        env=env, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    monkeypatch.setattr(file_source, "_PART_BYTES", 20_000)
    assert outcome(runner.run(settings(tmp_path / "work", files))) == whole


def test_a_changed_threshold_scores_nothing_again(files, tmp_path, monkeypatch):
    shape(monkeypatch)
    strict = [(name, knobs | {"least_words": 90} if "gopher" in name else knobs)
              for name, knobs in WEB]  # fmt: skip
    alone = outcome(runner.run(settings(tmp_path / "alone", files)))
    runner.run(settings(tmp_path / "both", files, strict))
    scored = []
    score = apply_stage.scored
    monkeypatch.setattr(
        apply_stage,
        "scored",
        lambda s, d, t: scored.append((s, d.id)) or score(s, d, t),
    )
    result = runner.run(settings(tmp_path / "both", files))
    assert outcome(result) == alone
    dropped = [
        sum(e["documents"] for e in c["dropped"].values()) for c in result.counts
    ]
    # Gopher's rules scored all before; FineWeb's only what the stricter ones kept.
    assert len({stage for stage, _ in scored}) == 1
    assert 0 < len(scored) < result.given["documents"] - dropped[1]
    scored.clear()
    runner.run(settings(tmp_path / "both", files, strict))
    assert not scored


def test_a_changed_file_is_another_source(files, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in files.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first = outcome(runner.run(settings(tmp_path / "work", copy)))
    with (copy / "4.jsonl").open("a") as file:
        file.write(json.dumps({"id": "more", "text": "Some more of it. " * 20}) + "\n")
    second = outcome(runner.run(settings(tmp_path / "work", copy, stages=WEB[:1])))
    assert second[0][-1]["documents"] == first[0][-1]["documents"] + 1


def test_a_file_of_the_same_size_that_was_written_again_is_another_source(tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in/a.jsonl"
    made = []
    for word in ("first", "other"):
        file.write_text(json.dumps({"id": "a", "text": word}))
        os.utime(file, ns=(0, len(made)))
        result = runner.run(settings(tmp_path / "work", tmp_path / "in", ()))
        made += [document.text for document in result.documents()]
    assert made == ["first", "other"]


def test_ids_are_taken_once():
    given = [*documents({"a": "x", "b": "z"}), *documents({"a": "y"})]
    with data_config.folder() as root:
        result = runner.through(
            runner.make_work(root, lambda skip: iter(given), "key", [])
        )
        assert [d.text for d in result.documents()] == ["x", "z"]
    assert result.skipped == {"id seen before": {"documents": 1, "examples": ["a"]}}
    del result.given["digest"]
    assert result.given == {"documents": 2, "raw_bytes": 2}


def test_texts_come_back_as_they_were(tmp_path):
    texts = {"a": "\ud800 half, \x00, \u2028 and\r\nmore", "b": "", "c": "\U0001f600\n"}
    given = documents(texts)
    work = runner.make_work(pathlib.Path(tmp_path), lambda skip: iter(given), "key", [])
    assert list(runner.through(work).documents()) == given


class Halves:
    """A source that says itself how it is dealt out."""

    def __call__(self, skip):
        return [*self.read_part("ab", skip), *self.read_part("cd", skip)]

    def fingerprint(self):
        return "halves"

    def parts(self, skip):
        skip("empty", "e")
        return ["ab", "cd"], ["version 1"]

    def read_part(self, part, skip):
        return [Document(id, id, "halves", id, "prose", 1) for id in part]


def test_a_source_declares_its_parts(tmp_path):
    source = Halves()
    parts, key, skipped = runner.parts_of(source, {"name": "halves"}, "")
    assert parts == ["ab", "cd"] and skipped["empty"]["documents"] == 1
    work = runner.make_work(tmp_path, source, key, [])
    result = runner.through(work, parts, skipped)
    assert list(result.documents()) == source(None) and len(result.names) == 2
    whole, other, _ = runner.parts_of(lambda skip: source(skip), {"name": "halves"}, "")
    assert whole == [None] and other != key
