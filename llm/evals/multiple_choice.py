"""Questions with choices: the most likely choice is the answer (MMLU and its like).

Each choice is scored as the continuation of one prompt. Three figures: `accuracy` by
log-probability as it is, and with it divided by the bytes and by the tokens of a
choice, since long ones are unlikely. Where the continuation is a letter, all are alike.

Fields: `question`, `choices` (a list), `answer` (its number from 0, its letter, or its
text). Templates know every field of a record, `{choice}` and `{letter}` of the choice
that is scored, and `{list}`, all choices with their letters, a line each. Shots:
`llm/data/shots.py`.
"""

import string
from typing import Any, NamedTuple

from llm.data import shots as solved
from llm.data.items import Item, filled
from llm.errors import InputError
from llm.metrics import of_items, ratio, summary
from llm.task import Context, Likelihood, Score, Task

TINY: dict[str, Any] = {"limit": 4}
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
    context: Context,
) -> Task:
    """Multiple choice.

    Args:
      path, fields, columns: of the items, as in `llm/data/items.py`.
      prompt, continuation: templates of what is given and of what is scored.
      preface: stands before all; a template, too.
      separator: between shots.
      shots, shots_path, group, seed: solved questions before each.
      limit: items that are asked, evenly spread; 0 is all.
    """
    asked = solved.asked(
        path, fields=fields, columns=columns, shots=shots, shots_path=shots_path,
        group=group, seed=seed, limit=limit,
    )  # fmt: skip
    # How answers are written is decided for all of them at once.
    every = [*asked.items, *(x for some in asked.shots for x in some)]
    right = _answers({item.id: item for item in every}.values())

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
                a.logprob / max(len(c.encode()), 1)
                for a, c in zip(answers, q.choices, strict=True)
            ],
            "accuracy_tokens": [a.logprob / a.tokens for a in answers],
        }
        best = {name: max(range(len(x)), key=x.__getitem__) for name, x in ways.items()}
        return {
            "id": q.item.id,
            "group": str(q.item[group]) if group else "",
            "input": q.prompt[-600:],
            "target": q.choices[q.right],
            "output": q.choices[best["accuracy"]],
            "logprobs": ways["accuracy"],
            "chance": 1 / len(q.choices),
            "values": {n: (float(b == q.right), 1.0) for n, b in best.items()},
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


def _choices(item: Item) -> list[str]:
    choices = item["choices"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(_LETTERS):
        raise InputError(
            got=f"{item.id} with choices {choices!r:.60}",
            want=f"a list of 2 to {len(_LETTERS)}",
        )
    return [str(choice) for choice in choices]


def _listed(item: Item) -> str:
    return "\n".join(
        f"{x}. {c}" for x, c in zip(_LETTERS, _choices(item), strict=False)
    )


def _answers(items) -> dict[str, int]:
    """The number of the right choice of each item: all answers are letters, or all are
    numbers, or all are the text of a choice."""
    items = list(items)

    def letter(value, choices):
        known = _LETTERS[: len(choices)]
        return known.index(value) if isinstance(value, str) and value in known else -1

    def number(value, choices):
        exact = type(value) is int or (isinstance(value, str) and value.isdecimal())
        return int(value) if exact and int(value) < len(choices) else -1

    def words(value, choices):
        return choices.index(str(value)) if str(value) in choices else -1

    tried = []
    for way in (letter, number, words):
        found = {
            item.id: way(item["answer"], _choices(item)) if item["answer"] != "" else -1
            for item in items
        }
        if min(found.values()) >= 0:
            return found
        tried.append(found)
    # The way that fits most items says which one is wrong.
    best = max(tried, key=lambda found: sum(n >= 0 for n in found.values()))
    wrong = next(item for item in items if best[item.id] < 0)
    raise InputError(
        got=f"{wrong.id} with answer {wrong['answer']!r:.60}",
        want="a letter from A, a number from 0, or a choice; one way in all items",
    )
