"""Listed words are found whole, in the list of a document's language."""

import itertools
import re

import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import harm
from llm.text import word_lists
from llm.text.word_breaks import words


def document(text, **meta):
    return Document("x", text, "s", "g", "prose", len(text), meta)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "en.txt").write_text("# mild ones\nbloody hell\nhell # twice\n\n")
    (tmp_path / "de.txt").write_text("Mist\nverflixt und zugenäht\n")
    (tmp_path / "zh.txt").write_text("混蛋\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("text", "language", "hits", "within"),
    [
        ("What the hell is this?", "en", 1, 1),
        ("Hell, HELL and bloody\n hell!", "en", 3, 4),
        ("Hello shellfish of Hellas", "en", 0, 0),
        ("hell", "de", 0, 0),
        ("Mist, verflixt und zugenäht.", "de", 2, 4),
        ("Mist in the hills", "en", 0, 0),
        ("Mist in the hell", "", 2, 2),
        ("你这个混蛋!", "zh", 1, 2),
        ("hell", "xx", 0, 0),
        ("", "en", 0, 0),
    ],
)
def test_hits(folder, text, language, hits, within):
    scores = harm.make(path=folder).score(document(text, language=language))
    assert scores["hits"] == hits
    assert scores["share"] == within / max(len(words(text)), 1)


def test_decisions(folder):
    text = "hell " + "word " * 9
    scores = harm.make(path=folder).score(document(text, language="en"))
    assert harm.make(path=folder).decide(scores) == "more than 0 listed words"
    for knobs in ({"most_hits": 1}, {"most_share": 0.1}):
        assert harm.make(path=folder, **knobs).decide(scores) == ""


def test_one_file_is_for_all_languages(folder):
    stage = harm.make(path=f"{folder}/de.txt", listed=("plague",))
    for language in ("en", "de", ""):
        scores = stage.score(document("Mist und plague", language=language))
        assert scores["hits"] == 2
    stage = harm.make(path=folder, listed=("plague",))
    assert stage.score(document("plague", language="xx"))["hits"] == 1


def test_find_equals_a_search_of_all_phrases():
    lists = {"a": ["x y z", "x", "q"], "b": ["x y", "z w", "x y z"]}
    index = word_lists.index(lists)
    for text in itertools.product("xyzwq", repeat=5):
        expected, free = [], 0
        for place in range(5):
            if place < free:
                continue
            phrases = ((tuple(p.split()), n) for n, ps in lists.items() for p in ps)
            at = [(len(p), n) for p, n in phrases if text[place : place + len(p)] == p]
            longest = max((n for n, _ in at), default=0)
            expected += [(place, n, name) for n, name in at if n == longest]
            free = place + max(longest, 1)
        assert list(word_lists.find(index, text)) == expected


def test_wrong_files(folder, tmp_path):
    with pytest.raises(InputError, match="no words for the stage 'harm'"):
        harm.make()
    with pytest.raises(InputError, match="a file of UTF-8 with a word a line"):
        harm.make(path=f"{folder}/missing.txt")
    (tmp_path / "en.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/en.txt")):
        harm.make(path=folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no words"):
        harm.make(path=str(tmp_path / "empty"))
