"""Paragraphs and lines that stood before go; the rest of a text stays."""

import random

import data_config
import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import part_dedup


def left(texts, **knobs):
    documents = [Document(n, t, "s", n, "prose", len(t)) for n, t in texts.items()]
    stage = part_dedup.make(**knobs)
    result = data_config.through([("part_dedup", stage)], documents)
    return {d.id: d.text for d in result.documents}, result


NOTICE = "All rights are reserved by those who have them."


def test_a_written_out_case():
    texts = {
        "a": f"First.\n\n{NOTICE}\n\nMore of the first text, which is long enough.\n",
        "b": f"{NOTICE}\n\nSecond.\n \nIts own text, which is long enough, too.\n",
        "c": f"{NOTICE}\n \n\n  All   rights are\nreserved by those who have them. \n",
        "d": f"First.\n\nSecond.\n\n{NOTICE}",
    }
    kept, result = left(texts, least_characters=20)
    assert kept == {
        "a": texts["a"],
        "b": "Second.\n \nIts own text, which is long enough, too.\n",
        "d": "First.\n\nSecond.\n",
    }
    (count,) = result.counts
    assert count["removed"] == {"paragraph of an earlier place": 4}
    assert count["dropped"]["paragraph of an earlier place"]["documents"] == 1


def test_lines():
    texts = {"a": f"x\n{NOTICE}\ny\n{NOTICE}\n", "b": f"z\n{NOTICE}\nx\n"}
    assert left(texts, unit="line")[0] == {"a": texts["a"], "b": texts["b"]}
    kept, _ = left(texts, unit="line", least_characters=9)
    assert kept == {"a": f"x\n{NOTICE}\ny\n", "b": "z\nx\n"}


def test_a_loop_over_all_parts_agrees():
    rng = random.Random(0)
    lines = [f"line {n} of those that are long enough" for n in range(40)]
    texts = {
        str(n): "\n".join(rng.choices([*lines, "short"], k=rng.randrange(1, 12))) + "\n"
        for n in range(60)
    }
    seen, wanted = set(), {}
    for name, text in texts.items():
        kept = []
        for line in text.rstrip("\n").split("\n"):
            if line == "short" or line not in seen:
                kept.append(line)
            seen.add(line)
        if kept:
            wanted[name] = "\n".join(kept) + "\n"
    assert left(texts, unit="line", least_characters=10)[0] == wanted


def test_an_unknown_unit():
    with pytest.raises(InputError, match="paragraph or line"):
        part_dedup.make(unit="word")
