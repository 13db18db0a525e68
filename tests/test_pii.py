"""Personal data is found, and what only looks like it is left: a written table."""

import itertools
import time
from collections import Counter

import pii_table
import pytest

from llm import registry
from llm.document import Document
from llm.errors import InputError
from llm.stages import pii as stage
from llm.text import checksums, personal_data

LINES = [(text, tuple(found)) for text, *found in pii_table.FOUND]
LINES += [(text, ()) for text in pii_table.NOTHING]


def document(text):
    return Document("x", text, "s", "g", "prose", len(text))


def found_in(text, **knobs):
    return [(kind, text[a:b]) for a, b, kind in personal_data.find(text, **knobs)]


def test_recall_and_precision():
    assert len(LINES) >= 120 and len({text for text, _ in LINES}) == len(LINES)
    right, wanted, made, wrong = Counter(), Counter(), Counter(), []
    for text, expected in LINES:
        got, want = Counter(found_in(text)), Counter(expected)
        right.update(kind for kind, _ in (got & want).elements())
        wanted.update(kind for kind, _ in want.elements())
        made.update(kind for kind, _ in got.elements())
        wrong += [(text, got - want, want - got)] if got != want else []
    assert set(wanted) == set(personal_data.KINDS)
    recall, precision = (right.total() / n.total() for n in (wanted, made))
    assert recall >= 0.96 and precision >= 0.99, wrong
    for kind in personal_data.KINDS:
        assert right[kind] / wanted[kind] >= 0.85, kind


def test_in_the_midst_of_prose():
    # Each line within a sentence, and all in one text, give what they give alone.
    for text, _ in LINES:
        alone = found_in(text)
        assert found_in(f"He said: {text} - and left.") == alone, text
    whole = "\n\n".join(f"He said: {text} - and left." for text, _ in LINES)
    spans = personal_data.find(whole)
    assert len(spans) == sum(len(found_in(text)) for text, _ in LINES)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))


def test_every_changed_digit_is_seen():
    # All of these find any single wrong digit.
    valid = {
        checksums.luhn: "4111111111111111",
        checksums.verhoeff: "234123412346",
        checksums.iban: "DE89370400440532013000",
        checksums.brazilian: "52998224725",
        checksums.french: "255081416802538",
        checksums.chinese: "11010519491231002X",
        checksums.spanish: "12345678Z",
    }
    for check, number in valid.items():
        assert check(number)
        for place, was in enumerate(number):
            for digit in "0123456789" if was.isdigit() else "":
                changed = number[:place] + digit + number[place + 1 :]
                assert check(changed) == (digit == was), (check, changed)
    assert checksums.italian("RSSMRA85T10A562S")
    for letter in "ABCDEFGHIJKLMNOPQRTUVWXYZ":
        assert not checksums.italian(f"RSSMRA85T10A562{letter}")
    assert not checksums.brazilian("11111111111")


def test_redact():
    text = "Mail a@b.org or c@d.org, call +1 212-555-0123."
    (made,) = stage.make().apply(document(text))
    assert made.text == "Mail [EMAIL] or [EMAIL], call [PHONE]."
    assert made.meta["pii"] == {"email": 2, "phone": 1}
    (again,) = stage.make().apply(made)
    assert again.text == made.text
    (made,) = stage.make(kinds=("phone",)).apply(document(text))
    assert made.text == "Mail a@b.org or c@d.org, call [PHONE]."
    clean = document("Nothing here.")
    assert stage.make().apply(clean) == [clean]


def test_drop_and_count():
    text = "Mail a@b.org or c@d.org."
    made = stage.make(policy="drop", most=1)
    scores = made.score(document(text))
    assert scores["email"] == 2 and set(scores) == set(personal_data.KINDS)
    said = "personal data or secrets, more than 1: email above all"
    assert made.decide(scores) == said
    assert stage.make(policy="drop", most=2).decide(scores) == ""
    (counted,) = stage.make(policy="count").apply(document(text))
    assert counted.text == text and counted.meta["pii"] == {"email": 2}


def test_private_addresses_too():
    text = "10.0.0.7 fe80::1:2 192.168.0.1"
    assert found_in(text) == []
    assert len(found_in(text, public_only=False)) == 3


@pytest.mark.parametrize("knobs", [{"policy": "hide"}, {"kinds": ("name",)},
                                   {"kinds": ()}])  # fmt: skip
def test_wrong_knobs(knobs):
    with pytest.raises(InputError, match=r"data\.stage\.pii"):
        registry.build("stages", {"name": "pii", **knobs})


@pytest.mark.parametrize(
    "text",
    ["1" * 100_000, "1 " * 50_000, "a@" * 50_000, "+1-(" * 25_000, "a.b@c." * 20_000,
     "-----BEGIN PRIVATE KEY-----" * 3000, "://a:b" * 20_000, "2001:" * 20_000,
     "eyJ" * 30_000 + ".eyJ", "0 1/" * 25_000, "AA11 " * 20_000, "sk-" * 30_000,
     "1." * 50_000, "TOKEN=" * 20_000, "password='" * 12_000, "SECRET=a1" * 12_000],
)  # fmt: skip
def test_no_text_takes_long(text):
    start = time.process_time()
    personal_data.find(text)
    assert time.process_time() - start < 2  # the square of these would take minutes
