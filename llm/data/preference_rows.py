"""Rows of preferences: every answer in a segment, with a prompt of its own.

Record r of a row, from 1, has its preferred answer in segment 2r - 1 and its rejected
one in segment 2r. A pair has both; a record of one answer, marked good or bad, has one
of them. Sums over segments are therefore [B, records, 2], preferred before rejected,
and an answer that is not there has no tokens.

    tokens      prompt  answer  end  prompt  other  0     inputs
    targets     answer  end     0    other   end    0     the next tokens
    segments       1      1     1      2       2    0
    weights        1      1     0      1       1    0     1 where the target is learned

`T tokens`
"""

from typing import Any

import numpy as np

from llm.data.record_tokens import ANSWER, REJECTED_ANSWER, REJECTED_GIVEN

ANSWERS = (ANSWER, REJECTED_ANSWER)
PARTS = (0, 1, 2, 3)  # all of those of a record


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """Inputs and targets of a row of T + 1 tokens; answers have a weight of 1."""
    del rng
    return next_tokens(record["tokens"], record["labels"], segments_of(record))


def segments_of(record: dict[str, Any]) -> np.ndarray:
    """The segment of each token, as the module docstring numbers them; 0 is padding."""
    rejected = record["labels"] >= REJECTED_GIVEN
    return np.where(record["segments"] > 0, 2 * record["segments"] - 1 + rejected, 0)


def next_tokens(
    tokens: np.ndarray, labels: np.ndarray, segments: np.ndarray
) -> dict[str, np.ndarray]:
    """A row cut in inputs and targets; positions begin again with each segment."""
    begins = np.flatnonzero(np.diff(segments, prepend=-1))
    positions = np.arange(len(tokens)) - np.repeat(
        begins, np.diff([*begins, len(tokens)])
    )
    same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    return {
        "tokens": tokens[:-1],
        "targets": tokens[1:],
        "positions": positions[:-1].astype(np.int32),
        "segments": segments[:-1].astype(np.int32),
        "weights": (same & np.isin(labels[1:], ANSWERS)).astype(np.int32),
    }
