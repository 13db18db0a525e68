"""Questions with choices: the most likely choice is the answer (MMLU and its like).

Each choice is scored as the continuation of one prompt. Three figures: `accuracy` by
log-probability as it is, and with it divided by the bytes and by the tokens of the
continuation, since long ones are unlikely. Choices that are exactly as likely share
the point: a model that knows nothing is at chance.

Fields: `question`, `choices` (a list, or texts with labels as ARC has them), `answer`
(its number from 0 or from 1, its letter, its text, or its label). Where answers can be
read in two ways, such as 1, 2 and 3 of four choices, `answer_base` says which.
Templates know every field of a record, `{choice}` and `{letter}` of the choice that is
scored, and `{list}`, all choices with their letters, a line each. Shots:
`llm/data/fewshot.py`.
"""

import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llm.data import fewshot as solved
from llm.data.eval_records import Item, filled
from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Likelihood, Score
from llm.metrics import of_items, ratio, summary

TINY: dict[str, Any] = {"limit": 4}
METRICS = (
    Metric("accuracy", "accuracy", "higher", "{:.1%}", headline=True),
    Metric("accuracy_bytes", "accuracy, by bytes", "higher", "{:.1%}"),
    Metric("accuracy_tokens", "accuracy, by tokens", "higher", "{:.1%}"),
)
_LETTERS = string.ascii_uppercase


class Question(NamedTuple):
    """An item, its prompt, its choices, and which of them is right."""

    item: Item
    prompt: str
    choices: list[str]
    right: int


def make(
    *,
    path: str = "",
    fields: str = "",
    columns: str = "",
    prompt: str = "{question}\n{list}\nAnswer:",
    continuation: str = " {letter}",
    preface: str = "",
    separator: str = "\n\n",
    shots: int = 0,
    shots_path: str = "",
    group: str = "",
    seed: int = 0,
    limit: int = 0,
    answer_base: str = "",
    context: Context,
) -> Task:
    """Multiple choice.

    Args:
      path, fields, columns: of the items, as in `llm/data/eval_records.py`.
      prompt, continuation: templates of what is given and of what is scored.
      preface: stands before all; a template, too.
      separator: between shots.
      shots, shots_path, group, seed: solved questions before each.
      limit: items that are asked, evenly spread; 0 is all.
      answer_base: how answers are written: 0, 1, letter, text or label; '' finds out.
    """
    asked = solved.asked(
        path, fields=fields, columns=columns, shots=shots, shots_path=shots_path,
        group=group, seed=seed, limit=limit,
    )  # fmt: skip
    # How answers are written is decided for all items of the file at once: a few may
    # lack the number that tells.
    right = _answers(asked.every, answer_base)
    right |= _answers(
        {x.id: x for some in asked.shots for x in some}.values(), answer_base
    )

    def given(item):
        return filled(prompt, item, {"list": _listed(item)})

    def scored(item, number):
        more = {"choice": _choices(item)[number], "letter": _LETTERS[number]}
        return filled(continuation, item, more | {"list": _listed(item)})

    def question(item, before):
        parts = [given(x) + scored(x, right[x.id]) for x in before] + [given(item)]
        text = separator.join(parts)
        if preface:
            text = filled(preface, item) + separator + text
        return Question(item, text, _choices(item), right[item.id])

    def requests(q):
        return [
            Score(q.prompt, scored(q.item, number)) for number in range(len(q.choices))
        ]

    def measure(q, answers: list[Likelihood]):
        ways = {
            "accuracy": [a.logprob for a in answers],
            "accuracy_bytes": [
                a.logprob / max(len(scored(q.item, n).strip().encode()), 1)
                for n, a in enumerate(answers)
            ],
            "accuracy_tokens": [a.logprob / a.tokens for a in answers],
        }
        best = {name: [n for n, y in enumerate(x) if y == max(x)]
                for name, x in ways.items()}  # fmt: skip
        return {
            "id": q.item.id,
            "group": str(q.item[group]) if group else "",
            "input": q.prompt[-600:],
            "target": q.choices[q.right],
            "content": q.item.digest,
            "output": q.choices[best["accuracy"][0]],
            "logprobs": ways["accuracy"],
            "chance": 1 / len(q.choices),
            "values": {n: ((q.right in b) / len(b), 1.0) for n, b in best.items()},
        }

    return Task(
        [question(i, b) for i, b in zip(asked.items, asked.shots, strict=True)],
        requests,
        measure,
        summarise,
        asked.about
        | {"prompt": prompt, "continuation": continuation, "preface": preface},
    )


def summarise(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares that are right, beside chance, and of each group."""
    found = summary(of_items(figures))
    found["chance"] = sum(f["chance"] for f in figures) / len(figures)
    groups = sorted({f["group"] for f in figures} - {""})
    if groups:
        found["groups"] = {
            name: ratio(
                [f["values"]["accuracy"] for f in figures if f["group"] == name]
            ).as_json()
            for name in groups
        }
    return found


def _of_labels(choices: Any) -> bool:
    """Whether each choice is {"text": ..., "label": ...}."""
    return isinstance(choices, list) and all(
        isinstance(choice, Mapping) and {"text", "label"} <= set(choice)
        for choice in choices
    )


def _choices(item: Item) -> list[str]:
    choices = item["choices"]
    if isinstance(choices, Mapping):
        named = isinstance(choices.get("label"), list)
        choices = choices.get("text") if named else list(choices.values())
    elif _of_labels(choices):
        choices = [choice["text"] for choice in choices]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(_LETTERS):
        raise InputError(
            got=f"{item.id} with choices {choices!r:.60}",
            want=f"a list of 2 to {len(_LETTERS)}, or ARC's texts with labels",
        )
    return [str(choice) for choice in choices]


def _listed(item: Item) -> str:
    return "\n".join(
        f"{x}. {c}" for x, c in zip(_LETTERS, _choices(item), strict=False)
    )


def _answers(items, base: str) -> dict[str, int]:
    """The number of the right choice of each item, written in one way in all of them.

    Raises:
      InputError: no way fits all of them, or two do that say different things.
    """
    items = list(items)
    if not items:
        return {}
    known = {"letter": _letter, "0": _number(0), "1": _number(1), "text": _text}
    labelled = all(isinstance(item["choices"], Mapping) for item in items)
    if labelled or all(_of_labels(item["choices"]) for item in items):
        known = {"label": _label}
    if base:
        if base not in known:
            raise InputError(
                got=f"answer_base {base!r}", want=f"one of {', '.join(known)}"
            )
        known = {base: known[base]}
    tried = {
        name: {item.id: way(item) if item["answer"] != "" else -1 for item in items}
        for name, way in known.items()
    }
    fitting = {name: made for name, made in tried.items() if min(made.values()) >= 0}
    if len({tuple(made.values()) for made in fitting.values()}) == 1:
        return next(iter(fitting.values()))
    if fitting:
        one = next(
            i for i in items if len({made[i.id] for made in fitting.values()}) > 1
        )
        read = ", ".join(
            f"{name}: {_choices(one)[made[one.id]]!r:.30}"
            for name, made in fitting.items()
        )
        raise InputError(
            got=f"answers that can be read in {len(fitting)} ways, such as "
            f"{one['answer']!r:.30} of {one.id} ({read})",
            want="one way",
            do=f"set answer_base to one of {', '.join(fitting)}",
        )
    # The way that fits most items says which one is wrong.
    best = max(tried.values(), key=lambda made: sum(n >= 0 for n in made.values()))
    wrong = next(item for item in items if best[item.id] < 0)
    raise InputError(
        got=f"{wrong.id} with answer {wrong['answer']!r:.60}",
        want="a letter from A, a number from 0 or 1, or a choice; one way in all items",
    )


def _letter(item: Item) -> int:
    letters, value = _LETTERS[: len(_choices(item))], item["answer"]
    return letters.index(value) if isinstance(value, str) and value in letters else -1


def _number(base: int) -> Callable[[Item], int]:
    def number(item: Item) -> int:
        value = item["answer"]
        exact = type(value) is int or (isinstance(value, str) and value.isdecimal())
        place = int(value) - base if exact else -1
        return place if place < len(_choices(item)) else -1

    return number


def _text(item: Item) -> int:
    choices, value = _choices(item), str(item["answer"])
    return choices.index(value) if choices.count(value) == 1 else -1


def _label(item: Item) -> int:
    """Of ARC: the answer is one of the labels that choices have, letters or digits."""
    choices = item["choices"]
    if not isinstance(choices, Mapping):
        labels = [choice["label"] for choice in choices]
    elif isinstance(choices.get("label"), list):
        labels = choices["label"]
    else:  # {"A": ..., "B": ...}
        labels = list(choices)
    labels, value = [str(label) for label in labels], str(item["answer"])
    return labels.index(value) if labels.count(value) == 1 else -1
