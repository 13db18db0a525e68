"""Items of an examination are found in a corpus, each and only where they are."""

import json
import pathlib
import random
import re
import subprocess
import sys

import pytest

from llm.corpus import contamination
from llm.corpus.contamination import Index
from llm.document import Document
from llm.errors import InputError
from llm.stages import decontaminate

ROOT = pathlib.Path(__file__).parent.parent
WORDS = [f"w{n}" for n in range(200)]


def plain(text, item, words=13):
    """The definition: how many places of the text hold a run of the item."""
    own = re.findall(r"[a-z0-9]+", item.lower())
    length = min(words, len(own))
    runs = {tuple(own[n : n + length]) for n in range(len(own) - length + 1)}
    held = re.findall(r"[a-z0-9]+", text.lower())
    return sum(tuple(held[n : n + length]) in runs for n in range(len(held)))


def test_equals_the_definition():
    rng = random.Random(0)
    items = {f"i{n}": " ".join(rng.choices(WORDS, k=rng.randrange(8, 60)))
             for n in range(60)}  # fmt: skip
    index = Index(items.items())
    seen = 0
    for _ in range(150):
        text = rng.choices(WORDS, k=rng.randrange(0, 40))
        for _ in range(rng.randrange(3)):  # parts of items, some too short
            own = rng.choice(list(items.values())).split()
            start = rng.randrange(len(own))
            text += own[start : start + rng.randrange(5, 40)]
        text = ", ".join(word.upper() for word in text)
        want = {id: plain(text, item) for id, item in items.items()}
        assert index.found(text) == {id: n for id, n in want.items() if n}
        seen += any(want.values())
    assert 40 < seen < 140


def test_short_items_and_common_runs():
    instruction = (
        "read the text and answer the question that follows in one word please"
    )
    items = [(f"q{n}", f"{instruction} please case number {n}") for n in range(12)]
    index = Index([*items, ("tiny", "what is this")])
    assert index.short == 1 and len(index.items) == 12
    assert index.found(instruction) == {}
    assert index.found(f"so: {instruction} please case number 7!") == {"q7": 1}
    with pytest.raises(InputError, match="none of 8 words"):
        Index([("tiny", "what is this")])
    with pytest.raises(InputError, match="8 or more"):
        Index(items, words=3)


@pytest.fixture
def folder(tmp_path):
    asked = {"question": " ".join(WORDS[:20]), "choices": ["a b", "c d"], "n": 3}
    made = tmp_path / "items"
    made.mkdir()
    (made / "a.jsonl").write_text(json.dumps(asked) + "\n\n")
    (made / "b.txt").write_text("\n" + " ".join(WORDS[100:120]) + "\n")
    return made


def test_the_stage_drops_what_holds_them(folder):
    stage = decontaminate.make(path=str(folder), least=2)

    def decided(words):
        text = "Some words before. " + ", ".join(words) + " and after."
        return stage.decide(stage.score(Document("d", text, "s", "g", "prose", 9)))

    assert decided(WORDS[:14]) and decided(WORDS[104:118])
    assert not decided(WORDS[:13])  # one run
    assert not decided([*WORDS[:12], "x", *WORDS[13:20]])
    assert not decided(WORDS[40:90])


def test_scripts_without_spaces(tmp_path):
    """Each letter is a word: an item stands in the midst of a text."""
    asked = "小明有五个苹果，他又买了七个，现在他一共有几个苹果？"
    (tmp_path / "items.txt").write_text(f"{asked}\n短い\n")
    stage = decontaminate.make(path=str(tmp_path))
    assert dict(stage.about) == {"items": 1, "too short": 1}
    for text, held in (
        (f"题目：{asked}答案", True),
        (asked[:12] + "。" + asked[14:], False),
    ):
        found = stage.score(Document("d", text, "s", "g", "prose", 9))
        assert bool(found) is held


def test_items_that_cannot_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match=r"a\.jsonl:1, which is no JSON"):
        decontaminate.make(path=str(tmp_path))
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:1, which is no JSON"):
        decontaminate.make(path=str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        list(contamination.items(str(tmp_path / "nowhere")))


def test_the_report(folder, tmp_path):
    from llm.corpus import storage

    held = Document("held", " ".join(WORDS[:20]), "s", "a", "prose", 9)
    free = Document("free", " ".join(WORDS[50:90]), "s", "b", "prose", 9)
    run = tmp_path / "run"
    splits = {"train": [held, free], "validation": [], "test": []}
    pairs = [(name, d) for name, some in splits.items() for d in some]
    storage.write(run / "corpus", pairs, {})
    told = subprocess.run(
        [sys.executable, "benchmarks/contamination.py", f"--run={run}",
         f"--items={folder}", f"--json={tmp_path / 'out.json'}"],
        cwd=ROOT, text=True, capture_output=True,
    )  # fmt: skip
    assert told.stdout.splitlines() == [
        "1 of 2 items (50.0%) in 1 of 2 documents; 0 items are too short to tell",
        "a.jsonl:1: held",
    ], told.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == {"a.jsonl:1": {"held": 8}}
