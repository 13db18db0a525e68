import dataclasses

import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import label

GIVEN = Document("email/header.py", "x = 1\n", "stdlib", "email", "code", 6, {"a": 1})


def test_the_group_becomes_the_label_and_the_document_its_own_group():
    (made,) = label.make(field="group").apply(GIVEN)
    assert made.meta == {"a": 1, "label": "email"}
    assert made.group == GIVEN.id
    assert dataclasses.replace(made, group="email", meta={"a": 1}) == GIVEN


def test_the_kind():
    (made,) = label.make(field="kind").apply(GIVEN)
    assert made.meta["label"] == "code"


def test_others_are_dropped():
    assert label.make(names=("json",)).apply(GIVEN) == []
    assert len(label.make(names=("json", "email")).apply(GIVEN)) == 1


def test_bad_input():
    with pytest.raises(InputError, match="field 'language'"):
        label.make(field="language")
