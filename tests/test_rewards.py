"""Rewards on written-out answers, and what becomes of one that fails."""

import math

import pytest

from llm import registry, rewards
from llm.errors import InputError
from llm.rewards import Answer, Failed, each

NAMES = registry.choices("rewards")
GOOD = Answer("1+1=", "2", "2", (5, 2))


def judged(name, answer, **knobs):
    knobs = registry.module("rewards", name).TINY | knobs
    (value,) = registry.build("rewards", {"name": name, **knobs})([answer])
    return value


def answer(text, reference="", ended=True, tokens=1, prompt=""):
    return Answer(prompt, text, reference, tuple(range(tokens)), ended)


# A reward model is a run: tests/test_rollouts.py has one.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "model"])
def test_odd_answers_have_a_finite_reward_or_none(name):
    """Whatever a model writes."""
    reward = registry.build(
        "rewards", {"name": name, **registry.module("rewards", name).TINY}
    )
    odd = [
        "",
        " ",
        "\x00",
        "{" * 5000,
        "[" * 100_000,
        "9" * 5000,
        "```python\n",
        "\ud800",
    ]
    values = reward([GOOD, *(answer(text, "2") for text in odd)])
    assert len(values) == len(odd) + 1
    assert all(x is None or math.isfinite(x) for x in values)


@pytest.mark.parametrize(
    "text, reference, key, want",
    [
        ("42", "42", "", 1), ("so it is **42**.", "42", "", 1), ("42.0", "42", "", 1),
        ("1,234", "1234", "", 1), ("41", "42", "", 0), ("", "42", "", 0),
        ("7/8", "0.875", "", 1), ("-5", "5", "", 0), ("#### 72", "a 24 #### 72", "", 1),
        ('{"answer": 42}', '{"answer": 42}', "answer", 1),
        ('{"answer": "42"}', "42", "answer", 1), ('{"answer": 43}', "42", "answer", 0),
        ('{"answer": 42', "42", "answer", 0), ("42", "42", "answer", 0),
        ('{"answer": true}', "1", "answer", 0), ('[42]', "42", "answer", 0),
        ('{"answer": 1e400}', "42", "answer", 0),
    ],
)  # fmt: skip
def test_numbers(text, reference, key, want):
    assert judged("number", answer(text, reference), key=key) == want


def test_a_number_that_is_cut_off_is_none():
    assert judged("number", answer("12", "12", ended=False)) == 0.0


def test_a_reference_without_a_number_is_no_zero():
    with pytest.raises(Failed, match="no number in the reference"):
        judged("number", answer("12", "twelve"))


@pytest.mark.parametrize(
    "text, reference, knobs, want",
    [
        ("The Cat.", "cat", {}, 1), ("The Cat.", "cat", {"exact": True}, 0),
        ("answer: B", "B", {"pattern": r"answer: (A|B)"}, 1),
        ("answer: A", "B", {"pattern": r"answer: (A|B)"}, 0),
        ("my answer: B", "B", {"pattern": r"answer: (A|B)"}, 0),
        ("abc", "", {"pattern": "[a-c]+"}, 1),
    ],
)  # fmt: skip
def test_matches(text, reference, knobs, want):
    assert judged("match", answer(text, reference), **knobs) == want


@pytest.mark.parametrize(
    "tokens, ended, want",
    [(10, True, 0), (60, True, 0), (80, True, -0.5), (100, True, -1), (150, True, -1),
     (10, False, -1)],
)  # fmt: skip
def test_long_answers_lose(tokens, ended, want):
    made = judged(
        "length", answer("a", ended=ended, tokens=tokens), most=100, margin=40
    )
    assert made == pytest.approx(want)


@pytest.mark.parametrize(
    "text, knobs, ended, want",
    [
        ("x = 1", {}, True, 1), ("x = ", {}, True, 0), ("", {}, True, 0),
        ("# nothing", {}, True, 0), ("x = 1", {}, False, 0),
        ("Here:\n```python\nx = 1\n```\nDone.", {}, True, 1),
        ("Here:\n```python\nx = 1\n```\nDone.", {"fenced": False}, True, 0),
        ("    return 1", {"prompt": True}, True, 1), ("    return 1", {}, True, 0),
    ],
)  # fmt: skip
def test_python(text, knobs, ended, want):
    one = answer(text, ended=ended, prompt="def f():\n")
    assert judged("python_syntax", one, **knobs) == want


def test_json_by_schema():
    pytest.importorskip("jsonschema")
    schema = '{"required": ["a"], "properties": {"a": {"type": "integer"}}}'
    for text, want in (('{"a": 1}', 1), ('{"a": "x"}', 0), ("{}", 0), ("{", 0)):
        assert judged("json_form", answer(text), schema=schema) == want
        assert judged("json_form", answer(text, schema), schema="") == want
    with pytest.raises(InputError, match="no JSON schema"):
        registry.build("rewards", {"name": "json_form", "schema": '{"type": 3}'})


def test_any_object_without_a_schema():
    assert judged("json_form", answer('{"b": 1}'), schema="{}") == 1
    assert judged("json_form", answer("[1]"), schema="{}") == 0


def test_the_sum_is_weighted_and_what_fails_is_none():
    def fails(answer):
        if answer.text == "bad":
            raise RuntimeError("odd")
        return {"nan": math.nan}.get(answer.text, len(answer.text))

    both = {"size": each(fails), "ended": each(lambda a: float(a.ended))}
    made = rewards.judge(
        both, (0.5, 2.0), [answer("four"), answer("bad"), answer("nan")]
    )
    assert made.values["size"] == [4.0, None, None]
    assert made.total == [0.5 * 4 + 2.0, None, None]
    assert list(made.reasons) == ["size"]


def test_a_reward_that_always_fails_says_why():
    made = rewards.judge({"odd": each(lambda a: a.nothing)}, (1.0,), [GOOD])
    assert made.total == [None] and "AttributeError" in made.reasons["odd"]
