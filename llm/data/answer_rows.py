"""Rows of a prompt and an answer that the model makes itself.

A record of `llm/data/record_tokens.py` gives the prompt, which is all before its last
answer, and a reference, which is that answer: rewards compare with it, and the model
never sees it. One record stands in a row, and its answer is put in when it is made:

    tokens      prompt  answer  0 0 0        inputs; targets are the next tokens
    weights       0       1     0 0 0        1 where the target is of the answer
    sampled       0    log p    0 0 0        of the target, when it was sampled
    reference   ids of the reference, -1 behind it

`T tokens, B rows`
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llm.data.record_tokens import ANSWER, GIVEN

Batch = dict[str, np.ndarray]


def room(seq_len: int, max_tokens: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """What a row has room for, as `llm/data/loader.py` has it."""
    return (((GIVEN,), max(seq_len + 1 - max_tokens, 0)), ((ANSWER,), seq_len))


def features(record: dict[str, Any], rng: Any) -> Batch:
    """A row with the prompt of a record, without an answer."""
    del rng
    T = len(record["tokens"]) - 1
    labels = np.where(record["segments"] > 0, record["labels"], -1)
    size = int((labels >= 0).sum())
    answered = labels[:size] == ANSWER
    # The last answer may be followed by what the template writes behind it.
    ends = np.flatnonzero(answered)
    last = int(ends[-1]) + 1 if len(ends) else 0
    begins = last - int(np.cumprod(answered[:last][::-1]).sum())
    row = {name: np.zeros(T, np.int32) for name in ("tokens", "targets", "weights")}
    row["tokens"][:begins] = record["tokens"][:begins]
    row["positions"] = np.zeros(T, np.int32)
    row["positions"][:begins] = np.arange(begins)
    row["segments"] = (np.arange(T) < begins).astype(np.int32)
    row["sampled"] = np.zeros(T, np.float32)
    row["reference"] = np.full(T, -1, np.int32)
    row["reference"][: last - begins] = record["tokens"][begins:last]
    return row


def prompts(batch: Batch) -> list[list[int]]:
    """The ids of each prompt; a row that is all padding has none."""
    sizes = batch["segments"].sum(axis=1)
    return [row[:n].tolist() for row, n in zip(batch["tokens"], sizes, strict=True)]


def references(batch: Batch) -> list[list[int]]:
    """The ids of each reference."""
    return [row[row >= 0].tolist() for row in batch["reference"]]


def with_answers(
    batch: Batch, answers: Sequence[Sequence[int]], logprobs: Sequence[np.ndarray]
) -> Batch:
    """The rows with answers to their prompts, and how likely their tokens were."""
    names = ("tokens", "targets", "weights", "positions", "segments", "sampled")
    made = {name: np.zeros_like(batch[name]) for name in names}
    for row, prompt in enumerate(prompts(batch)):
        ids, n = [*prompt, *answers[row]], len(prompt)
        size = max(len(ids) - 1, 0)
        made["tokens"][row, :size] = ids[:-1]
        made["targets"][row, :size] = ids[1:]
        made["positions"][row, :size] = np.arange(size)
        made["segments"][row, :size] = 1
        if n and answers[row]:
            made["weights"][row, n - 1 : size] = 1
            made["sampled"][row, n - 1 : size] = logprobs[row]
    return batch | made
