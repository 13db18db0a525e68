"""A reward model: which of two answers people prefer (Bradley-Terry, arXiv:1706.03741).

A vector of the width, trained with the model, makes a number of the hidden state at the
last token of an answer; the preferred answer should have the higher one:

    loss = -log sigmoid(chosen - rejected) + centre * (chosen + rejected)**2

The loss says nothing of what a pair has in common; `centre` (arXiv:2312.09244; 0.01 is
usual) keeps rewards near 0. The token is the last one that the record calls the
answer's: neither padding nor what a template writes behind an answer moves it, nor the
same id somewhere before. So a row holds one token less than those of other objectives,
whose last token is only predicted.

The mean is over pairs. Rows are those of `llm/data/preference_rows.py`. A trained model
is asked by `llm/inference/reward_scores.py`.

`B batch, T tokens, D width, P pairs of a row`
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm.data import preference_rows
from llm.knobs import Amount
from llm.losses import answer_sums
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {}


def make(*, centre: Amount = 0.0, **given: Any) -> Objective:
    """A Bradley-Terry reward model.

    Args:
      centre: weight of the square of the sum of both rewards.
    """
    del given

    def loss(apply, params, batch, *, rngs=None, policy):
        del policy
        output, _ = apply(params, inputs_of(batch), train=rngs is not None, rngs=rngs)
        reward_BT = _rewards(params, output.hidden_BTD) * batch["weights"]
        reward_BP2 = answer_sums(reward_BT, batch["segments"])
        answer_BP2 = answer_sums(batch["weights"], batch["segments"])
        pair_BP = answer_BP2.min(axis=-1).astype(jnp.float32)
        margin_BP = reward_BP2[..., 0] - reward_BP2[..., 1]
        loss_BP = -jax.nn.log_sigmoid(margin_BP)
        loss_BP += centre * jnp.square(reward_BP2.sum(axis=-1))
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
        predicts_tokens=False,
        extend=_extend,
        room=lambda seq_len: ((preference_rows.PARTS, seq_len),),
        reward=_reward,
    )


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """A row of answers, with a weight of 1 at the last token of each."""
    row = preference_rows.features(record, rng)
    learned = np.isin(record["labels"][:-1], preference_rows.ANSWERS)
    place = np.where(learned, np.arange(len(learned)), -1)
    last = np.full(row["segments"].max() + 1, -1)
    np.maximum.at(last, row["segments"], place)
    ends = learned & (place == last[row["segments"]]) & (row["segments"] > 0)
    # A place has no target but itself, which is what a preview marks.
    return row | {"targets": row["tokens"], "weights": ends.astype(np.int32)}


def _extend(key: jax.Array, params: Any, width: int) -> Any:
    kernel_D = jax.random.normal(key, (width,)) * width**-0.5
    kernel = nn.LogicallyPartitioned(kernel_D, names=("embed",))
    return {**params, "reward": {"kernel": kernel}}


def _rewards(params: Any, hidden: jax.Array) -> jax.Array:
    """Of hidden states [..., D], float32 whatever the model computes in."""
    kernel_D = params["reward"]["kernel"].astype(jnp.float32)
    return jnp.einsum(
        "...D,D->...", hidden.astype(jnp.float32), kernel_D, precision="highest"
    )


def _reward(apply, params, inputs, policy) -> jax.Array:
    """The reward of each row, [B], whose answer ends it."""
    del policy
    hidden_BTD = apply({"params": params}, inputs).hidden_BTD
    last_B = (inputs.segments_BT > 0).sum(axis=1) - 1
    return _rewards(params, hidden_BTD[jnp.arange(len(last_B)), last_B])
