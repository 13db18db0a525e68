"""Prefix language modelling: a document begins with a part that is read both ways.

arXiv:1910.10683, section 3.2.3. Of every document in a row, a prefix of random length
is context: its tokens see each other in both directions and are seen by all that
follow, and none of them is predicted. The rest is predicted as in `causal_lm`. A
recurrent model reads the prefix forwards, as it must.

The length is uniform from 1 to one less than the tokens of the document in the row, so
that something is left to predict. The last token of the prefix is the input for the
first target, and no target is ever visible to a token before it.
"""

from typing import Any

import numpy as np

from llm.knobs import Amount, Count
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective, uniform

TINY = {"chunk": 32}


def make(*, z_loss: Amount = 1e-4, chunk: Count = 0, **given: Any) -> Objective:
    """Language modelling after a random prefix.

    Args:
      z_loss: coefficient of the squared log-normaliser.
      chunk: positions whose logits exist at once; 0 is all of a row.
      given: what every objective is given and this one does not need.
    """
    del given

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)._replace(prefix_BT=batch["prefix"])
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        return batch_loss(
            head, output.sums, batch, z_loss=z_loss, chunk=chunk, policy=policy
        )

    return Objective(kinds=("causal",), features=features, loss=loss)


def features(record: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs, prefix and targets of a row of T + 1 tokens; segment 0 is padding."""
    tokens, segments = record["tokens"], record["segments"]
    count = np.bincount(segments, minlength=1)
    longest = np.maximum(count - 1, 1)
    # A length for each segment of the row, 0 for padding.
    length = 1 + np.floor(uniform(rng, len(count)) * longest).astype(np.int32)
    length[0] = 0
    # Positions restart with each segment, so they say what stands in its prefix.
    prefix = record["positions"] < length[segments]
    same = (segments[1:] == segments[:-1]) & (segments[1:] > 0)
    return {
        "tokens": tokens[:-1],
        "targets": tokens[1:],
        "positions": record["positions"][:-1],
        "segments": segments[:-1],
        "prefix": prefix[:-1],
        "weights": (same & ~prefix[1:]).astype(np.int32),
    }
