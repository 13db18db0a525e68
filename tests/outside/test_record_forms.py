"""Records for tuning as other projects write them: read, refused or counted by name.

One case is a row of a form that is in use; what is expected is written out.
"""

import gzip
import json

import pytest

from llm import registry
from llm.data import record_forms
from llm.document import NOTE
from llm.errors import InputError


def user(content):
    return {"role": "user", "content": content}


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look", "arguments": {"at": "sky"}},
}
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
WRAPPED = {"type": "function", "function": TOOL}
TALK = "\n\nHuman: hi\n\nAssistant: yo"

SYSTEM = {"role": "system", "content": "S"}

FORMS = {
    "Dolly": (
        {"instruction": "q", "context": "c", "response": "a", "category": "open_qa"},
        {"messages": [user("q\n\nc"), said("a")]},
        ["category"],
    ),
    "Alpaca with history and a system prompt": (
        {"instruction": "q", "input": "", "output": "a", "system": "s",
         "history": [["q0", "a0"]]},
        {"messages": [{"role": "system", "content": "s"}, user("q0"),
                      said("a0", weight=0), user("q"), said("a")]},
        [],
    ),
    "prompt and response": (
        {"prompt": "q", "response": "a"}, {"messages": [user("q"), said("a")]}, [],
    ),
    "question and answer (GSM8K)": (
        {"question": "q", "answer": "a"}, {"messages": [user("q"), said("a")]}, [],
    ),
    "OpenOrca": (
        {"id": "x", "system_prompt": "s", "question": "q", "response": "a"},
        {"messages": [{"role": "system", "content": "s"}, user("q"), said("a")]},
        ["id"],
    ),
    "MetaMath": (
        {"query": "q", "response": "a", "type": "t", "original_question": "o"},
        {"messages": [user("q"), said("a")]}, ["original_question", "type"],
    ),
    "UltraChat": (
        {"prompt": "q", "prompt_id": "1", "messages": [user("q"), said("a")]},
        {"messages": [user("q"), said("a")]}, ["prompt_id"],
    ),
    "conversational prompt and completion": (
        {"prompt": [user("q")], "completion": [said("a")]},
        {"messages": [user("q"), said("a")]}, [],
    ),
    "HH-RLHF": (
        {"chosen": "\n\nHuman: hi\n\nAssistant: yo", "rejected":
         "\n\nHuman: hi\n\nAssistant: yawn"},
        {"prompt": [user("hi")], "chosen": [said("yo")], "rejected": [said("yawn")]},
        [],
    ),
    "HH-RLHF that differs before the last turn": (
        {"chosen": f"{TALK}\n\nHuman: ok\n\nAssistant: A",
         "rejected": "\n\nHuman: hi\n\nAssistant: no\n\nHuman: ok\n\nAssistant: A"},
        {"prompt": [user("hi")], "chosen": [said("yo"), user("ok"), said("A")],
         "rejected": [said("no"), user("ok"), said("A")]},
        [],
    ),
    "HH-RLHF with a text before the first turn": (
        {"chosen": f"S{TALK}", "rejected": f"S{TALK}!"},
        {"prompt": [SYSTEM, user("hi")], "chosen": [said("yo")],
         "rejected": [said("yo!")]}, [],
    ),
    "the same as a prompt": (
        {"prompt": "S\n\nHuman: hi\n\nAssistant:", "chosen": "yo", "rejected": "no"},
        {"prompt": [SYSTEM, user("hi")], "chosen": "yo", "rejected": "no"}, [],
    ),
    "a text with a line that looks like a turn": (
        {"prompt": "He wrote\n\nHuman: a novel", "chosen": "yes", "rejected": "no"},
        {"prompt": "He wrote\n\nHuman: a novel", "chosen": "yes", "rejected": "no"}, [],
    ),
    "a prompt as HH-RLHF writes it": (
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " yo", "rejected": " no"},
        {"prompt": [user("hi")], "chosen": "yo", "rejected": "no"}, [],
    ),
    "UltraFeedback": (
        {"prompt": "q", "prompt_id": "1", "chosen": [user("q"), said("a")],
         "rejected": [user("q"), said("b")], "messages": [user("q"), said("a")],
         "score_chosen": 8.0, "score_rejected": 3.0},
        {"prompt": [user("q")], "chosen": [said("a")], "rejected": [said("b")]},
        ["prompt_id", "score_chosen", "score_rejected"],
    ),
    "texts that repeat a long prompt": (
        {"prompt": "A question of more than thirty characters?",
         "chosen": "A question of more than thirty characters? yes",
         "rejected": "A question of more than thirty characters? no"},
        {"prompt": "A question of more than thirty characters?", "chosen": " yes",
         "rejected": " no"},
        [],
    ),
    "texts that only begin with the same word": (
        {"prompt": "I", "chosen": "I do", "rejected": "I do not"},
        {"prompt": "I", "chosen": "I do", "rejected": "I do not"}, [],
    ),
    "Orca pairs": (
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "system", "content": "s"}, user("q")], "chosen": "a",
         "rejected": "b"},
        [],
    ),
    "two texts": (
        {"chosen": "Once upon a time", "rejected": "Once upon a tide"},
        {"prompt": "Once upon a ", "chosen": "time", "rejected": "tide"}, [],
    ),
    "Glaive in the form of ShareGPT": (
        {"conversations": [
            {"from": "human", "value": "look"},
            {"from": "function_call",
             "value": '{"name": "look", "arguments": {"at": "sky"}}'},
            {"from": "observation", "value": "blue"},
            {"from": "gpt", "value": "Blue."}],
         "tools": json.dumps([TOOL])},
        {"messages": [user("look"),
                      said(None, tool_calls=[CALL | {"id": "call00000"}]),
                      {"role": "tool", "content": "blue"}, said("Blue.")],
         "tools": [WRAPPED]},
        [],
    ),
    "OpenAI's with calls, weights and parts": (
        {"messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"},
                                         {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "no", "weight": 0},
            user("look"),
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [
                CALL | {"function": {"name": "look", "arguments": '{"at": "sky"}'}}]},
            {"role": "tool", "content": "blue", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Blue.", "weight": 1}],
         "tools": [WRAPPED], "parallel_tool_calls": False},
        {"messages": [user("ab"), said("no", weight=0), user("look"),
                      said(None, tool_calls=[CALL]),
                      {"role": "tool", "content": "blue", "tool_call_id": "c1"},
                      said("Blue.", weight=1)],
         "tools": [WRAPPED]},
        ["parallel_tool_calls"],
    ),
    "OpenAI's older calls": (
        {"messages": [user("look"), {"role": "assistant", "content": None,
                                     "function_call": {"name": "look",
                                                       "arguments": "{}"}},
                      {"role": "function", "name": "look", "content": "blue"}],
         "functions": [TOOL]},
        {"messages": [user("look"), said(None, tool_calls=[
            {"id": "call00000", "type": "function",
             "function": {"name": "look", "arguments": {}}}]),
            {"role": "tool", "content": "blue", "name": "look"}],
         "tools": [WRAPPED]},
        [],
    ),
    "reasoning": (
        {"messages": [user("q"), {"role": "assistant", "content": "a",
                                  "reasoning": "r", "mood": "x"}]},
        {"messages": [user("q"), said("a", reasoning_content="r")]},
        ["mood of a message"],
    ),
    "NuminaMath: messages and a copy in fields": (
        {"source": "x", "problem": "2+2?", "solution": "4",
         "messages": [user("2+2?"), said("4")]},
        {"messages": [user("2+2?"), said("4")]}, ["source"],
    ),
    "OpenR1-Math: messages, and a solution of another hand": (
        {"problem": "2+2?", "solution": "Four.", "answer": "4",
         "messages": [user("2+2?"), said("<think>2, 2</think>4")]},
        {"messages": [user("2+2?"), said("<think>2, 2</think>4")]},
        ["answer", "solution"],
    ),
    "OpenMathReasoning: a solution that ends with the answer": (
        {"problem": "2+2?", "solution": "It is 4.", "answer": "4"},
        {"messages": [user("2+2?"), said("It is 4.")]}, ["answer"],
    ),
    "Magpie": (
        {"instruction": "q", "response": "a",
         "conversations": [{"from": "human", "value": "q"},
                           {"from": "gpt", "value": "a"}]},
        {"messages": [user("q"), said("a")]}, [],
    ),
    "messages that end with the question": (
        {"messages": [user("q")], "response": "a"},
        {"messages": [user("q"), said("a")]}, [],
    ),
    "a pair beside the conversation that it is of": (
        {"prompt": "q", "messages": [user("q"), said("a")],
         "chosen": "a", "rejected": "b"},
        {"prompt": [user("q")], "chosen": "a", "rejected": "b"}, ["prompt"],
    ),
    "the same with answers as messages": (
        {"messages": [user("q"), said("b")],
         "chosen": [said("a")], "rejected": [said("b")]},
        {"prompt": [user("q")], "chosen": [said("a")], "rejected": [said("b")]}, [],
    ),
    "a pair with a label of its own": (
        {"prompt": [user("q")], "chosen": "a", "rejected": "b", "label": 0},
        {"prompt": [user("q")], "chosen": "a", "rejected": "b"}, ["label"],
    ),
    "one answer under two names": (
        {"question": "q", "response": "a", "output": "a"},
        {"messages": [user("q"), said("a")]}, [],
    ),
    "a short prompt that both answers repeat": (
        {"prompt": "What is 2+2?", "chosen": "What is 2+2? 4",
         "rejected": "What is 2+2? 5"},
        {"prompt": "What is 2+2?", "chosen": " 4", "rejected": " 5"}, [],
    ),
    "the same of HH-RLHF": (
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": TALK,
         "rejected": TALK + "!"},
        {"prompt": [user("hi")], "chosen": "yo", "rejected": "yo!"}, [],
    ),
    "a completion that repeats its prompt": (
        {"prompt": "A prompt of more than thirty characters:",
         "completion": "A prompt of more than thirty characters: yes"},
        {"prompt": "A prompt of more than thirty characters:",
         "completion": " yes"}, [],
    ),
    "a system message beside texts": (
        {"system": "S", "prompt": "q", "completion": "a"},
        {"messages": [SYSTEM, user("q"), said("a")]}, [],
    ),
    "a system message beside a pair of texts": (
        {"system": "S", "prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [SYSTEM, user("q")], "chosen": "a", "rejected": "b"}, [],
    ),
    "a system message that the messages have": (
        {"system": "S", "messages": [SYSTEM, user("q"), said("a")]},
        {"messages": [SYSTEM, user("q"), said("a")]}, [],
    ),
    "a number as the answer, and no history": (
        {"instruction": "2+2?", "output": 4, "history": ""},
        {"messages": [user("2+2?"), said("4")]}, [],
    ),
    "marks of a message that are false": (
        {"messages": [user("q"), said("a", training=False, learn=False)]},
        {"messages": [user("q"), said("a", weight=0)]}, ["learn of a message"],
    ),
    "a good answer in words, of weight 1": (
        {"prompt": "q", "response": "a", "label": "True", "weight": 1},
        {"messages": [user("q"), said("a")]}, [],
    ),
    "an unpaired preference that is good": (
        {"prompt": [user("q")], "completion": [said("a")], "label": True},
        {"messages": [user("q"), said("a")]}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    item, record, unused = FORMS[name]
    assert record_forms.read(item) == (record, unused)


REFUSED = {
    "pairs with different prompts": (
        {"chosen": [user("q"), said("a")], "rejected": [user("p"), said("b")]},
        "different prompts",
    ),
    "an answer to another prompt than the record's": (
        {"prompt": [user("q")], "chosen": [user("q"), said("a")],
         "rejected": [user("p"), said("b")]},
        "another prompt",
    ),
    "two texts that share nothing": (
        {"chosen": "yes", "rejected": "no"}, "without a prompt",
    ),
    "one answer is the other's beginning": (
        {"chosen": [user("q"), said("a"), user("r"), said("b")],
         "rejected": [user("q"), said("a")]},
        "the beginning of the other",
    ),
    "a bad answer": ({"prompt": "q", "completion": "a", "label": False}, "as bad"),
    "a bad conversation": (
        {"messages": [user("q"), said("a")], "kto_tag": False}, "as bad",
    ),
    "a weight of 0 of the record": (
        {"messages": [user("q"), said("a")], "weight": 0}, "weight 0",
    ),
    "half a weight of the record": (
        {"messages": [user("q"), said("a")], "weight": 0.5}, "only 0 and 1",
    ),
    "two texts that begin alike by chance": (
        {"chosen": "Yes, I can help you with that.", "rejected": "Yes, but I won't."},
        "without a prompt",
    ),
    "a prompt that ends with a third answer": (
        {"messages": [user("q"), said("c")], "chosen": "a", "rejected": "b"},
        "neither of the two",
    ),
    "another system message than that of the messages": (
        {"system": "S", "messages": [{"role": "system", "content": "T"}, user("q"),
                                     said("a")]},
        "with another one",
    ),
    "two system messages": (
        {"system": "S", "system_prompt": "T", "instruction": "q", "output": "a"},
        "which of them is the system message",
    ),
    "a system message of a translation": (
        {"system": "S", "source": "a", "target": "b"}, "without messages",
    ),
    "half a weight": (
        {"messages": [user("q"), said("a", weight=0.5)]}, "only 0 and 1",
    ),
    "a weight of a question": (
        {"messages": [user("q") | {"weight": 1}, said("a")]}, "what the user says",
    ),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]},
                      said("a")]},
        "'image_url': only texts",
    ),
    "two answers": (
        {"problem": "q", "solution": "a", "answer": "b"}, "which of them is the answer",
    ),
    "a call that is not JSON": (
        {"conversations": [{"from": "function_call", "value": "{"}]}, "not JSON",
    ),
    "tools without messages": (
        {"prompt": "q", "completion": "a", "tools": [TOOL]}, "without messages",
    ),
    "an unknown form": ({"title": "t", "body": "b"}, "its fields: title, body"),
    "an odd history": (
        {"instruction": "q", "output": "a", "history": ["x"]}, "a history",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_says_why(name):
    item, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        record_forms.read(item)


@pytest.mark.parametrize(
    "mark", ["False", "false", "0", 0, -1, "no", "bad", "undesirable"]
)
def test_words_for_a_bad_answer(mark):
    item = {"prompt": "q", "completion": "a", "label": mark}
    with pytest.raises(record_forms.Disliked, match="as bad"):
        record_forms.read(item)


ROWS = [{"prompt": f"q{n}", "response": f"a{n}"} for n in range(3)]
LINES = b"\n".join(json.dumps(row).encode() for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.JSONL", LINES),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("a.json", json.dumps({"data": ROWS}, indent=1).encode()),
    ],
)
def test_files_of_records(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    documents, skipped = source(tmp_path)
    assert [d.meta["record"]["messages"][1]["content"] for d in documents] == [
        "a0", "a1", "a2",
    ]  # fmt: skip
    ((reason, _),) = skipped
    assert reason.startswith(NOTE) and "b.parquet is not read" in reason
    assert source(tmp_path / name)[1] == []


def test_a_file_of_records_that_is_cut_off(tmp_path):
    whole = gzip.compress(LINES, mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz"):
        source(tmp_path)


def source(path, **knobs):
    skipped = []
    read = registry.build("sources", {"name": "records", "path": str(path), **knobs})
    return list(read(lambda reason, id: skipped.append((reason, id)))), skipped


def test_a_bad_row_is_counted_and_not_the_end(tmp_path):
    rows = [json.dumps({"prompt": f"q{n}", "response": f"a{n}"}) for n in range(1000)]
    rows[4] = '{"prompt": "q", "respo'
    rows[7] = json.dumps({"prompt": "q", "response": {"a": 7}})
    rows[9] = "[1]"
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    documents, skipped = source(tmp_path / "a.jsonl")
    assert len(documents) == 997
    assert [id for _, id in skipped] == ["a.jsonl:5", "a.jsonl:8", "a.jsonl:10"]


def test_identical_answers_are_counted(tmp_path):
    pairs = [
        {"prompt": "q", "chosen": "a ", "rejected": "a"},
        {"chosen": TALK, "rejected": TALK},
        {"prompt": "q", "chosen": [user("q"), said("a")], "rejected": [said("a")]},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(pairs))
    documents, skipped = source(tmp_path / "a.json")
    assert [d.id for d in documents] == ["a.json:4"]
    assert {reason for reason, _ in skipped} == {"chosen and rejected are the same"}
    assert len(skipped) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.5], "regression is not supported"),
        (["0.5", "1,5"], "regression is not supported"),
        ([["a", "b"], ["a"]], "multi-label data are not supported"),
        ([f"name {n}" for n in range(40)], "40 different labels of 40 texts"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=message):
        source(tmp_path / "a.json")
