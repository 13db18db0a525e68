"""What is compiled to continue texts: a prefill of prompts, then tokens one at a time.

`B batch, T padded prompt, V vocab`

What a row samples depends on its key and its position, not on its batch mates.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm.inference import sampling
from llm.inference.prompts import cache_for
from llm.nn.contract import Inputs
from llm.precision import compiler_options

PIECE = 32  # tokens that are decoded between two looks of the host


class State(NamedTuple):
    """Texts to go on with.

    Attributes:
      logits_BV: of the next token.
      cache: of the model, with room.
      positions_B: of the next token.
      seen_BV: which tokens a row holds, for the repetition penalty.
    """

    logits_BV: jax.Array
    cache: Any
    positions_B: jax.Array
    seen_BV: jax.Array


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model and how to sample from it; compiled once for all batches of a shape.

    Attributes:
      forbidden: ids that are never chosen.
    """

    model: Any
    knobs: sampling.Sampling
    forbidden: tuple[int, ...] = ()

    def prefill(self, params: Any, inputs: Inputs, new: int) -> State:
        """Reads prompts; there is room for `new` tokens after each."""
        return _compiled("prefill", self.model.policy.platform)(
            self, params, inputs, new
        )

    def decode(
        self, params: Any, state: State, keys_B: jax.Array
    ) -> tuple[State, jax.Array]:
        """`PIECE` more tokens of every row, tokens_BT; the given state is used up."""
        return _compiled("decode", self.model.policy.platform)(
            self, params, state, keys_B
        )

    def _prefill(self, params, inputs, new):
        past = self.model.init_cache(len(inputs.index_B), 0)
        output = self.model.apply({"params": params}, inputs, past)
        lengths_B = (inputs.segments_BT > 0).sum(axis=1, dtype=jnp.int32)
        last_B1D = jnp.take_along_axis(
            output.hidden_BTD, (lengths_B - 1)[:, None, None], axis=1
        )
        cache = cache_for(self.model, inputs, new).insert(output.cache, inputs)
        logits_BV = self._logits_BV(params, last_B1D)
        rows_B1 = jnp.arange(len(lengths_B))[:, None]
        # Padding repeats the first token, which is there in any case.
        tokens_BT = jnp.where(
            inputs.segments_BT > 0, inputs.tokens_BT, inputs.tokens_BT[:, :1]
        )
        seen_BV = jnp.zeros(logits_BV.shape, bool).at[rows_B1, tokens_BT].set(True)
        return State(logits_BV, cache, lengths_B, seen_BV)

    def _decode(self, params, state, keys_B):
        state, tokens_TB = jax.lax.scan(
            lambda s, _: self._step(params, s, keys_B), state, length=PIECE
        )
        return state, tokens_TB.T

    def _step(self, params, state, keys_B):
        logits_BV, cache, positions_B, seen_BV = state
        B = logits_BV.shape[0]
        if self.knobs.repetition_penalty != 1:
            logits_BV = sampling.penalise(
                logits_BV, seen_BV, self.knobs.repetition_penalty
            )
        step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, positions_B)
        token_B = sampling.choose(logits_BV, step_keys_B, self.knobs)
        seen_BV = seen_BV.at[jnp.arange(B), token_B].set(True)
        inputs = Inputs(
            token_B[:, None],
            positions_B[:, None],
            jnp.ones((B, 1), jnp.int32),
            jnp.arange(B),
        )
        output = self.model.apply({"params": params}, inputs, cache)
        logits_BV = self._logits_BV(params, output.hidden_BTD)
        cache = cache.insert(output.cache, inputs)
        return State(logits_BV, cache, positions_B + 1, seen_BV), token_B

    def _logits_BV(self, params, hidden_B1D):
        head = self.model.apply({"params": params}, hidden_B1D, method="head")
        logits_BV = head.logits(self.model.policy)[:, 0]
        return logits_BV.at[:, jnp.array(self.forbidden, int)].set(-jnp.inf)


@functools.cache
def _compiled(part: str, platform: str) -> Any:
    """The jitted part for a platform; it compiles when it is first called."""
    if part == "prefill":
        return jax.jit(Engine._prefill, static_argnums=(0, 3))
    return jax.jit(
        Engine._decode, static_argnums=0, donate_argnums=2,
        compiler_options=compiler_options(platform),
    )  # fmt: skip
