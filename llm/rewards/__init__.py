"""The contract of a reward: how good an answer of the model is.

A file of this folder exports `make(**knobs) -> Reward` and `TINY`. A reward judges
answers to prompts, one number each; what a run learns from is the weighted sum of its
rewards (`llm/training/rollouts.py`), and each is logged apart. One that cannot judge an
answer says so by None, or raises: such an answer teaches nothing and is counted.

    @each
    def reward(answer: Answer) -> float:
        return float(answer.text == answer.reference)
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm import registry


class Answer(NamedTuple):
    """An answer of the model, and what it answers.

    Attributes:
      prompt, text: as texts, without the token that ends them.
      reference: the answer that the record has; what it means is up to the reward: a
        number, a text, a schema, unit tests.
      ids, prompt_ids: the tokens of both, the end of the answer among them.
      ended: whether the model ended it; if not, it was cut off at the most tokens.
      tokenizer: the fingerprint of the one that these are tokens of.
    """

    prompt: str
    text: str
    reference: str
    ids: tuple[int, ...] = ()
    ended: bool = True
    prompt_ids: tuple[int, ...] = ()
    tokenizer: str = ""


class Failed(Exception):
    """A reward that cannot judge an answer."""


# From answers to a number each; None of those that it cannot judge.
Reward = Callable[[Sequence[Answer]], list[float | None]]


class Judged(NamedTuple):
    """Rewards of answers.

    Attributes:
      values: {label: reward of each answer, None where it failed}.
      total: the weighted sum of each; None where one of them failed.
      reasons: {label: why it failed first}.
    """

    values: dict[str, list[float | None]]
    total: list[float | None]
    reasons: dict[str, str]


def each(judge: Callable[[Answer], float]) -> Reward:
    """A reward that judges one answer at a time."""

    def reward(answers: Sequence[Answer]) -> list[float | None]:
        values, errors = [], []
        for answer in answers:
            try:
                values.append(float(judge(answer)))
            # Code of the user's, of which anything may fail for an odd answer.
            except Exception as error:
                values.append(None)
                errors.append(error)
        if errors and len(errors) == len(answers):
            raise Failed(f"{type(errors[0]).__name__}: {errors[0]}") from errors[0]
        return values

    return reward


def build(specs: dict[str, dict], device: Any = None) -> dict[str, Reward]:
    """{label: reward} of {label: name and knobs}; a `make` that asks for a device, such
    as that of a reward model, is given this one."""
    made = {}
    for label, spec in specs.items():
        make = registry.module("rewards", spec["name"]).make
        asks = "device" in inspect.signature(make).parameters
        given = {"device": device} if asks else {}
        made[label] = registry.build("rewards", spec, **given)
    return made


def judge(
    rewards: dict[str, Reward], weights: Sequence[float], answers: Sequence[Answer]
) -> Judged:
    """The rewards of answers and their weighted sum."""
    values: dict[str, list[float | None]] = {}
    reasons: dict[str, str] = {}
    for label, reward in rewards.items():
        try:
            values[label] = [_finite(x) for x in reward(answers)]
        except Failed as error:
            values[label], reasons[label] = [None] * len(answers), str(error)
        if None in values[label]:
            reasons.setdefault(label, "no finite number for an answer")
    total = [
        None
        if None in of_answer
        else sum(w * x for w, x in zip(weights, of_answer, strict=True))
        for of_answer in zip(*values.values(), strict=True)
    ]
    return Judged(values, total, reasons)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
