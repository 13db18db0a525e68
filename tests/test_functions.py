"""Records made of Python functions."""

import ast
import textwrap

import pytest

from llm import registry
from llm.document import Document
from llm.errors import InputError

SOURCE = textwrap.dedent('''
    import os

    class Box:
        def area(self, scale=1):
            """The area.

            Of the whole box.
            """
            side = self.side * scale
            return side * side

        @property
        def empty(self):
            """Whether nothing
            is in it."""
            @staticmethod
            def inner():
                return 1
            return not self.held and inner() == 1 and True is not False

    def undocumented(x):
        return x + 1

    def one_line(x): "A docstring"; return x

    async def fetch(url,
                    timeout=3):
        """Fetches a page, in the given time at most, and gives its bytes."""
        return await os.get(url, timeout=timeout)
''')


def made(task, **knobs):
    stage = registry.build("stages", {"name": "functions", "task": task, **knobs})
    document = Document("m.py", SOURCE, "s", "g", "code", len(SOURCE), {"licence": "x"})
    return stage.apply(document)


def test_what_is_asked_and_answered():
    area, empty, fetch = made("write")
    assert [d.id for d in (area, empty, fetch)] == ["m.py:5", "m.py:14", "m.py:27"]
    asked, answer = area.meta["record"]["messages"]
    assert asked == {
        "role": "user",
        "content": "Write the Python function `def area(self, scale=1):`\n\nThe area.",
    }
    assert answer["content"] == (
        "def area(self, scale=1):\n    side = self.side * scale\n    return side * side"
    )
    assert area.group == "g" and area.kind == "record" and area.meta["licence"] == "x"
    assert "Whether nothing is in it." in empty.meta["record"]["messages"][0]["content"]
    assert "@staticmethod" in empty.meta["record"]["messages"][1]["content"]
    said = fetch.meta["record"]["messages"][1]["content"]
    assert said.startswith("async def fetch(url,\n                timeout=3):\n    ret")
    for document in (area, empty, fetch):
        ast.parse(document.meta["record"]["messages"][1]["content"])


def test_descriptions_and_preferences():
    area = made("describe")[0].meta["record"]
    assert area["target"] == "The area." and area["source"].startswith("def area(")
    for document, other in zip(made("prefer"), [1, 2, 0], strict=True):
        record = document.meta["record"]
        (chosen,), (rejected,) = record["chosen"], record["rejected"]
        signature = chosen["content"].partition(":\n")[0]
        assert rejected["content"].startswith(signature)
        theirs = made("write")[other].meta["record"]["messages"][1]["content"]
        assert rejected["content"].partition(":\n")[2] == theirs.partition(":\n")[2]
        ast.parse(rejected["content"])


def test_lengths_and_what_does_not_parse():
    assert len(made("write", longest=80)) == 1
    assert made("write", shortest=500) == []
    stage = registry.build("stages", "functions")
    assert stage.apply(Document("a", "def f(:", "s", "g", "code", 7)) == []
    assert stage.apply(Document("a", "x\0", "s", "g", "code", 2)) == []
    with pytest.raises(InputError, match="task 'sing'"):
        made("sing")
