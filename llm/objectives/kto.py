"""Kahneman-Tversky optimisation (arXiv:2402.01306): answers that are good, or bad.

Records need no pairs: each answer says for itself whether people liked it. A pair
counts as one good and one bad answer. With `reward`, by how much likelier than under
the reference, the model that training began with, the model finds an answer, and `kl`,
the same of answers to other questions, which the model should be indifferent about:

    reward = beta * (log p - log p_reference)       a sum over the answer's tokens
    good     desirable   * (1 - sigmoid(reward - beta * kl))
    bad      undesirable * (1 - sigmoid(beta * kl - reward))

The mean is over answers. `kl` is a mean over the whole batch, at least 0, and carries
no gradient. Its pairs of a question with the answer to another one are made within a
row, whose answers change places: they fit there by construction, and no part of a batch
needs another one's rows. So `train.seq_len` should hold several records; the share of
answers for which there was another question is logged as `mismatched`, and where there
is none, `kl` is 0.

`T tokens, B batch, P records of a row`
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm.data import preference_rows
from llm.knobs import Above0, Amount
from llm.losses import answer_logprobs, answer_sums
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {}
_OTHER = "mismatched_"  # what names of the rows begin with whose answers changed places


def make(
    *,
    beta: Above0 = 0.1,
    desirable: Amount = 1.0,
    undesirable: Amount = 1.0,
    **given: Any,
) -> Objective:
    """Kahneman-Tversky optimisation.

    Args:
      beta: how dear it is to leave the reference.
      desirable, undesirable: weights of good and of bad answers. The paper wants good
        answers times their weight between 1 and 4/3 of bad ones times theirs.
    """
    del given

    def loss(apply, params, batch, *, reference, rngs=None, policy):
        def log_ratios(batch, rngs):
            """Of the model to its reference: of each answer, and its tokens, BP2."""
            inputs = inputs_of(batch)

            def likelihoods(params, rngs):
                _, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
                return answer_logprobs(head, batch, policy=policy)

            ours_BP2, tokens_BP2 = likelihoods(params, rngs)
            theirs_BP2, _ = likelihoods(reference, None)
            return ours_BP2 - jax.lax.stop_gradient(theirs_BP2), tokens_BP2

        ratio_BP2, tokens_BP2 = log_ratios(batch, rngs)
        answer_BP2 = (tokens_BP2 > 0).astype(jnp.float32)
        good, bad = answer_BP2.sum(axis=(0, 1))
        other = _mismatched(batch)
        other_BP2 = answer_sums(other["weights"], other["segments"]) > 0
        count = other_BP2.sum().astype(jnp.float32)
        if "kl" in batch:  # of the whole batch, of which this is a part
            kl = batch["kl"]
        else:
            kl = jnp.sum(log_ratios(other, None)[0]) / jnp.maximum(count, 1.0)
        kl = jax.lax.stop_gradient(kl)
        side_112 = jnp.array([[[1.0, -1.0]]])
        above_BP2 = side_112 * beta * (ratio_BP2 - jnp.maximum(kl, 0.0))
        weight_BP2 = answer_BP2 * jnp.array([[[desirable, undesirable]]])
        reward_2 = jnp.sum(beta * ratio_BP2 * answer_BP2, axis=(0, 1))
        weight = good + bad
        metrics = {
            "loss": (jnp.sum(weight_BP2 * jax.nn.sigmoid(-above_BP2)), weight),
            "accuracy": (jnp.sum(answer_BP2 * (above_BP2 > 0)), weight),
            "chosen_reward": (reward_2[0], good),
            "rejected_reward": (reward_2[1], bad),
            "kl": (kl * count, count),
            "mismatched": (count, weight),
        }
        return metrics["loss"][0], weight, metrics

    return Objective(
        kinds=("causal",),
        features=features,
        loss=loss,
        room=lambda seq_len: ((preference_rows.PARTS, seq_len + 1),),
        reference=True,
        unpaired=True,
        whole=("kl",),
    )


def features(record: dict[str, Any], rng: Any) -> dict[str, np.ndarray]:
    """A row of answers, and the same row with each answer behind another prompt."""
    row, other = preference_rows.features(record, rng), _exchanged(record)
    return row | {_OTHER + name: x for name, x in other.items()}


def _mismatched(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    names = [name for name in batch if name.startswith(_OTHER)]
    rows = {name.removeprefix(_OTHER): batch[name] for name in names}
    return rows | {"index": batch["index"]}


def _exchanged(record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every prompt with a later answer of the row, which counts where prompts differ.

    The answers of a row change places, so that it holds as many tokens as before.
    """
    tokens, labels = record["tokens"], record["labels"]
    segments = preference_rows.segments_of(record)
    ids, begins = np.unique(segments[segments > 0], return_index=True)
    spans = np.split(np.arange(int((segments > 0).sum())), begins)[1:]
    learned = np.isin(labels, preference_rows.ANSWERS)
    cuts = [int(np.argmax(learned[span])) for span in spans]
    prompts = [span[:cut] for span, cut in zip(spans, cuts, strict=True)]
    answers = [span[cut:] for span, cut in zip(spans, cuts, strict=True)]
    # Past the other answer of a pair.
    step = int(np.bincount((ids + 1) // 2).max(initial=1))
    order, labels = np.arange(len(tokens)), labels.copy()
    segments, at = segments.copy(), 0
    for n, prompt in enumerate(prompts):
        other = (n + step) % len(prompts)
        places = np.concatenate([prompt, answers[other]])
        here = slice(at, at + len(places))
        order[here], segments[here] = places, ids[n]
        if np.array_equal(tokens[prompt], tokens[prompts[other]]):
            labels[answers[other]] = -1
        at += len(places)
    return preference_rows.next_tokens(tokens[order], labels[order], segments)
