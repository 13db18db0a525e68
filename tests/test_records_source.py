"""Instruction data in the forms that others write, and what is wrong with some."""

import json

import pytest

from llm import registry
from llm.data.record_forms import canonical
from llm.errors import InputError
from llm.sources.records import readable

USER = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "yo"}
OTHER = {"role": "assistant", "content": "no"}


@pytest.mark.parametrize(
    ("item", "want"),
    [
        ({"messages": [USER, SAID], "id": 7}, {"messages": [USER, SAID]}),
        (
            {
                "system": "s",
                "conversations": [
                    {"from": "human", "value": "hi"},
                    {"from": "gpt", "value": "yo"},
                ],
            },
            {"messages": [{"role": "system", "content": "s"}, USER, SAID]},
        ),
        (
            {"instruction": "hi", "input": "", "output": "yo"},
            {"messages": [USER, SAID]},
        ),
        (
            {"instruction": "a", "input": "b", "output": "yo"},
            {"messages": [{"role": "user", "content": "a\n\nb"}, SAID]},
        ),
        ({"prompt": "hi", "completion": "yo"}, {"prompt": "hi", "completion": "yo"}),
        ({"prompt": [USER], "completion": "yo"}, {"messages": [USER, SAID]}),
        ({"source": "a", "target": "b", "x": 1}, {"source": "a", "target": "b"}),
        ({"text": "a", "label": 3}, {"text": "a", "label": "3"}),
        (
            {"prompt": "hi", "chosen": "a", "rejected": "b"},
            {"prompt": "hi", "chosen": "a", "rejected": "b"},
        ),
        (
            {"conversations": [{"from": "human", "value": "hi"}],
             "chosen": {"from": "gpt", "value": "yo"}, "rejected": "b"},
            {"prompt": [USER], "chosen": [SAID], "rejected": "b"},
        ),
        (  # whole conversations, as HH-RLHF and UltraFeedback have them
            {"chosen": [USER, SAID], "rejected": [USER, OTHER]},
            {"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]},
        ),
        (
            {"instruction": "hi", "input": "", "chosen": "a", "rejected": "b",
             "output": "c"},
            {"prompt": [USER], "chosen": "a", "rejected": "b"},
        ),
    ],
)  # fmt: skip
def test_forms(item, want):
    assert canonical(item) == want


def test_texts_as_conversations():
    system = {"role": "system", "content": "s"}
    made = canonical({"prompt": "hi", "completion": "yo"}, chat=True, system="s")
    assert made == {"messages": [system, USER, SAID]}
    made = canonical({"prompt": "hi", "chosen": "a", "rejected": "b"}, chat=True)
    assert made == {"prompt": [USER], "chosen": "a", "rejected": "b"}


def read(path, **knobs):
    skipped = []
    source = registry.build("sources", {"name": "records", "path": str(path), **knobs})
    found = list(source(lambda reason, id: skipped.append((reason, id))))
    return found, skipped


def test_files(tmp_path):
    items = [{"instruction": f"q{n}", "output": f"a{n}"} for n in range(5)]
    (tmp_path / "a.json").write_text(json.dumps(items))
    lines = "".join(json.dumps(item) + "\n\n" for item in items[:3])
    (tmp_path / "b.jsonl").write_text(lines)
    found, skipped = read(tmp_path)
    assert [d.id for d in found] == [*(f"a.json:{n}" for n in range(1, 6)),
                                     "b.jsonl:1", "b.jsonl:3", "b.jsonl:5"]  # fmt: skip
    assert not skipped and found[0].group == found[5].group != found[1].group
    assert found[0].text == "user: q0\n\nassistant: a0"
    assert len(read(tmp_path / "a.json", max_documents=2)[0]) == 2
    (tmp_path / "c.jsonl").write_text('{"text": "a b", "label": "x"}')
    (labelled,), _ = read(tmp_path / "c.jsonl")
    assert labelled.meta == {"label": "x"} and labelled.text == "a b"


def test_nothing_to_learn_is_counted_with_its_number(tmp_path):
    items = [
        {"messages": [USER]},
        {"messages": [USER, SAID]},
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        {"prompt": "a", "completion": " "},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, items)))
    found, skipped = read(tmp_path / "a.jsonl")
    assert [d.id for d in found] == ["a.jsonl:2"]
    assert skipped == [
        ("no answer to learn", "a.jsonl:1"),
        ("no answer to learn", "a.jsonl:3"),
        ("nothing to learn", "a.jsonl:4"),
        ("chosen and rejected are the same", "a.jsonl:5"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "com', "line 2, which"),
        ("[1, 2]", r"a.jsonl:1: 1"),
        ("[{", "which is not JSON"),
        ('{"a": 1}', "a.jsonl:1"),
        ('{"messages": [{"role": "user"}]}', "message 1: no content"),
        ('{"messages": "hi"}', "a.jsonl:1"),
        ('{"messages": [{"role": "asistant", "content": "x"}]}', "role 'asistant'"),
        ('{"prompt": 3, "completion": "b"}', "a.jsonl:1"),
        ('{"instruction": 3, "output": "b"}', "3 is no text"),
    ],
)
def test_files_that_are_wrong(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.jsonl")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="without a path"):
        read("")
    with pytest.raises(InputError, match=r"no \.json"):
        read(tmp_path / "x")
    (tmp_path / "a.jsonl").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8 at byte 0"):
        read(tmp_path / "a.jsonl")


def test_bad_answers_are_dropped_unless_their_label_is_kept(tmp_path):
    pair = {"prompt": "hi", "chosen": "a", "rejected": "b"}
    items = [
        {"prompt": "hi", "completion": "yo", "label": True},
        {"prompt": "hi", "completion": "no", "label": False},
        {"messages": [USER, SAID], "kto_tag": 1},
        {"prompt": [USER], "answer": [OTHER], "good": False},
        {"prompt": "hi", "completion": "yo"},
        pair,
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, items)))

    def read(**knobs):
        spec = {"name": "records", "path": str(tmp_path), **knobs}
        skipped = []
        documents = registry.build("sources", spec)(lambda why, id: skipped.append(why))
        return [d.meta["record"] for d in documents], skipped

    made, skipped = read()
    assert made == [
        {"prompt": "hi", "completion": "yo"}, {"messages": [USER, SAID]},
        {"prompt": "hi", "completion": "yo"}, pair,
    ]  # fmt: skip
    assert skipped == ["label false: the answer is marked as bad",
                       "good false: the answer is marked as bad"]  # fmt: skip
    made, skipped = read(labels=True)
    assert made == [
        items[0], items[1], {"messages": [USER, SAID], "label": True},
        {"messages": [USER, OTHER], "label": False}, pair,
    ]  # fmt: skip
    assert skipped == ["no label that says whether the answer is good or bad"]


def test_texts_that_differ_by_their_label_alone_stay_apart():
    record = {"prompt": "hi", "completion": "yo"}
    assert len({readable(record | {"label": b}) for b in (True, False)}) == 2
