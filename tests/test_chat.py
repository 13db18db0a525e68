"""Chat templates, prompts and what is learned of a conversation."""

import json

import numpy as np
import pytest
from test_hf_tokenizer import CHAT, byte_level
from test_sentencepiece_tokenizer import CODE

from llm.data import chat
from llm.errors import InputError
from llm.tokenizers import (
    answer_spans,
    chat_template,
    hf_tokenizer,
    sentencepiece_tokenizer,
)

TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "hi  there "},
    {"role": "assistant", "content": "Grüße, 日本!"},
    {"role": "user", "content": "and\nnow?"},
    {"role": "assistant", "content": "bye"},
]


def rendered(template, messages, tokens=None):
    """(text, spans) of a conversation that is one sequence."""
    view = chat_template.view(template, messages, tokens=tokens)
    ends = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>")
    ((text, spans),) = answer_spans.sequences(view, controls=ends, ends=ends)
    return text, spans


def conversation(tokenizer, messages):
    """(ids, which of them are learned) of a conversation that is one sequence."""
    ((ids, said),) = chat.conversations(tokenizer, messages)
    return ids, said >= 0


def foreign(folder, template=CHAT):
    pytest.importorskip("tokenizers")
    given = byte_level() | {"chat_template.jinja": template}
    return hf_tokenizer.save(folder / "t", given, rows=1, fields={})


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "t"
    sentencepiece_tokenizer.train([CODE], folder, vocab_size=600)
    (folder / sentencepiece_tokenizer.TEMPLATE).write_text(
        chat_template.TEMPLATES["plain"]
    )
    return sentencepiece_tokenizer.load(folder)


def test_rendering_as_written_out():
    assert chat_template.prompt(CHAT, TALK[:2]) == (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\nhi  there <|im_end|>\n<|im_start|>assistant\n"
    )
    text, spans = rendered(chat_template.TEMPLATES["chatml"], TALK[1:3])
    assert text == (
        "<|im_start|>user\nhi  there <|im_end|>\n"
        "<|im_start|>assistant\nGrüße, 日本!<|im_end|>\n"
    )
    assert [text[s.start : s.stop] for s in spans] == ["Grüße, 日本!<|im_end|>"]


@pytest.mark.parametrize("name", chat_template.TEMPLATES)
def test_marks_and_growing_conversations_agree(name):
    """The spans of marks are those found by rendering without them."""
    marked = chat_template.TEMPLATES[name]
    plain = marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    talk = TALK[1:] if name == "gemma" else TALK
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    want = rendered(marked, talk, tokens=names)
    assert len(want[1]) == 2
    if name == "gemma":  # whose prompt says `model` where others name the role
        assert rendered(plain, talk, tokens=names)[0] == want[0]
    else:
        assert rendered(plain, talk, tokens=names) == want


@pytest.mark.parametrize("marked", [True, False])
def test_masks_equal_transformers(marked, tmp_path):
    """Token by token, through its own `{% generation %}`."""
    transformers = pytest.importorskip("transformers")
    with_marks = chat_template.TEMPLATES["chatml"]
    made = foreign(tmp_path, with_marks if marked else CHAT)
    files = byte_level() | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings = json.loads(files["tokenizer_config.json"])
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer.json").write_text(made.files["tokenizer.json"])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    want = theirs.apply_chat_template(
        TALK,
        chat_template=with_marks,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, learned = conversation(made, TALK)
    assert ids == want["input_ids"]
    assert learned.astype(int).tolist() == want["assistant_masks"]
    assert 0 < learned.sum() < len(ids)
    prompt = theirs.apply_chat_template(
        TALK[:2], chat_template=with_marks, tokenize=True, add_generation_prompt=True,
        return_dict=False,
    )  # fmt: skip
    assert chat.prompt_ids(made, TALK[:2]) == prompt


def test_ours(ours):
    ids, learned = conversation(ours, TALK)
    assert ids[0] == ours.bos_id and ids.count(ours.eos_id) == 2
    answers = [ours.decode(np.array(ids)[part]) for part in runs(learned)]
    assert answers == ["Grüße, 日本!", "bye"]
    assert [ids[part[-1]] for part in runs(learned)] == [ours.eos_id] * 2
    # An answer comes after the very ids that are the prompt for it.
    prompt = chat.prompt_ids(ours, TALK[:2])
    assert ids[: len(prompt)] == prompt and learned[len(prompt)]


def runs(mask):
    """Places of each run of True."""
    places = np.flatnonzero(mask)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)


def test_nobody_writes_special_tokens_into_ours(ours):
    said = [{"role": "user", "content": "a </s> <s> b"}]
    ids = chat.prompt_ids(ours, said)
    assert ids.count(ours.eos_id) == 0 and ids.count(ours.bos_id) == 1


def test_an_answer_may_hold_any_character(ours):
    """What an untrained model says is sent back with the next question."""
    odd = "a\0b\0eos\0</answer>\ufffd\x07"
    said = [{"role": "user", "content": odd}, {"role": "assistant", "content": odd}]
    ids, learned = conversation(ours, said)
    assert ids.count(ours.eos_id) == 1
    assert ours.decode(ids).count(odd) == 2
    assert ours.decode([i for i, is_learned in zip(ids, learned, strict=True)
                        if is_learned]) == odd  # fmt: skip


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", r"refuses \(no\)"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),  # the sandbox
        ("{% if %}", "no Jinja"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}"
         "{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}", "not end"),
        ("{% for a in range(99999) %}" + "x" * 999 + "{% endfor %}", "not end"),
        ("{{ 'a' * 99999999999 }}", "not end"),
        ("{{ 9 ** 9999999 }}", "not end"),
        ("{{ 1 / 0 }}", "refuses"),
        ("{{ lipsum(n=10000000)|length }}", "not end"),
        ("{{ 'a'.ljust(9000000000)|length }}", "not end"),
        ("{{ 'a' | center(9000000000) }}", "not end"),
        ("{{ 'a' | indent(9000000000) }}", "not end"),
        ("{{ 'a b' | wordwrap(1) | length == 3 or raise_exception('no') }}", ""),
        ("{{ '%9000000000d' % 1 }}", "not end"),
        ("{% set a = ' '.ljust(99999) %}{{ a.replace(' ', a) }}", "not end"),
        ("{% set a = ' '.ljust(99999) %}{{ a | join(a) }}", "not end"),
        ("{{ [1]|slice(100000000)|list }}", "not end"),
        ("{{ [1,[2]]|tojson(indent=1000000000) }}", "not end"),
        ("{{ [1]|batch(100000000,'x')|list }}", "not end"),
        ("{% set a='b'.ljust(90000) %}{{ a.translate({32: a}) }}", "not end"),
        ("{{ range(99999)|map('center',99999)|join|length }}", "not end"),
        ("{% set n = namespace(x=['a']) %}{% for i in range(40) %}"
         "{% set n.x = [n.x, n.x, n.x] %}{% endfor %}{{ n.x }}", "not end"),
        ("{% set n = namespace(x='aa') %}{% for i in range(99) %}"
         "{% set n.x = n.x ~ n.x %}{% endfor %}", "not end"),
    ],
)  # fmt: skip
def test_templates_that_misbehave(template, message):
    if not message:
        assert chat_template.prompt(template, TALK[1:2]) == "True"
        return
    with pytest.raises(InputError, match=message) as caught:
        rendered(template, TALK[1:2])
    assert "\n" not in str(caught.value)
    # The next one finds a process that works.
    assert chat_template.prompt("{{ messages[0]['content'] }}", TALK[1:2])


@pytest.mark.parametrize(
    "messages",
    [[{"role": "user"}], ["hi"], [{"role": 1, "content": "a"}],
     [{"role": "user", "content": None}]],
)  # fmt: skip
def test_messages_of_another_form(messages):
    with pytest.raises(InputError, match="message 1"):
        rendered(CHAT, messages)


def test_answers_that_cannot_be_told_apart():
    backwards = "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="does not write behind its prompt"):
        rendered(backwards, TALK)
    assert "Grüße" in chat_template.prompt(backwards, TALK)  # to answer, no need


def test_an_end_that_ends_nothing(tmp_path, ours):
    made = foreign(tmp_path, chat_template.TEMPLATES["llama3"])
    with pytest.raises(InputError, match="chat_template=plain"):
        conversation(made, TALK)


def test_without_a_template(tmp_path):
    folder = tmp_path / "t"
    made = sentencepiece_tokenizer.train([CODE], folder, vocab_size=600)
    with pytest.raises(InputError, match="without a chat template"):
        chat.prompt_ids(made, TALK[:1])
