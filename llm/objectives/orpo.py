"""Odds-ratio preference optimisation (arXiv:2403.07691): one stage, and no reference.

Chosen answers are learned as in supervised fine-tuning, and a term makes their odds
higher than those of rejected ones. With l, the mean log-likelihood of an answer's
tokens, its end among them:

    log odds(l) = l - log(1 - exp(l))
    loss        = -l_chosen - beta * log sigmoid(log odds(chosen) - log odds(rejected))

The mean is over pairs, as the paper has it, so a short answer counts as much as a long
one, and prompts are not learned; TRL's first term is a mean over all tokens of a batch,
prompts included. Rows are those of `llm/data/preference_rows.py`.

`B batch, P pairs of a row`
"""

from typing import Any

import jax
import jax.numpy as jnp

from llm.data import preference_rows
from llm.knobs import Amount
from llm.losses import answer_logprobs
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {}
_SURE = -1e-6  # a mean log-likelihood above it has no odds in float32


def make(*, beta: Amount = 0.1, **given: Any) -> Objective:
    """Odds-ratio preference optimisation.

    Args:
      beta: weight of the odds ratio; lambda in the paper.
    """
    del given

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)
        _, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        logprob_BP2, tokens_BP2 = answer_logprobs(head, batch, policy=policy)
        mean_BP2 = logprob_BP2 / jnp.maximum(tokens_BP2, 1.0)
        odds_BP2 = _log_odds(mean_BP2)
        ratio_BP = odds_BP2[..., 0] - odds_BP2[..., 1]
        pair_BP = (tokens_BP2.min(axis=-1) > 0).astype(jnp.float32)
        weight = pair_BP.sum()
        over_pairs = lambda x_BP: (jnp.sum(pair_BP * x_BP), weight)  # noqa: E731
        nll_BP = -mean_BP2[..., 0]
        metrics = {
            "loss": over_pairs(nll_BP - beta * jax.nn.log_sigmoid(ratio_BP)),
            "nll": over_pairs(nll_BP),
            "accuracy": over_pairs(ratio_BP > 0),
            "log_odds_ratio": over_pairs(ratio_BP),
            "chosen_reward": over_pairs(beta * mean_BP2[..., 0]),
            "rejected_reward": over_pairs(beta * mean_BP2[..., 1]),
        }
        return metrics["loss"][0], weight, metrics

    return Objective(
        kinds=("causal",),
        features=preference_rows.features,
        loss=loss,
        room=lambda seq_len: ((preference_rows.PARTS, seq_len + 1),),
    )


def _log_odds(logprob: jax.Array) -> jax.Array:
    """log(p / (1 - p)) of log p."""
    logprob = jnp.minimum(logprob, _SURE)
    # Of a p near 1, 1 - p loses all digits, and of a small one, expm1 does.
    near_1 = logprob > -jnp.log(2.0)
    low = jnp.log1p(-jnp.exp(jnp.where(near_1, -1.0, logprob)))
    high = jnp.log(-jnp.expm1(jnp.where(near_1, logprob, -0.5)))
    return logprob - jnp.where(near_1, high, low)
