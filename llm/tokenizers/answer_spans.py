"""Where in the text of a conversation the assistant speaks.

A template may mark it by `{% generation %}`. Of one without these marks, each answer is
rendered with the history as the model would see it at that turn: what follows the
prompt, up to the token that ends the turn, is the answer. Templates of reasoning models
write the last answer otherwise than those before it: then one conversation becomes
several texts, each with the answers that it shares with the prompts they were given to.

    for text, spans in sequences(view, controls=("<|im_end|>",), ends=("<|im_end|>",)):
        text[spans[0].start : spans[0].stop]       # the first answer and its end
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from llm.errors import InputError, MachineError
from llm.tokenizers import template_support
from llm.tokenizers.chat_template import View

# An empty block of thoughts, or the end of one that the prompt has begun, such as
# <think></think>, [THINK][/THINK] or ◁think▷◁/think▷.
_NAME = r"[^\s<>\[\]◁▷/]*(?:think|thought)[^\s<>\[\]◁▷/]*"
_NO_THOUGHTS = re.compile(
    rf"\s*(?:[<\[◁]{_NAME}[>\]▷]\s*)?[<\[◁]/{_NAME}[>\]▷]\s*", re.IGNORECASE
)
_HALF_TAG = re.compile(r"[<\[◁][^\s<>\[\]◁▷]*$")
# An answer and a question that nobody writes.
_SAID, _NEXT = "okapiquagga", "platypusnumbat"


class Span(NamedTuple):
    """Characters `start` to `stop` are what message number `message` says."""

    message: int
    start: int
    stop: int


class Rendered(NamedTuple):
    """A text that is learned from, and the answers in it."""

    text: str
    spans: list[Span]


def sequences(
    view: View,
    *,
    controls: Sequence[str],
    ends: Sequence[str],
    learn_empty_think: bool = False,
) -> list[Rendered]:
    """The texts of a conversation; one without an answer is one text without spans.

    Args:
      controls: spellings of the tokenizer's control tokens.
      ends: those that end a text.
      learn_empty_think: whether an empty block of thoughts, which the template puts
        before an answer, is a part of it.

    Raises:
      InputError: a template that does not take the messages, or one in which an answer
        does not follow its prompt.
    """
    made: list[Rendered] = []
    find = _Finder(view, _any(controls), _any(ends), learn_empty_think)
    for number, message in enumerate(view.messages):
        if message["role"] != "assistant":
            continue
        text, spans = find.answer(number)
        if made and text.startswith(made[-1].text):
            made[-1] = Rendered(text, [*made[-1].spans, *spans])
        else:
            made.append(Rendered(text, spans))
    whole, _ = view.whole(len(view.messages))
    if not made:
        return [Rendered(whole, [])]
    if whole.startswith(made[-1].text):  # with what follows the last answer
        made[-1] = made[-1]._replace(text=whole)
    return made


def _any(spellings: Sequence[str]) -> re.Pattern | None:
    ordered = sorted(filter(None, spellings), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


class _Finder(NamedTuple):
    """Finds one answer at a time."""

    view: View
    controls: re.Pattern | None
    ends: re.Pattern | None
    learn_empty_think: bool

    def answer(self, number: int) -> Rendered:
        """The text up to the end of an answer, and where in it the answer is."""
        before = self.view.prompt(number)
        whole, marked = self.view.whole(number + 1)
        shared = _shared(before, whole)
        if marked:
            return self._marked(number, whole, [s for s in marked if s.stop > shared])
        start = self._start(number, before, whole, shared)
        text, stop = self._stop(number, whole, start)
        return Rendered(text[:stop], [Span(number, start, stop)])

    def _marked(self, number: int, whole: str, own: list[range]) -> Rendered:
        """What is in generation marks, without white space behind its end."""
        stop = max((span.stop for span in own), default=0)
        for end in self.ends.finditer(whole[:stop]) if self.ends else ():
            if not whole[end.end() : stop].strip():
                stop = end.end()
                break
        at, message = (
            min((s.start for s in own), default=stop),
            self.view.messages[number],
        )
        for text in (*_thoughts(message), *_texts(message)):
            place = whole.find(text, at)
            if place < 0:
                raise _apart(number)
            at = place + len(text)
        spans = [Span(number, s.start, min(s.stop, stop)) for s in own]
        return Rendered(whole[:stop], spans)

    def _start(self, number: int, before: str, whole: str, shared: int) -> int:
        message = self.view.messages[number]
        if shared < len(before):
            # The prompt goes on with something else, such as an open block of thoughts;
            # but all that was said before must be shared.
            said = _texts(self.view.messages[number - 1]) if number else []
            if any(text in before[shared:] for text in said if len(text) > 1):
                raise _apart(number)
            # The two may go on alike by chance, for a letter or a half of a tag.
            half = _HALF_TAG.search(whole[:shared])
            shared = half.start() if half else shared
            first = next(iter((*_thoughts(message), *_texts(message))), "")
            at = whole.find(first, max(shared - len(first), 0)) if first else -1
            header = whole.find(before[shared:], shared, at if at >= 0 else None)
            if header >= 0:  # behind what the history has only when it goes on
                shared = header + len(before[shared:])
            elif at >= 0:
                shared = min(shared, at)
        content = message.get("content") or ""
        own = isinstance(content, str) and _NO_THOUGHTS.match(content)
        empty = _NO_THOUGHTS.match(whole, shared)
        return (
            empty.end() if empty and not own and not self.learn_empty_think else shared
        )

    def _stop(self, number: int, whole: str, start: int) -> tuple[str, int]:
        """(text, where in it the answer stops)."""
        message, at = self.view.messages[number], start
        for text in (*_thoughts(message), *_texts(message)):
            place = whole.find(text, at)
            if place < 0:
                raise _apart(number)
            at = place + len(text)
        calls = bool(message.get("tool_calls"))  # in which control tokens may stand
        for pattern in (self.ends, None if calls else self.controls):
            end = pattern and pattern.search(whole, at)
            if end:
                return whole, end.end()
        if calls:
            text = self._before_result(number, whole.rstrip())
        else:
            end = self._next_end(number)
            text = whole[:at] + end if end else whole.rstrip()
        return text, len(text)

    def _before_result(self, number: int, whole: str) -> str:
        """The text up to the token behind a call, with which its result begins."""
        if number + 1 < len(self.view.messages) and self.ends:
            text, _ = self.view.whole(number + 2)
            end = self.ends.search(text, len(whole))
            if (
                end
                and text.startswith(whole)
                and not text[len(whole) : end.start()].strip()
            ):
                return text[: end.end()]
        raise _apart(number)

    def _next_end(self, number: int) -> str:
        """What stands behind an answer when the next question comes, up to an end."""
        try:
            text = self.view.followed(number, _SAID, _NEXT)
        except MachineError:
            raise
        except InputError:
            return ""
        at = text.find(_SAID) + len(_SAID)
        end = self.ends and self.ends.search(text, at, text.rfind(_NEXT))
        return text[at : end.end()] if end else ""


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    unlike = (n for n, (a, b) in pairs if a != b)
    return next(unlike, min(len(one), len(other)))


def _texts(message) -> list[str]:
    """What a template must write of a message, in order, behind its thoughts."""
    content = _content(message).split("</think>")[-1].strip()
    calls = message.get("tool_calls") or ()
    return [t for t in (content, *(c["function"]["name"] for c in calls)) if t]


def _thoughts(message) -> list[str]:
    """What a template must write of the thoughts in a message."""
    before, end, _ = _content(message).rpartition("</think>")
    named = (message.get(name) for name in template_support.REASONING)
    found = [before.split("<think>")[-1] if end else "", *named]
    return [text.strip() for text in found if text and text.strip()][:1]


def _content(message) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def _apart(number: int) -> InputError:
    return InputError(
        got=f"message {number + 1}, an answer that the chat template changes, or does "
        "not write behind its prompt",
        want="answers that it writes as they are",
        do="put {% generation %} and {% endgeneration %} around them in the template",
    )
