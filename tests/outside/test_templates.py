"""Chat templates of the shapes that models come with: what is learned, what is refused.

Each template is the smallest one that has a trait of a family: history without
thoughts, no end behind the last answer, a header before it. What is learned of a
conversation is written out.
"""

import dataclasses
import json

import numpy as np
import pytest
import served

from llm.child_process import Child
from llm.data import chat, record_forms, record_tokens, tokens
from llm.document import Document
from llm.errors import InputError, MachineError
from llm.tokenizers import (
    answer_spans,
    chat_settings,
    chat_template,
    hf_tokenizer,
    template_process,
)
from llm.tokenizers.chat_settings import Chat


def user(content):
    return {"role": "user", "content": content}


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


CALL = {"id": "abcdef123", "type": "function",
        "function": {"name": "look", "arguments": {"at": "sky"}}}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "look", "description": "",
                                           "parameters": {}}}]  # fmt: skip
DEFINED = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
EACH = "{% for m in messages %}"
LAST = "{% if add_generation_prompt %}<|a|>{% endif %}"
ENDS = ("<|end|>", "<|user|>", "<|result|>", "</s>")
TWO = [user("one"), said("uno"), user("two"), said("dos")]
THINKING = [user("one"), said("uno", reasoning_content="hm"), user("two"),
            said("dos", reasoning_content="ah")]  # fmt: skip
CALLING = [user("look"), said(None, tool_calls=[CALL]),
           {"role": "tool", "content": "blue"}, said("Blue.")]  # fmt: skip

# Qwen 3: only the last answer has a block of thoughts, an empty one if need be.
LAST_THINKS = (
    EACH + "{% if m.role == 'assistant' %}<|a|>{% if loop.last %}<think>\n"
    "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n"
    "{% else %}<|u|>{{ m.content }}<|end|>\n{% endif %}{% endfor %}" + LAST
)
# DeepSeek R1's distillations and Nemotron: the prompt opens the block.
PROMPT_THINKS = (
    EACH + "{% if m.role == 'assistant' %}<|a|><think>{{ m.reasoning_content }}</think>"
    "{{ m.content }}<|end|>{% else %}<|u|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|a|><think>\n{% endif %}"
)
# GLM: the next role ends an answer.
NEXT_ENDS = (
    DEFINED + EACH + "{% if m.role == 'assistant' %}<|a|>\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}</call>{% endfor %}"
    "{% elif m.role == 'tool' %}<|result|>{{ m.content }}"
    "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}" + LAST
)
# Phi 3: an end of the text behind the last message.
TEXT_ENDS = (
    EACH + "<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}</s>{% endif %}"
)
# gpt-oss: a channel before the content.
CHANNELS = (
    EACH + "{% if m.role == 'assistant' %}<|a|>"
    "{% if m.thinking %}<|c|>analysis<|m|>{{ m.thinking }}<|stop|><|a|>{% endif %}"
    "<|c|>final<|m|>{{ m.content }}{{ '</s>' if loop.last else '<|end|>' }}"
    "{% else %}<|u|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + LAST
)
PARTS = (
    EACH + "<|{{ m.role }}|>{% for part in m.content %}{{ part.text }}{% endfor %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# DeepSeek V3: arguments as JSON, put into a text.
JSON_CALLS = (
    DEFINED + EACH + "{% if m.role == 'assistant' %}<|a|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ c.function.name + ' ' + c.function.arguments }}{% endfor %}<|end|>"
    "{% else %}<|u|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + LAST
)
MARKED = (
    EACH + "{% if m.role == 'assistant' %}<|a|>{% generation %}{{ m.content }}<|end|>\n"
    "{% endgeneration %}{% else %}<|u|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    + LAST
)
PLAIN = (
    EACH + "{% if m.role == 'assistant' %}<|a|>{{ m.content }}<|end|>"
    "{% elif m.role == 'user' %}<|u|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    + LAST
)  # leaves out what is neither

LEARNED = {
    "thoughts": (LAST_THINKS, THINKING,
                 [["<think>\nhm\n</think>\n\nuno<|end|>"],
                  ["<think>\nah\n</think>\n\ndos<|end|>"]]),
    "no thoughts": (LAST_THINKS, TWO, [["uno<|end|>"], ["dos<|end|>"]]),
    "an open block": (PROMPT_THINKS, [user("one"), said("uno")], [["uno<|end|>"]]),
    "an open block with thoughts": (PROMPT_THINKS, THINKING,
                                    [["hm</think>uno<|end|>", "ah</think>dos<|end|>"]]),
    "the next role": (NEXT_ENDS, TWO, [["\nuno<|user|>", "\ndos<|user|>"]]),
    "a letter": (NEXT_ENDS, [user("a"), said("e")], [["\ne<|user|>"]]),
    "the next role behind a call": (NEXT_ENDS, CALLING, [
        ['\n<call>look{"at": "sky"}</call><|result|>', "\nBlue.<|user|>"]]),
    "the end of the text": (TEXT_ENDS, TWO, [["uno<|end|>", "dos<|end|>"]]),
    "channels": (CHANNELS, TWO, [["<|c|>final<|m|>uno</s>"],
                                 ["<|c|>final<|m|>dos</s>"]]),
    "channels of thoughts": (CHANNELS, THINKING[:2], [[
        "<|c|>analysis<|m|>hm<|stop|><|a|><|c|>final<|m|>uno</s>"]]),
    "parts": (PARTS, TWO, [["uno<|end|>", "dos<|end|>"]]),
    "calls as JSON": (JSON_CALLS, CALLING, [['look {"at": "sky"}<|end|>',
                                             "Blue.<|end|>"]]),
    "marks": (MARKED, TWO, [["uno<|end|>", "dos<|end|>"]]),
    "ours": (chat_template.TEMPLATES["plain"].replace("eos_token", "'<|end|>'"),
             CALLING, [['<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n'
                        "</tool_call><|end|>", "Blue.<|end|>"]]),
    "ours with thoughts": (chat_template.TEMPLATES["chatml"]
                           .replace("<|im_end|>", "<|end|>"), THINKING,
                           [["<think>\nhm\n</think>\n\nuno<|end|>",
                             "<think>\nah\n</think>\n\ndos<|end|>"]]),
}  # fmt: skip


def sequences(template, messages, **knobs):
    tools = TOOLS if any(m.get("tool_calls") for m in messages) else ()
    view = chat_template.view(template, messages, tools=tools)
    controls = (*ENDS, "<|a|>", "<|u|>", "<|c|>", "<|m|>")
    return answer_spans.sequences(view, controls=controls, ends=ENDS, **knobs)


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_learned(name):
    template, messages, want = LEARNED[name]
    made = sequences(template, messages)
    assert [[text[s.start : s.stop] for s in spans] for text, spans in made] == want
    # Of each answer once, and behind the prompt that the model would be given.
    numbers = [span.message for _, spans in made for span in spans]
    assert numbers == [n for n, m in enumerate(messages) if m["role"] == "assistant"]


def test_an_empty_block_of_thoughts_is_learned_if_asked():
    (text, (span,)), _ = sequences(LAST_THINKS, TWO, learn_empty_think=True)
    assert text[span.start : span.stop] == "<think>\n\n</think>\n\nuno<|end|>"
    own = [user("one"), said("<think>\n\n</think>\n\nuno")]
    ((text, (span,)),) = sequences(PLAIN, own)  # which stands in the answer itself
    assert text[span.start : span.stop] == own[1]["content"] + "<|end|>"


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([{"role": "system", "content": "s"}, *TWO], "a system message"),
        (CALLING, "definitions of tools"),
        (CALLING[2:], "tool calls or results"),
        (THINKING, "reasoning_content"),
    ],
)
def test_what_a_template_leaves_out_is_refused(messages, what):
    with pytest.raises(InputError, match=f"{what}, which this chat template leaves"):
        sequences(PLAIN, messages)


def system(content):
    return {"role": "system", "content": content}


# How templates treat a system message that is not the only one, or not the first.
BODY = "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + LAST
ALL_SYSTEMS = EACH + BODY
FIRST_SYSTEM = (
    EACH + "{% if m.role != 'system' or loop.first %}<|{{ m.role }}|>{{ m.content }}"
    "<|end|>{% endif %}{% endfor %}" + LAST
)
LAST_SYSTEM = (
    "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.s = m.content %}{% endif %}{% endfor %}{{ ns.s }}"
    "{% for m in messages if m.role != 'system' %}" + BODY
)
LEADING_SYSTEMS = (
    "{% set ns = namespace(lead=true) %}" + EACH + "{% if m.role != 'system' %}"
    "{% set ns.lead = false %}{% endif %}{% if m.role != 'system' or ns.lead %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + LAST
)
REFUSES_LATER = FIRST_SYSTEM.replace(
    "{% endif %}{% endfor %}",
    "{% else %}{{ raise_exception('system first') }}{% endif %}{% endfor %}",
)
TALKS = {
    "first": [system("sa"), *TWO],
    "two at first": [system("sa"), system("sb"), *TWO],
    "between": [system("sa"), *TWO[:2], system("sb"), *TWO[2:]],
    "between, none at first": [*TWO[:2], system("sb"), *TWO[2:]],
    "behind a question": [TWO[0], system("sb"), *TWO[1:]],
    "behind both": [system("sa"), TWO[0], system("sb"), *TWO[1:]],
}


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize(
    ("template", "written"),
    [
        (ALL_SYSTEMS, set(TALKS)),
        (FIRST_SYSTEM, {"first"}),
        (LAST_SYSTEM, {"first", "between, none at first", "behind a question"}),
        (LEADING_SYSTEMS, {"first", "two at first"}),
        (PLAIN, set()),
        (REFUSES_LATER, {"first"}),
    ],
)
def test_every_system_message_is_written_or_the_record_refused(template, written, talk):
    messages = TALKS[talk]
    if talk not in written:
        refuses = "system first" if template is REFUSES_LATER else "a system message"
        with pytest.raises(InputError, match=refuses):
            chat_template.view(template, messages).whole(len(messages))
        return
    text, _ = chat_template.view(template, messages).whole(len(messages))
    assert all(m["content"] in text for m in messages)


def test_thoughts_that_a_template_cuts_out_are_refused():
    cuts = PLAIN.replace("<|a|>{{ m.content }}",
                         "<|a|>{{ m.content.split('</think>')[-1] }}")  # fmt: skip
    with pytest.raises(InputError, match="message 2, an answer"):
        sequences(cuts, [user("one"), said("<think>hm</think>uno")])


BOTH_CALLS = [
    user("look"),
    said(None, tool_calls=[CALL, CALL | {"id": "abcdef124"}]),
    {"role": "tool", "content": "blue"},
    {"role": "tool", "content": "grey"},
    said("Both."),
]
MARKED_CALLS = JSON_CALLS.replace(
    "{{ m.content }}{%", "{% generation %}{{ m.content or '' }}{%", 1
).replace("<|end|>{% else", "<|end|>{% endgeneration %}{% else", 1)


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (MARKED.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}", 1),
         [user("one"), said("<think>hm</think>uno")]),
        (MARKED.replace("{{ m.content }}", "{{ m.content | upper }}", 1), TWO),
        (MARKED_CALLS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"),
         BOTH_CALLS),
        (MARKED_CALLS.replace("{{ m.content or '' }}", "{% if not m.tool_calls %}"
                              "{{ m.content }}{% endif %}"),
         [user("look"), said("Let me see", tool_calls=[CALL]), *CALLING[2:]]),
    ],
)  # fmt: skip
def test_marks_leave_nothing_out(template, messages):
    with pytest.raises(InputError, match="message 2, an answer that the chat template"):
        sequences(template, messages)


def test_marks_around_all_calls():
    ((text, spans),) = sequences(MARKED_CALLS, BOTH_CALLS)
    assert text[spans[0].start : spans[0].stop].count('look {"at": "sky"}') == 2


def test_the_date_is_a_value():
    template = "{{ strftime_now('%d %b %Y') }}" + PLAIN
    text = chat_template.prompt(template, [user("hi")], date="2026-01-31")
    assert text.startswith("31 Jan 2026<|u|>hi")


def test_a_process_that_does_not_start_is_no_fault_of_the_template(monkeypatch):
    """Else every record would be dropped, or a template said not to write its turns."""
    monkeypatch.setattr(template_process, "_child", Child("/nowhere/child.py"))
    template = LAST_THINKS + "{# not seen before #}"
    with pytest.raises(MachineError, match="does not start"):
        chat_template.view(template, TWO)
    record = {"messages": TWO}
    tokenizer = dataclasses.replace(served.TOKENIZER, chat_template=template)
    document = Document(
        "a.jsonl:1", "", "records", "a", "record", 0, {"record": record}
    )
    with pytest.raises(MachineError, match="does not start"):
        tokens._sequences(document, tokenizer, dropped := {})
    assert not dropped


# As Qwen 3 has it: thoughts may be turned off, which the prompt says.
OFF = "{% if enable_thinking is defined and enable_thinking is false %}-{% endif %}"
OPTIONAL = (
    EACH + "<{{ m.role }}>{% if m.role == 'assistant' %}" + OFF + "{% endif %}"
    "{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>" + OFF + "{{ tone }}{% endif %}"
)


def with_variables(**saved):
    return dataclasses.replace(
        served.TOKENIZER, chat_template=OPTIONAL, chat=Chat(template_variables=saved)
    )


def test_variables_of_a_template():
    def asked(tokenizer, **variables):
        ids = chat.prompt_ids(tokenizer, TWO[:1], variables=variables)
        return tokenizer.decode(ids).rpartition("<assistant>")[2]

    assert asked(with_variables()) == ""
    assert asked(with_variables(), enable_thinking=False, tone="calm") == "-calm"
    assert asked(with_variables(enable_thinking=False)) == "-"
    assert asked(with_variables(enable_thinking=False), enable_thinking=True) == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"enable_thinkin": False},
            "'enable_thinkin', which the chat template",
        ),
        ({"messages": "x"}, "messages among the template's variables"),
        ({"eos_token": "x"}, "eos_token among the template's variables"),
        ({"tone": ["x"]}, "tone = "),
    ],
)
def test_variables_that_are_none(variables, message):
    with pytest.raises(InputError, match=message):
        chat.prompt_ids(with_variables(), TWO[:1], variables=variables)


def test_variables_of_a_record():
    """TRL's column: the same messages are learned after another prompt."""
    row = {"messages": TWO[:2], "chat_template_kwargs": {"enable_thinking": False}}
    record, unused = record_forms.read(row)
    assert not unused
    (one,) = record_tokens.encode(record, with_variables())
    given = served.TOKENIZER.decode(np.array(one.ids)[one.parts == record_tokens.GIVEN])
    assert given.endswith("<assistant>-")
    with pytest.raises(ValueError, match="without messages"):
        record_forms.read({**row, "messages": None, "text": "a", "label": 1})


def test_variables_of_a_config():
    chosen = {"template_variables": '{"enable_thinking": false}'}
    assert chat_settings.check(chosen).template_variables == {"enable_thinking": False}
    for wrong in ("enable_thinking", "[1]", '{"a": {}}', '{"a": null}'):
        with pytest.raises(InputError, match="template_variables"):
            chat_settings.check({"template_variables": wrong})


def foreign(folder, **settings):
    from test_hf_tokenizer import byte_level

    files = byte_level()
    held = json.loads(files["tokenizer_config.json"]) | settings
    files["tokenizer_config.json"] = json.dumps(held)
    return hf_tokenizer.save(folder / "t", files, rows=1, fields={})


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"sep_token": "<s>"}, "<s>--"), ({"cls_token": {"content": "<c>"}}, "-<c>-"),
        ({"extra_special_tokens": {"image_token": "<i>"}}, "--<i>"),
        ({"extra_special_tokens": ["<i>"]}, "--"), ({"sep_token": None}, "--"),
    ],
)  # fmt: skip
def test_special_tokens_that_a_template_writes_by_name(settings, written, tmp_path):
    template = "{{ sep_token }}-{{ cls_token }}-{{ image_token }}"
    made = foreign(tmp_path, chat_template=template, **settings)
    text = chat_template.prompt(made.chat_template, TWO[:1], tokens=made.spellings)
    assert text == written


@pytest.mark.parametrize(
    "template", [{"default": PLAIN}, [PLAIN], [{"default": PLAIN}], 7, True]
)
def test_a_template_that_is_no_text_is_one_line(template, tmp_path):
    with pytest.raises(
        InputError, match=r"got chat_template .*; want a text"
    ) as caught:
        foreign(tmp_path, chat_template=template)
    assert "\n" not in str(caught.value)
    several = [{"name": "rag", "template": "x"}, {"name": "default", "template": PLAIN}]
    assert foreign(tmp_path, chat_template=several).chat_template == PLAIN
