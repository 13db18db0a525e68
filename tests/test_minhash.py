"""MinHash finds what a comparison of all pairs finds."""

import functools
import itertools
import os
import random
import subprocess
import sys

import data_config
import numpy as np
import pytest

from llm import registry
from llm.document import Document
from llm.errors import InputError
from llm.stages import minhash


def words(count, rng):
    return [f"w{rng.randrange(3000)}" for _ in range(count)]


def edited(text, share, rng):
    """The words of a text, each replaced with probability `share`."""
    return [w if rng.random() > share else f"n{rng.randrange(9999)}" for w in text]


@functools.cache
def runs_of(text, size=5):
    found = text.lower().split()
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


def jaccard(a, b):
    return len(runs_of(a) & runs_of(b)) / len(runs_of(a) | runs_of(b))


@pytest.fixture(scope="module")
def corpus():
    rng = random.Random(0)
    documents = []
    for family in range(25):
        original = words(300, rng)
        for n, share in enumerate((0, 0.005, 0.02, 0.06, 0.12, 0.3)):
            text = " ".join(edited(original, share, rng))
            name = f"{family:02d}-{n}"
            documents.append(Document(name, text, "s", name, "prose", len(text)))
    random.Random(1).shuffle(documents)
    return documents


def test_signatures_estimate_jaccard(corpus):
    entries = 512
    signatures = [
        minhash.signature(minhash.shingles(d.text, 5), entries) for d in corpus[:60]
    ]
    errors = [
        (signatures[i] == signatures[j]).mean()
        - jaccard(corpus[i].text, corpus[j].text)
        for i, j in itertools.combinations(range(60), 2)
    ]
    assert np.abs(errors).max() < 0.1  # five standard deviations at 0.5
    assert abs(np.mean(errors)) < 2e-3


def test_decisions_equal_those_of_all_pairs(corpus):
    # 600 entries: the estimate is within 0.1 (five standard deviations) of the truth.
    result = data_config.through([("minhash", minhash.make(bands=200))], corpus)
    kept = {document.id for document in result.documents}
    pairs = {
        (a.id, b.id): jaccard(a.text, b.text)
        for a, b in itertools.combinations(corpus, 2)
        if a.id[:2] == b.id[:2]
    }
    certain = {pair for pair, share in pairs.items() if share > 0.9}
    assert len(certain) > 20
    for _, second in certain:
        assert second not in kept, "a near duplicate of an earlier document stayed"
    for name in {d.id for d in corpus} - kept:
        assert max(s for (_, second), s in pairs.items() if second == name) > 0.7
    linked = set(result.links)
    for (a, b), share in pairs.items():
        if share > 0.6 and a in kept and b in kept:
            assert (a, b) in linked, "alike, but not linked"
    for a, b in linked:
        assert a[:2] == b[:2] and pairs[a, b] > 0.4


def test_near_duplicates_never_straddle_splits(corpus):
    result = data_config.through([("minhash", minhash.make(bands=200))], corpus)
    alike = [
        (a.id, b.id)
        for a, b in itertools.combinations(result.documents, 2)
        if jaccard(a.text, b.text) > 0.58
    ]
    assert len(alike) > 15
    for seed in range(5):
        renamed = [
            Document(d.id, d.text, "s", f"{d.group}/{seed}", "prose", d.raw_bytes)
            for d in result.documents
        ]
        parts = data_config.split(
            renamed, validation_fraction=0.2, test_fraction=0.2, links=result.links
        )
        side = {d.id: name for name, part in parts.items() for d in part}
        assert all(side[a] == side[b] for a, b in alike)
    alone = data_config.split(renamed, validation_fraction=0.2, test_fraction=0.2)
    side = {d.id: name for name, part in alone.items() for d in part}
    assert any(side[a] != side[b] for a, b in alike), "the test could not fail"


def test_case_and_punctuation_do_not_matter():
    a, b = "One, two: three four FIVE six", "one two three (four) five... Six!"
    assert np.array_equal(minhash.shingles(a, 5), minhash.shingles(b, 5))


@pytest.mark.parametrize(("text", "count"), [("", 0), ("!?", 0), ("a b", 1)])
def test_short_texts(text, count):
    assert len(minhash.shingles(text, 5)) == count
    document = Document("x", text, "s", "g", "prose", 1)
    stage = minhash.make()
    rows = stage.rows(document)
    assert rows.shape == (count, stage.size) and rows.dtype == np.uint8
    assert stage.keys(rows).shape == (count, 42)


def test_shingles_are_runs_of_words():
    hashed = minhash.shingles("a b c d e f", 5)
    whole = {int(h) for part in ("a b c d e", "b c d e f")
             for h in minhash.shingles(part, 5)}  # fmt: skip
    assert {int(h) for h in hashed} == whole and len(whole) == 2
    assert len(minhash.shingles("a a a a a a a a", 5)) == 1


def test_hashes_are_the_same_in_every_process():
    script = (
        "from llm.stages.minhash import *\n"
        "print(signature(shingles('the quick brown fox jumps over it', 5), 6).tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


def test_many_copies_do_not_cost_the_square():
    rng = random.Random(0)
    text = words(200, rng)
    documents = [
        Document(str(i), " ".join([*text, f"end{i}"]), "s", "g", "prose", 1)
        for i in range(1500)
    ]
    result = data_config.through([("minhash", minhash.make(bands=8))], documents)
    assert [document.id for document in result.documents] == ["0"]


@pytest.mark.parametrize(
    "knobs", [{"threshold": 3.0}, {"link_threshold": 0.0}, {"bands": 0}, {"words": 0}]
)
def test_what_cannot_be_compared(knobs):
    with pytest.raises(InputError, match=next(iter(knobs))):
        registry.build("stages", {"name": "minhash", **knobs})
