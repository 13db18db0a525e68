"""What counts as a written function, on a table; copies against a brute search."""

import ast
import random
import string
import warnings

import pytest

from llm.document import Document
from llm.evals import Context, syntax
from llm.inference.requests import Generate, Generated

HEAD = "def f(a, b=2):"
BODY = "\n    c = a + b\n    return c"
TABLE = [
    # (completion, why it ended, a part of the fault; "" counts)
    (BODY, "stop", ""),
    (BODY + "\n", "end", ""),
    (BODY, "length", "did not end within the limit"),
    ("\n    return a", "stop", "fewer than two"),
    ("\n    pass\n    return a", "stop", "fewer than two"),
    ('\n    """Text."""\n    return a', "stop", "fewer than two"),
    ('\n    """Text."""\n    a += 1\n    return a', "stop", ""),
    ("\n    ...\n    ...\n    ...", "stop", "fewer than two"),
    ("\n    'a'\n    1\n    return 2", "stop", "fewer than two"),
    ("\n    if a:\n        return b", "stop", ""),
    ("\n    if a:\n        pass", "stop", "fewer than two"),
    ("\n    for x in a:\n        yield x", "stop", ""),
    ("\n    def g():\n        pass\n    return g", "stop", ""),
    ("", "end", "does not parse"),
    ("\n", "end", "does not parse"),
    ("\n    return (a", "stop", "does not parse"),
    ("\n    return a\n  return b", "stop", "does not parse"),
    ("\nc = 1", "stop", "does not parse"),
    ("\n    x = '\0'\n    return x", "stop", "does not parse"),
    ("\n    x = 1\n    return x\ny = 2", "end", "is not one function"),
    (" return a", "stop", "fewer than two"),
    (" a = 1; return a", "stop", ""),
    ("\n    # only a comment", "stop", "does not parse"),
    ("\n    return " + "(" * 500 + ")" * 500, "stop", "does not parse"),
]


@pytest.mark.parametrize("text, ended, fault", TABLE)
def test_faults(text, ended, fault):
    got = syntax.fault(HEAD, Generated(text, ended))
    assert got.startswith(fault) if fault == "" else fault in got
    assert bool(got) == bool(fault)


def test_python_does_not_warn_of_samples():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = "\n    x = '\\d' is 'a'\n    return x"
        assert not syntax.fault(HEAD, Generated(text, "stop"))


CODE = '''
"""A module."""
x = "a line with \u2028 in it"

def one(a):
    return a

def two(
    a: int,
) -> int:
    """Text."""
    b = a

    return b

@cache
def three():
    def inner():
        return 1
    return inner

def four(): return 4

async def five():
    return 5

def six():  # a comment
    return 6

def seven():
    # a comment first
    return 7

class Eight:
    def method(self):
        return 8

def nine():
    @cache
    def inner():
        pass
    return inner
'''


def test_functions_are_found():
    got = dict(syntax.found(CODE))
    assert got["def one(a):"] == "\n    return a\n"
    assert got["def two(\n    a: int,\n) -> int:"] == (
        '\n    """Text."""\n    b = a\n\n    return b\n'
    )
    assert got["def three():"].endswith("    return inner\n")
    assert not any("method" in head or "five" in head for head in got)
    assert "def four(): return 4" not in got
    for head, body in got.items():
        (function,) = ast.parse(head + body).body
        assert isinstance(function, ast.FunctionDef)
        assert head + body in CODE
        assert not head.endswith("\n") and body.startswith("\n    ")


@pytest.mark.parametrize("code", ["def f(:\n    pass\n", "x = '\0'", "print 'a'\n"])
def test_what_is_not_python_has_no_functions(code):
    assert syntax.found(code) == []


def brute(samples, texts):
    n = syntax.COPIED
    return [
        any(s[i : i + n] in t for t in texts for i in range(len(s) - n + 1))
        for s in samples
    ]


def test_copies_equal_a_brute_search():
    rng = random.Random(0)

    def noise(length, letters="ab\n é𝄞"):
        return "".join(rng.choice(letters) for _ in range(length))

    texts = [noise(rng.randrange(3000)) for _ in range(8)] + ["", "short", noise(50)]
    samples = [noise(rng.randrange(200)) for _ in range(20)]
    for size in (48, 49, 50, 51, 120):
        source = rng.choice([t for t in texts if len(t) > 300])
        at = rng.randrange(len(source) - size)
        samples.append(noise(rng.randrange(30), "xyz") + source[at : at + size] + "q")
        samples.append(source[:size])
        samples.append(source[-size:])
    samples += [texts[-1], texts[-1][:49], texts[-1] + "x", "", "a" * 60, "a" * 49]
    texts.append("a" * 55)
    want = brute(samples, texts)
    assert sum(want) >= 10 and not all(want)
    assert syntax.copies(samples, texts) == want
    assert syntax.copies(samples, []) == [False] * len(samples)
    assert syntax.copies([], texts) == []


def test_a_hash_that_collides_is_looked_up(monkeypatch):
    import numpy as np

    monkeypatch.setattr(
        syntax,
        "_window_hashes",
        lambda text: np.zeros(max(len(text) - syntax.COPIED + 1, 0), np.uint64),
    )
    rng = random.Random(1)
    text = "".join(rng.choice(string.printable) for _ in range(300))
    samples = [text[20:80], text[::-1][:60]]
    assert syntax.copies(samples, [text[::2], text]) == [True, False]


def document(text, kind="code"):
    return Document("id", text, "stdlib", "group", kind, len(text))


def function(number):
    return f"def name{number}(a):\n    b = a + {number}\n    return b\n\n\n"


TRAINING = "x = 1\n" * 3 + BODY[1:] + " # " + string.ascii_letters * 2


def make(**knobs):
    documents = [
        document("".join(map(function, range(10)))),
        document("def prose(a):\n    return 1\n", "prose"),
        document("def short():\n    return 2\n"),
    ]
    context = Context(documents, lambda: [TRAINING], lambda text: len(text))
    return syntax.make(context=context, **knobs)


def test_examples_are_spread_over_held_out_code():
    assert len(make().examples) == 11
    few = make(samples=3, max_tokens=9, temperature=0.5)
    heads = [head for head, _ in few.examples]
    assert heads == ["def name0(a):", "def name3(a):", "def name7(a):"]
    (request,) = few.requests(few.examples[0])
    assert isinstance(request, Generate)
    assert request[0] == "def name0(a):" and request[2:] == (9, 0.5)


def test_rates():
    task = make()
    copied = "\n    x = '" + string.ascii_letters + "'\n    return x"
    texts = [BODY, BODY, copied, "\n    pass", *["\n    z = 1\n    return z"] * 7]
    figures = [
        task.measure(example, [Generated(text, "stop")])
        for example, text in zip(task.examples, texts, strict=True)
    ]
    got = task.summarise(figures)
    assert got["syntax_samples"] == 11
    # A sample that repeats another does not count: one BODY, one z.
    assert got["syntax_valid_rate"] == pytest.approx(2 / 11)
    assert got["syntax_distinct_rate"] == pytest.approx(4 / 11)
    # `short` has one statement; all the others count.
    assert got["syntax_corpus_rate"] == pytest.approx(10 / 11)
    shown = got["syntax_examples"]
    assert len(shown) == 11 and shown[0]["valid"] and not shown[3]["valid"]
    assert shown[2]["reason"] == "copies 50 characters of training text"


def test_a_corpus_function_must_fit_the_limit():
    task = make(max_tokens=20)  # characters, here
    figures = [task.measure(e, [Generated(BODY, "stop")]) for e in task.examples]
    assert task.summarise(figures)["syntax_corpus_rate"] == 0


def test_no_functions_no_rates():
    context = Context([document("x = 1\n")], lambda: [], len)
    task = syntax.make(context=context)
    assert list(task.examples) == []
    # Not a rate of 0, which would stand among the figures of a corpus of prose.
    assert task.summarise([]) == {"syntax_samples": 0}


def test_tiny_is_tiny():
    assert len(make(**syntax.TINY).examples) == syntax.TINY["samples"]
