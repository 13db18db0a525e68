"""Next-token prediction: every token of a document is predicted from those before it.

The first token of a document is not predicted, and none across a document boundary.
Losses of the model's own (`Output.sums` whose name ends in `_loss`) are added.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from llm.losses import cross_entropy
from llm.nn.contract import Inputs
from llm.objective import Objective

TINY = {"chunk": 32}


def make(*, z_loss: float = 1e-4, chunk: int = 0, **given: Any) -> Objective:
    """Causal language modelling.

    Args:
      z_loss: coefficient of the squared log-normaliser.
      chunk: positions whose logits exist at once; 0 is all of a row.
    """

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = Inputs(
            batch["tokens"], batch["positions"], batch["segments"], batch["index"]
        )
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        weights_BT = batch["weights"].astype(jnp.float32)
        total, sums = cross_entropy(
            head,
            batch["targets"],
            weights_BT,
            z_loss=z_loss,
            chunk=chunk,
            policy=policy,
        )
        weight = weights_BT.sum()
        metrics = {"loss": (sums.nll, weight), "accuracy": (sums.correct, weight)}
        if z_loss:
            metrics["z_loss"] = (sums.z, weight)
        for name, (value, own) in output.sums.items():
            metrics[name] = (value, own)
            if name.endswith("_loss"):
                # A mean of its own weight, brought to the weight that divides all.
                total = total + value * (weight / jnp.maximum(own, 1.0))
        return total, weight, metrics

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
