"""Sequence to sequence: an encoder reads what is given, the decoder learns to answer.

For translation, summaries and the like, with T5 and its kind. Rows hold whole records
(`llm/data/record_tokens.py`), packed: of a row of T tokens, `target_share` are for
targets and the others for sources, and every record has a segment of its own in both,
so no decoder reads another's source. The decoder begins with the padding id, as T5's
does, and each source and target ends with the end of a text.
"""

from typing import Any

import numpy as np

from llm.knobs import Amount, Between0And1, Count
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {"chunk": 32}
_GIVEN, _ANSWER = 0, 1  # parts of llm/data/record_tokens.py


def make(
    *,
    target_share: Between0And1 = 0.25,
    z_loss: Amount = 0.0,
    chunk: Count = 0,
    tokenizer: Any = None,
    **given: Any,
) -> Objective:
    """Sequence to sequence.

    Args:
      target_share: of the tokens of a row, how many are for targets.
      z_loss, chunk: as of causal language modelling.
    """
    start = 0 if tokenizer is None else max(tokenizer.pad_id, 0)

    def lengths(seq_len: int) -> tuple[int, int]:
        targets = max(int(seq_len * target_share), 1)
        return max(seq_len - targets, 1), targets

    def features(record, rng):
        sources, targets = lengths(len(record["tokens"]) - 1)
        source = _part(record, _GIVEN, sources)
        target = _part(record, _ANSWER, targets)
        first = target["positions"] == 0
        tokens = np.where(first, start, np.roll(target["tokens"], 1))
        return {
            "tokens": tokens.astype(np.int32),
            "targets": target["tokens"],
            "positions": target["positions"],
            "segments": target["segments"],
            "weights": (target["segments"] > 0).astype(np.int32),
            **{f"source_{name}": value for name, value in source.items()},
        }

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)._replace(source=inputs_of(batch, "source_"))
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        return batch_loss(
            head, output.sums, batch, z_loss=z_loss, chunk=chunk, policy=policy
        )

    return Objective(
        kinds=("encdec",),
        features=features,
        loss=loss,
        room=lambda seq_len: tuple(
            ((part,), room)
            for part, room in zip((_GIVEN, _ANSWER), lengths(seq_len), strict=True)
        ),
    )


def _part(record: dict[str, Any], part: int, size: int) -> dict[str, np.ndarray]:
    """The tokens of one part of all records of a row, side by side, padded."""
    held = (record["labels"] == part) & (record["segments"] > 0)
    made = {name: np.zeros(size, np.int32) for name in ("tokens", "segments")}
    for name, to in made.items():
        to[: held.sum()] = record[name][held]
    segments = made["segments"]
    begins = np.flatnonzero(np.diff(segments, prepend=0))
    positions = np.zeros(size, np.int32)
    for begin in begins:
        run = segments[begin:] == segments[begin]
        length = len(run) if run.all() else int(np.argmin(run))
        positions[begin : begin + length] = np.arange(length)
    return made | {"positions": positions}
