"""Supervised fine-tuning: only answers are learned, what is given is only read.

Records (`llm/data/record_tokens.py`) stand whole in a row, and attention never crosses
from one to another, so a packed row teaches what its records would alone. The loss is
the mean over answer tokens of the batch, the end of each answer among them.

`T tokens`
"""

from typing import Any

import numpy as np

from llm.knobs import Amount, Count
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {"chunk": 32}
_PARTS, _ANSWER = (0, 1), 1  # of llm/data/record_tokens.py


def make(*, z_loss: Amount = 0.0, chunk: Count = 0, **given: Any) -> Objective:
    """Supervised fine-tuning of a decoder.

    Args:
      z_loss: coefficient of the squared log-normaliser.
      chunk: positions whose logits exist at once; 0 is all of a row.
    """

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        return batch_loss(
            head, output.sums, batch, z_loss=z_loss, chunk=chunk, policy=policy
        )

    return Objective(
        kinds=("causal",),
        features=features,
        loss=loss,
        room=lambda seq_len: ((_PARTS, seq_len + 1),),
    )


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """Inputs and targets of a row of T + 1 tokens; answers have a weight of 1."""
    tokens, segments = record["tokens"], record["segments"]
    same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    return {
        "tokens": tokens[:-1],
        "targets": tokens[1:],
        "positions": record["positions"][:-1],
        "segments": segments[:-1],
        "weights": (same & (record["labels"][1:] == _ANSWER)).astype(np.int32),
    }
