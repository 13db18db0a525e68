"""Stretches of code against the syntax tree and a table by hand."""

import ast
import pathlib

from llm.document import Document
from llm.stages import python_tokens

CODE = '''def área(r, n=3.14):
    """Text
    of two lines"""
    return n * r**2  # done: é
'''


def document(text, kind="code"):
    return Document("a", text, "made", "a", kind, len(text.encode()))


def test_a_table_by_hand():
    (made,) = python_tokens.make().apply(document(CODE))
    found = [(CODE[a:z], name) for a, z, name in made.meta["labels"]]
    assert found == [
        ("def", "keyword"), ("área", "name"), ("(", "operator"), ("r", "name"),
        (",", "operator"), ("n", "name"), ("=", "operator"), ("3.14", "number"),
        (")", "operator"), (":", "operator"),
        ('"""Text\n    of two lines"""', "string"),
        ("return", "keyword"), ("n", "name"), ("*", "operator"), ("r", "name"),
        ("**", "operator"), ("2", "number"), ("# done: é", "comment"),
    ]  # fmt: skip
    assert {name for _, _, name in made.meta["labels"]} <= set(python_tokens.NAMES)


def test_names_and_numbers_are_those_of_the_tree():
    text = pathlib.Path(python_tokens.__file__).read_text()
    (made,) = python_tokens.make().apply(document(text))
    found = [(text[a:z], kind) for a, z, kind in made.meta["labels"]]
    tree = list(ast.walk(ast.parse(text)))
    numbers = [
        n.value for n in tree if isinstance(n, ast.Constant) and type(n.value) is int
    ]
    assert sorted(int(t) for t, kind in found if kind == "number") == sorted(numbers)
    names = {n.id for n in tree if isinstance(n, ast.Name)}
    assert names <= {t for t, kind in found if kind == "name"}


def test_what_is_no_code_is_dropped():
    stage = python_tokens.make()
    assert stage.apply(document("x = (1\n")) == []
    assert stage.apply(document("some prose", kind="prose")) == []
