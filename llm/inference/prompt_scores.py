"""How likely the tokens of a prompt are, each after those before it.

From the hidden states that reading the prompt leaves, so that what is compiled to read
is compiled for this as well.

`B prompts, T padded prompt, C tokens at once, V vocab, K likeliest tokens`
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm.inference.engine import Prefix

_CHUNK = 32  # tokens whose logits exist at once


class PromptScores(NamedTuple):
    """Log-probabilities of each token, 0 for the first, and of the likeliest there."""

    logprobs_BT: jax.Array
    likeliest_BTK: jax.Array
    likeliest_logprobs_BTK: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def prompt_scores(
    model: Any, params: Any, prefix: Prefix, vocab_size: int, K: int
) -> PromptScores:
    """Scores of whole prompts, whose padded length is a multiple of 32.

    Args:
      prefix: what `Engine.prefill` made of them.
      vocab_size: ids of the tokenizer; what pads it takes no probability.
    """
    hidden_BTD = prefix.hidden_PTD
    B, T, _ = hidden_BTD.shape
    next_BT = jnp.roll(prefix.tokens_PT, -1, axis=1)

    def some(held):
        hidden_BCD, next_BC = held
        head = model.apply({"params": params}, hidden_BCD, method="head")
        logits_BCV = head.logits(model.policy)[..., :vocab_size]
        whole_BC1 = jax.nn.logsumexp(logits_BCV, axis=-1, keepdims=True)
        own_BC1 = jnp.take_along_axis(logits_BCV, next_BC[..., None], axis=-1)
        values_BCK, ids_BCK = jax.lax.top_k(logits_BCV, K)
        return (own_BC1 - whole_BC1)[..., 0], ids_BCK, values_BCK - whole_BC1

    def cut(x):
        return x.reshape(B, T // _CHUNK, _CHUNK, *x.shape[2:]).swapaxes(0, 1)

    made = jax.lax.map(some, (cut(hidden_BTD), cut(next_BT)))
    made = [x.swapaxes(0, 1).reshape(B, T, *x.shape[3:]) for x in made]
    # What was found at a token is of the next one.
    return PromptScores(
        *(jnp.roll(x, 1, axis=1).at[:, 0].set(0).astype(x.dtype) for x in made)
    )
