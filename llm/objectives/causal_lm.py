"""Next-token prediction: every token of a document is predicted from those before it.

The first token of a document is not predicted, and none across a document boundary.
Losses of the model's own (`Output.sums` whose name ends in `_loss`) are added.
"""

from typing import Any

import numpy as np

from llm.knobs import Amount, Count
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {"chunk": 32}


def make(*, z_loss: Amount = 1e-4, chunk: Count = 0, **given: Any) -> Objective:
    """Causal language modelling.

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

    return Objective(kinds=("causal",), features=features, loss=loss)


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """Inputs and targets of a row of T + 1 tokens; segment 0 is padding."""
    tokens, segments = record["tokens"], record["segments"]
    same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    return {
        "tokens": tokens[:-1],
        "targets": tokens[1:],
        "positions": record["positions"][:-1],
        "segments": segments[:-1],
        "weights": same.astype(np.int32),
    }
