"""What goes was there before; what was there before, and is long enough, goes."""

import itertools
import random

import data_config
import numpy as np
import pytest

from llm import registry
from llm.document import Document
from llm.errors import InputError
from llm.stages import substring_dedup
from llm.text import hashing


def left(texts, **knobs):
    documents = [Document(n, t, "s", n, "prose", len(t)) for n, t in texts.items()]
    stage = substring_dedup.make(**knobs)
    result = data_config.through([("substring_dedup", stage)], documents)
    return {d.id: d.text for d in result.documents}


NUMBERS = itertools.count()


def passage(count):
    """Words that no other passage has."""
    return [f"w{next(NUMBERS)}" for _ in range(count)]


@pytest.mark.parametrize("spread", [1, 4, 8])
def test_a_brute_force_loop_agrees(spread):
    rng, words = random.Random(0), 12
    shared = [passage(rng.randrange(8, 60)) for _ in range(12)]
    texts = {}
    for n in range(40):
        parts = [passage(rng.randrange(3, 30)) for _ in range(3)]
        first, second = rng.sample(shared, 2)
        parts = [parts[0], first, parts[1], second, parts[2]]
        texts[str(n)] = [word for part in parts for word in part]
    kept = left({n: " ".join(t) for n, t in texts.items()}, words=words, spread=spread)
    seen, gone_some = set(), 0
    for name, text in texts.items():
        runs = [tuple(text[i : i + words]) for i in range(len(text) - words + 1)]
        came_back = np.zeros(len(text), bool)
        for i, run in enumerate(runs):
            if run in seen:
                came_back[i : i + words] = True
        seen.update(runs)
        rest = kept.get(name, "").split()
        # No word is twice in a text, so those that stay say which went.
        gone = np.array([word not in set(rest) for word in text])
        assert not (gone & ~came_back).any(), "something new went"
        edges = np.flatnonzero(np.diff(np.concatenate([[0], came_back, [0]])))
        for start, end in edges.reshape(-1, 2):
            if end - start >= words + spread - 1:
                assert gone[start + spread - 1 : end - spread + 1].all()
                gone_some += 1
            if spread == 1:
                assert gone[start:end].all()
    assert gone_some > 10


def test_the_text_around_it_stays_as_it_was():
    quoted = "of a Passage, (that) is quoted -- in İstanbul and Elsewhere!"
    texts = {
        "a": f"The source {quoted} End.",
        "b": f"Said:\n\n  {quoted.upper().replace('İ', 'i̇')}\n\tSo it was; ünd so on.",
        "c": quoted,
    }
    kept = left(texts, words=5, spread=1)
    assert kept["a"] == texts["a"] and set(kept) == {"a", "b"}
    assert kept["b"].startswith("Said:\n\n  ")
    assert kept["b"].endswith("!\n\tSo it was; ünd so on.")


def test_the_hash_of_a_run_knows_its_order_and_not_its_place():
    found = ["a", "b", "c", "d", "e", "f", "a", "b", "c", "d", "e", "g"]
    hashed = substring_dedup.runs(found, 5)
    assert hashed.shape == (8, 2)
    assert (hashed[0] == hashed[6]).all() and len(np.unique(hashed[:, 0])) == 7
    turned = substring_dedup.runs(["b", "a", "c", "d", "e"], 5)
    assert not (turned == hashed[0]).any()
    assert substring_dedup.runs(["a"], 5).shape == (0, 2)
    # Against the polynomial written out, mod 2^64.
    codes = [int(code) for code in hashing.words(found[:5])]
    for n, base in enumerate(substring_dedup._BASES):
        whole = sum(code * pow(base, i, 2**64) for i, code in enumerate(codes)) % 2**64
        wanted = hashing.mixed(np.array([whole], np.uint64))[0]
        assert hashed[0, n] == wanted


def test_one_of_every_few_neighbours_is_compared():
    rng = np.random.default_rng(0)
    hashed = rng.integers(0, 50, 300).astype(np.uint64)
    places = substring_dedup.chosen(hashed, 6)
    wanted = set()
    for start in range(295):
        window = hashed[start : start + 6]
        wanted.add(start + max(i for i in range(6) if window[i] == window.min()))
    assert places.tolist() == sorted(wanted)
    assert substring_dedup.chosen(hashed[:3], 6).tolist() in ([0], [1], [2])


def test_bad_knobs():
    with pytest.raises(InputError, match="words 2; want 5 or more"):
        registry.build("stages", {"name": "substring_dedup", "words": 2})


@pytest.mark.parametrize(
    "before, after, want",
    [
        ("Before it. ", " After it.", "Before it. After it."),
        ("", " After it.", "After it."),
        ("Before it. ", "", "Before it. "),
        ("One.\n\n", "\n\nTwo.", "One.\n\nTwo."),
        ("One. ", "\n\nTwo.", "One.\n\nTwo."),
        ("  - ", "\n  - two", "  -\n  - two"),
        ("def f():\n    ", "\n    return 1", "def f():\n    return 1"),
        ("class A:\n    ", "\n\n    def g():", "class A:\n\n    def g():"),
        ("# Title\n", "\n\nBody", "# Title\n\nBody"),
        ("One.\n\n", "\n\n    code", "One.\n\n    code"),
        ("One.\n\n", "\n    code", "One.\n\n    code"),
        ("* a\n", "\n  * of a", "* a\n  * of a"),
        ("", "\n\n    code", "    code"),
        ("One. ", " **Bold** x", "One. **Bold** x"),
        ("One. ", "(bar)", "One. (bar)"),
        ("a\r\n", "\r\n\r\nb", "a\r\n\r\nb"),
    ],
)
def test_nothing_of_a_passage_stays(before, after, want):
    """No signs, no white space twice: what stands around it reads on."""
    gone = "All, of this (it is quoted: twice), `goes` - with; each sign"
    gone += "!" * (not after[:1].strip())
    kept = left({"a": gone + " x", "b": before + gone + after}, words=5, spread=1)
    assert kept["b"] == want


def test_what_lies_between_two_passages_stays():
    first, second = (" ".join(passage(20)) for _ in range(2))
    text = f"Start.\n    {first}\n    mid\n    {second}\nend {first} {second} it."
    kept = left({"a": first, "b": second, "c": text}, words=5, spread=1)
    assert kept["c"] == "Start.\n    mid\nend it."
