"""Normalisation does what its table says, once, and leaves code the same program."""

import ast
import random
import warnings

import data_config
import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import normalise


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("\ufeffa", "a\n"),
        ("e\u0301", "\u00e9\n"),
        ("a \t\nb\u00a0\n", "a\nb\n"),
        ("a\n\n\n\n\n\nb", "a\n\n\nb\n"),
        ("a\n \n\t\n  \n\nb", "a\n\n\nb\n"),
        ("a\0b\x1b[0m\x7f", "ab[0m\n"),
        ("a\fb\vc\x85d", "a b c d\n"),
        ("x\n\fdef f(): pass", "x\ndef f(): pass\n"),
        ("\n\n    indented\n", "    indented\n"),
        ("\ttab  inside", "\ttab  inside\n"),
        ("a\ud800b", "a\ufffdb\n"),
        (" \n\t\n", ""),
        ("", ""),
    ],
)
def test_table(before, after):
    assert normalise.normalise(before) == after


def test_idempotent():
    rng = random.Random(0)
    alphabet = (
        "ab \t\n\r\f\v\0\x1c\x85\ufeff\u0301e\u212b\ud800\u00a0\u2028\u1100\u1161"
    )
    for _ in range(3000):
        once = normalise.normalise("".join(rng.choices(alphabet, k=rng.randrange(25))))
        assert normalise.normalise(once) == once


def test_document_without_text_is_dropped():
    stage = normalise.make()
    assert stage.apply(Document("a", "\0\n", "s", "g", "prose", 2)) == []
    (kept,) = stage.apply(Document("a", "x\r\n", "s", "g", "prose", 3))
    assert (kept.text, kept.raw_bytes) == ("x\n", 3)


def test_library_code_stays_the_same_program():
    changed = 0
    for document in data_config.library()[0]:
        text = normalise.normalise(document.text)
        if document.kind == "code" and text != document.text:
            changed += 1
            assert _tree(text) == _tree(document.text), document.id
    assert changed > 10


def _tree(code):
    """The syntax tree without the insides of strings, which may lose spaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            node.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize(
    ("knobs", "before", "after"),
    [
        ({"form": "NFKC"}, "ﬁne ² Ⅷ\u3000x", "fine 2 VIII x\n"),
        ({"lowercase": True}, "GRÖSSE Straße İ", "grösse straße i\u0307\n"),
        ({"remove": r"[^\w\s.,]"}, "a—b, “c”! d.", "ab, c d.\n"),
        ({"form": "NFKC", "lowercase": True, "remove": "[0-9]"}, "H₂O ℌ", "ho h\n"),
        ({"remove": r"[\s\S]"}, "all of it", None),
    ],
)
def test_knobs(knobs, before, after):
    stage = normalise.make(**knobs)
    document = Document("a", before, "s", "g", "prose", len(before.encode()))
    made = stage.apply(document)
    assert [d.text for d in made] == ([after] if after else [])
    for again in made:
        assert stage.apply(again) == made


def test_wrong_encodings_are_repaired():
    pytest.importorskip("ftfy")
    stage = normalise.make(repair=True)

    def repaired(text):
        return stage.apply(Document("a", text, "s", "g", "prose", 9))[0].text

    # UTF-8 read as Latin-1 or Windows-1252, once and twice.
    for right in ("Größe", "naïve café", "“quoted” – text", "日本語", "Ελληνικά"):
        for code in ("latin-1", "cp1252"):
            try:
                wrong = right.encode().decode(code)
                twice = wrong.encode().decode(code)
            except UnicodeDecodeError:
                continue
            assert repaired(wrong) == right + "\n"
            assert repaired(twice) == right + "\n"
        assert repaired(right) == right + "\n"
    assert repaired("a &amp; b, it's") == "a &amp; b, it's\n"


@pytest.mark.parametrize("knobs", [{"form": "NFX"}, {"remove": "["}])
def test_knobs_that_cannot_be(knobs):
    with pytest.raises(InputError):
        normalise.make(**knobs)
