"""Direct preference optimisation (arXiv:2305.18290): preferred answers become likelier.

Of a question with a chosen and a rejected answer, with log-likelihoods under the model
and under the reference, the one that training began with:

    margin = beta * ((chosen - chosen_reference) - (rejected - rejected_reference))
    loss   = -(1 - smoothing) * log sigmoid(margin) - smoothing * log sigmoid(-margin)

The mean is over pairs. A row holds whole pairs, each answer with its own copy of the
question, in a segment of its own; likelihoods are sums over the tokens of an answer,
its end among them. Smoothing (conservative DPO) says how many labels are wrong.

`B batch, T tokens, S segments of a row, P pairs of a row`
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from llm.knobs import Above0, Range
from llm.losses import token_scores
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {}
_REJECTED = 2  # the first part of it, of llm/data/record_tokens.py
_ANSWERS = (1, 3)
_SHORTEST = 4  # tokens of a pair at least: two of each answer and its question


def make(
    *,
    beta: Above0 = 0.1,
    smoothing: Annotated[float, Range(0, 0.5, below=True)] = 0.0,
    **given: Any,
) -> Objective:
    """Direct preference optimisation.

    Args:
      beta: how dear it is to leave the reference.
      smoothing: share of preferences that are taken to be the wrong way round.
    """

    def loss(apply, params, batch, *, reference, rngs=None, policy):
        inputs = inputs_of(batch)
        ours = _likelihoods(apply, params, inputs, batch, rngs, policy)
        theirs = _likelihoods(apply, reference, inputs, batch, None, policy)
        reward_BP2 = beta * (ours - jax.lax.stop_gradient(theirs))
        margin_BP = reward_BP2[..., 0] - reward_BP2[..., 1]
        pair_BP = _pairs(batch["segments"], margin_BP.shape[1])
        loss_BP = -(
            (1 - smoothing) * jax.nn.log_sigmoid(margin_BP)
            + smoothing * jax.nn.log_sigmoid(-margin_BP)
        )
        weight = pair_BP.sum()
        over_pairs = lambda x_BP: (jnp.sum(pair_BP * x_BP), weight)  # noqa: E731
        metrics = {
            "loss": over_pairs(loss_BP),
            "accuracy": over_pairs(margin_BP > 0),
            "margin": over_pairs(margin_BP),
            "chosen_reward": over_pairs(reward_BP2[..., 0]),
            "rejected_reward": over_pairs(reward_BP2[..., 1]),
        }
        return metrics["loss"][0], weight, metrics

    return Objective(
        kinds=("causal",),
        features=features,
        loss=loss,
        room=lambda seq_len: (((0, 1, 2, 3), seq_len + 1),),
        reference=True,
    )


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """Inputs and targets of a row of T + 1 tokens.

    The segments of pair p, from 1, are 2p - 1 of the chosen answer and 2p of the other.
    """
    tokens, labels = record["tokens"], record["labels"]
    second = labels >= _REJECTED
    segments = np.where(record["segments"] > 0, 2 * record["segments"] - 1 + second, 0)
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
        "weights": (same & np.isin(labels[1:], _ANSWERS)).astype(np.int32),
    }


def _likelihoods(apply, params, inputs, batch, rngs, policy) -> jax.Array:
    """Log-likelihoods of the answers, BP2: chosen, rejected."""
    _, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
    nll_BT, _ = token_scores(head, batch["targets"], policy=policy)
    P = -(-(batch["targets"].shape[1] + 1) // _SHORTEST)
    sums_BS = jax.vmap(
        lambda x_T, segment_T: jax.ops.segment_sum(x_T, segment_T, 2 * P + 1)
    )(-nll_BT * batch["weights"], batch["segments"])
    return sums_BS[:, 1:].reshape(-1, P, 2)


def _pairs(segments_BT: jax.Array, P: int) -> jax.Array:
    """Which of the P pairs a row has, as numbers."""
    last_B1 = segments_BT.max(axis=1, keepdims=True)
    return (2 * jnp.arange(1, P + 1)[None] <= last_B1).astype(jnp.float32)
