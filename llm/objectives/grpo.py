r"""Group relative policy optimisation (arXiv:2402.03300): answers that are better than
others to the same prompt become likelier.

Of each prompt the model samples a group of answers, which rewards judge. The advantage
of an answer is its reward less the mean of its group, and all its tokens share it:

    A      = (reward - mean of group) / (std of group | of batch | 1)
    ratio  = p(token) / p_old(token)                     of each token, or of the answer
    gain   = min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)
    loss   = -(gain - beta * KL(p || p_reference)) * min(p_old / p_sampled, cap)

`p_old` is the model that sampled, as the trainer computes it, and `p_sampled` the same
as the engine did; they differ by rounding, and by more where a backend is imprecise, so
that the cap bounds what such a token may teach (truncated importance sampling). A group
whose answers have equal rewards teaches nothing: it counts neither above nor below the
fraction, and is logged as dead.

The mean is over tokens of the batch (`token`, as DAPO has it), over answers of their
means (`sequence`, as the paper has it), or over answers and `max_tokens` (`constant`,
Dr. GRPO, arXiv:2503.20783: no preference for short answers). `ratio=sequence` is GSPO
(arXiv:2507.18071). Without `beta` there is no reference model.

`B answers, T tokens`
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llm.data import answer_rows
from llm.errors import InputError
from llm.knobs import Above0, Amount, Positive, ShareBelow1
from llm.losses import policy_scores
from llm.nn.contract import inputs_of
from llm.objectives import Objective, Online, never_sampled

TINY = {"group": 2, "max_tokens": 8}


def make(
    *,
    group: Positive = 8,
    max_tokens: Positive = 256,
    temperature: Above0 = 1.0,
    epochs: Positive = 1,
    beta: Amount = 0.0,
    kl: Literal["k1", "k2", "k3"] = "k3",
    clip_low: ShareBelow1 = 0.2,
    clip_high: Amount = 0.2,
    ratio: Literal["token", "sequence"] = "token",
    mean: Literal["token", "sequence", "constant"] = "token",
    std: Literal["group", "batch", "none"] = "group",
    cap: Amount = 2.0,
    learn_cut: bool = True,
    vocab_size: int,
    tokenizer: Any = None,
) -> Objective:
    """Group relative policy optimisation.

    Args:
      group: answers to each prompt; train.batch_size counts answers.
      max_tokens: most tokens of an answer; a prompt has the rest of train.seq_len.
      temperature: of the sampling; the policy that is learned is that of it, too.
      epochs: how often each answer is learned from.
      beta: how dear it is to leave the model that training began with; 0 is free.
      kl: how the divergence from it is estimated.
      clip_low, clip_high: how far a ratio may leave 1 before a token teaches no more.
      ratio: of each token, or of the whole answer.
      mean: what the loss is the mean of: tokens, answers, or answers of constant size.
      std: by whose standard deviation advantages are divided.
      cap: most weight of a token that the engine and the trainer see differently; 0
        does not weigh.
      learn_cut: whether answers that were cut off are learned from.

    Raises:
      InputError: a group of one, which has nothing to compare.
    """
    if group < 2:
        raise InputError(got=f"objective.group {group}", want="2 or more")
    sampled = {
        "temperature": temperature, "vocab_size": vocab_size,
        "forbidden": never_sampled(tokenizer),
    }  # fmt: skip

    def features(record, rng):
        row = answer_rows.features(record, rng)
        nothing_T = np.zeros(len(row["tokens"]), np.float32)
        return row | {"logprobs": nothing_T, "advantages": nothing_T}

    def scores(apply, params, batch, rngs, policy):
        inputs = inputs_of(batch)
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        logprobs_BT, entropy_BT = policy_scores(
            head, batch["targets"], **sampled, policy=policy
        )
        # What pads a row may be a token that is never sampled: -inf.
        logprobs_BT = jnp.where(batch["weights"] > 0, logprobs_BT, 0.0)
        return logprobs_BT, entropy_BT, output

    def score(apply, params, batch, policy):
        logprobs_BT, _, _ = scores(apply, params, batch, None, policy)
        return {"logprobs": logprobs_BT}

    def loss(apply, params, batch, *, reference=None, rngs=None, policy):
        logprobs_BT, entropy_BT, output = scores(apply, params, batch, rngs, policy)
        weights_BT = batch["weights"].astype(jnp.float32)
        A_BT, log_ratio_BT = batch["advantages"], logprobs_BT - batch["logprobs"]
        if ratio == "sequence":
            log_ratio_BT = _means(log_ratio_BT, weights_BT)
        ratio_BT = jnp.exp(jnp.clip(log_ratio_BT, -20.0, 20.0))
        clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
        loss_BT = -jnp.minimum(ratio_BT * A_BT, clipped_BT * A_BT)
        tokens = weights_BT.sum()
        over_tokens = lambda x_BT: (jnp.sum(weights_BT * x_BT), tokens)  # noqa: E731
        metrics = {
            "entropy": over_tokens(jax.lax.stop_gradient(entropy_BT)),
            "clipped_low": over_tokens((ratio_BT < 1 - clip_low) & (A_BT < 0)),
            "clipped_high": over_tokens((ratio_BT > 1 + clip_high) & (A_BT > 0)),
        }
        if beta:
            theirs_BT, _, _ = scores(apply, reference, batch, None, policy)
            kl_BT = divergence(logprobs_BT, jax.lax.stop_gradient(theirs_BT), kl)
            loss_BT = loss_BT + beta * kl_BT
            metrics["kl"] = over_tokens(kl_BT)
        if cap:
            off_BT = jnp.exp(batch["logprobs"] - batch["sampled"])
            loss_BT = loss_BT * jnp.minimum(off_BT, cap)
        total, weight = _summed(loss_BT, weights_BT, mean, max_tokens)
        for name, (value, its_weight) in output.sums.items():
            if name.endswith("_loss"):  # of the model's own, such as of its router
                total = total + value * weight / jnp.maximum(its_weight, 1.0)
        metrics["policy_loss"] = (total, weight)
        return total, weight, metrics | output.sums

    def learn(rewards_B, own, batch):
        advantages_B, dead_B = advantages(rewards_B, group, std)
        learned_B = ~dead_B[own]
        if not learn_cut:
            learned_B &= batch["ended"]
        weights_BT = batch["weights"] * learned_B[:, None]
        dead_G = dead_B.reshape(-1, group).all(axis=1)
        return {
            "advantages": (advantages_B[own, None] * weights_BT).astype(np.float32),
            "weights": weights_BT.astype(np.int32),
        }, {"dead_groups": (float(dead_G.sum()), len(dead_G))}

    return Objective(
        kinds=("causal",),
        features=features,
        loss=loss,
        room=lambda seq_len: answer_rows.room(seq_len, max_tokens),
        reference=beta > 0,
        online=Online(group, max_tokens, temperature, score, learn, epochs),
    )


def advantages(
    rewards_B: np.ndarray, group: int, std: str
) -> tuple[np.ndarray, np.ndarray]:
    """The advantage of each answer, and whether it is of a group that is dead.

    Answers without a reward (nan) are left out of the mean of their group; they are
    dead, and so are all of a group of which fewer than two different rewards are known.
    """
    rewards_GN = rewards_B.reshape(-1, group)
    known_GN = np.isfinite(rewards_GN)
    count_G1 = np.maximum(known_GN.sum(axis=1, keepdims=True), 1)
    values_GN = np.where(known_GN, rewards_GN, 0.0)
    centred_GN = values_GN - values_GN.sum(axis=1, keepdims=True) / count_G1
    centred_GN = np.where(known_GN, centred_GN, 0.0)
    lowest_G = np.where(known_GN, rewards_GN, np.inf).min(axis=1)
    highest_G = np.where(known_GN, rewards_GN, -np.inf).max(axis=1)
    dead_GN = ~known_GN | (lowest_G >= highest_G)[:, None]
    if std == "group":  # Bessel's correction, as others have it
        squares_G1 = (centred_GN**2).sum(axis=1, keepdims=True)
        centred_GN = centred_GN / (
            np.sqrt(squares_G1 / np.maximum(count_G1 - 1, 1)) + 1e-4
        )
    elif std == "batch":
        known = values_GN[known_GN]
        spread = known.std(ddof=1) if len(known) > 1 else 1.0
        centred_GN = centred_GN / (spread + 1e-4)
    return np.where(dead_GN, 0.0, centred_GN).ravel(), dead_GN.ravel()


def divergence(ours_BT: jax.Array, theirs_BT: jax.Array, kind: str) -> jax.Array:
    """Estimates KL(ours || theirs) from tokens of ours (joschu.net/blog/kl-approx)."""
    log_ratio_BT = theirs_BT - ours_BT
    if kind == "k1":
        return -log_ratio_BT
    if kind == "k2":
        return 0.5 * log_ratio_BT**2
    return jnp.expm1(log_ratio_BT) - log_ratio_BT


def _means(x_BT: jax.Array, weights_BT: jax.Array) -> jax.Array:
    """The mean over each answer, at each of its tokens."""
    count_B1 = jnp.maximum(weights_BT.sum(axis=1, keepdims=True), 1.0)
    mean_B1 = (x_BT * weights_BT).sum(axis=1, keepdims=True) / count_B1
    return jnp.broadcast_to(mean_B1, x_BT.shape)


def _summed(
    loss_BT: jax.Array, weights_BT: jax.Array, mean: str, max_tokens: int
) -> tuple[jax.Array, jax.Array]:
    """The sum of the losses, and what it is to be divided by."""
    if mean == "token":
        return jnp.sum(loss_BT * weights_BT), weights_BT.sum()
    count_B = weights_BT.sum(axis=1)
    answers = (count_B > 0).sum().astype(jnp.float32)
    if mean == "constant":
        return jnp.sum(loss_BT * weights_BT) / max_tokens, answers
    share_BT = weights_BT / jnp.maximum(count_B, 1.0)[:, None]
    return jnp.sum(loss_BT * share_BT), answers
