"""What a task's figures lose when its prompts are written carelessly.

Another task of the config is asked as it is and in five more ways: with typos (letters
swapped, dropped, doubled, or hit beside the right key), in lower case, in capitals, and
with white space lost or added. Every change is a function of the text and the seed.
Prompts change as they stand, shots and instructions with them; what is scored as an
answer does not. `drop` is the figure as it is less the changed one, over the same
items, with the interval of the paired bootstrap.
"""

import random
import re
from collections.abc import Callable
from typing import Any

from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Generate, Predict, Score
from llm.knobs import ShareAbove0
from llm.metrics import difference, of_items, summary

TINY: dict[str, Any] = {}
METRICS: tuple[Metric, ...] = ()  # those of the task that it changes
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PLAIN = "as it is"


def make(
    *, of: str = "", rate: ShareAbove0 = 0.05, seed: int = 0, context: Context
) -> Task:
    """Robustness.

    Args:
      of: the task, one of the config's by its name there.
      rate: share of the words that get a typo, and of the spaces that are changed.
    """
    if not of or context.task is None:
        raise InputError(
            got=f"robustness of {of!r}",
            want="a task of the config",
            do="--config.evaluate.task.robustness.of=multiple_choice",
        )
    inner = context.task(of)
    ways = {_PLAIN: lambda text: text} | {
        name: lambda text, change=change: change(text, rate, seed)
        for name, change in CHANGES.items()
    }

    def requests(example):
        asked = inner.requests(example)
        return [changed(r, way) for way in ways.values() for r in asked]

    def measure(example, answers):
        each = len(answers) // len(ways)
        parts = [answers[i * each : (i + 1) * each] for i in range(len(ways))]
        found = {
            name: inner.measure(example, part)
            for name, part in zip(ways, parts, strict=True)
        }
        plain = found[_PLAIN]
        values = {
            f"{figure}, {name}": pair
            for name, one in found.items()
            for figure, pair in one["values"].items()
        }
        return {
            "id": plain["id"],
            "content": plain.get("content", ""),
            "input": plain.get("input", ""),
            "output": plain.get("output", ""),
            "values": values,
            "by_change": {name: one["values"] for name, one in found.items()},
        }

    def summarise(figures):
        made = summary(of_items(figures))
        plain = [f["by_change"][_PLAIN] for f in figures]
        made["drop"] = {
            name: {
                figure: difference(
                    [f["by_change"][name][figure] for f in figures],
                    [p[figure] for p in plain],
                ).as_json()
                for figure in plain[0]
            }
            for name in CHANGES
        }
        return made

    return Task(
        inner.examples,
        requests,
        measure,
        summarise,
        inner.about | {"of": of, "rate": rate, "seed": seed},
    )


def changed(request: Any, change: Callable[[str], str]) -> Any:
    """A request with its prompt changed; InputError for one that has none."""
    if isinstance(request, Predict):
        return request._replace(text=change(request.text))
    if isinstance(request, Score | Generate):
        prompt = request.prompt
        if isinstance(prompt, str):
            return request._replace(prompt=change(prompt))
        turns = tuple(
            (role, change(said) if role == "user" else said) for role, said in prompt
        )
        return request._replace(prompt=turns)
    raise InputError(
        got="robustness of a task without prompts",
        want="multiple_choice, generation or classification",
    )


def typos(text: str, rate: float, seed: int) -> str:
    """One typo in a share of the words of three letters or more."""

    def hit(word, rng):
        at = rng.randrange(len(word) - 1)
        kind = rng.choice(("swap", "drop", "double", "key"))
        if kind == "swap":
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if kind == "drop":
            return word[:at] + word[at + 1 :]
        if kind == "double":
            return word[: at + 1] + word[at:]
        return word[:at] + _beside(word[at], rng) + word[at + 1 :]

    return _some(re.compile(r"[^\W\d_]{3,}"), hit, text, rate, seed)


def lower(text: str, rate: float, seed: int) -> str:
    """All in lower case."""
    return text.lower()


def upper(text: str, rate: float, seed: int) -> str:
    """All in capitals."""
    return text.upper()


def lost_spaces(text: str, rate: float, seed: int) -> str:
    """A share of the spaces between words gone."""
    return _some(re.compile(r"(?<=\w) (?=\w)"), lambda *_: "", text, rate, seed)


def more_spaces(text: str, rate: float, seed: int) -> str:
    """A share of the spaces between words two, three or a tab."""
    wide = lambda _, rng: rng.choice(("  ", "   ", "\t"))  # noqa: E731
    return _some(re.compile(r"(?<=\S) (?=\S)"), wide, text, rate, seed)


CHANGES = {
    "typos": typos,
    "lower case": lower,
    "capitals": upper,
    "lost spaces": lost_spaces,
    "more spaces": more_spaces,
}


def _some(pattern, change, text: str, rate: float, seed: int) -> str:
    """Changes a share of the matches, which the text and the seed choose: at least one
    where there is any."""
    rng = random.Random(f"{seed} {text}")
    count = len(pattern.findall(text))
    chosen = set(rng.sample(range(count), min(count, max(1, round(rate * count)))))
    number = iter(range(count))
    return pattern.sub(
        lambda m: change(m[0], rng) if next(number) in chosen else m[0], text
    )


def _beside(letter: str, rng: random.Random) -> str:
    """A key near a letter's on a QWERTY keyboard; of others, the letter twice."""
    small = letter.lower()
    for number, row in enumerate(_ROWS):
        if small in row:
            at = row.index(small)
            near = set(row[max(at - 1, 0) : at + 2])
            for other in _ROWS[max(number - 1, 0) : number + 2]:
                near |= set(other[at : at + 1])
            made = rng.choice(sorted(near - {small}))
            return made.upper() if letter.isupper() else made
    return letter * 2
