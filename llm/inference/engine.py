"""What is compiled to continue texts, in three pure verbs over fixed shapes.

    prefix = engine.prefill(params, inputs)          reads prompts, padded to a bucket
    state = engine.insert(state, prefix, slots_P)    puts them in rows of a state
    state, made = engine.generate(params, state, rows, keys_B, left_B, steps)

A state is a fixed number of rows (slots) of a fixed length, made by `empty`; it is used
up by what is done with it. Rows want different things, which are arrays, so there is
one program for all: how to sample, how many tokens a row may still make (0: the row
stands still), how many of its likeliest tokens are to be told. Who fills which slot,
and when, is not known here: `generate.py` does it for a batch, `llm/serve` for requests
that come and go.

`B rows of a state, P prompts, T padded prompt, V vocab, K likeliest tokens, W words of
32 bits`

What a row samples depends on its key and its position, not on its batch mates.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm.inference import sampling
from llm.nn import cache as caches
from llm.nn.contract import Inputs
from llm.precision import compiler_options

PIECE = 32  # most tokens that are decoded between two looks of the host
LIKELIEST = 20  # most alternatives to a token that are told
NONE = -1  # stands where a row made no token, and for no wish of likelihoods


class Prefix(NamedTuple):
    """Prompts that were read.

    Attributes:
      logits_PV: of the next token.
      cache: what is to be put in a cache.
      lengths_P: tokens of each.
      history_PV: as in `State`.
      tokens_PT, hidden_PTD: of the prompts, for who asks how likely they are.
    """

    logits_PV: jax.Array
    cache: Any
    lengths_P: jax.Array
    history_PV: jax.Array
    tokens_PT: jax.Array
    hidden_PTD: jax.Array


class State(NamedTuple):
    """Texts to go on with.

    Attributes:
      logits_BV: of the next token.
      cache: of the model, with room.
      positions_B: of the next token.
      history_BV: twice how often a row has made a token, plus 1 if its prompt has it.
    """

    logits_BV: jax.Array
    cache: Any
    positions_B: jax.Array
    history_BV: jax.Array


class Made(NamedTuple):
    """The tokens of a piece, NONE where a row made none, and how likely they were.

    Log-probabilities are those of the model, before penalties, temperature and cuts; 0
    where no row asked.
    """

    tokens_BT: jax.Array
    logprobs_BT: jax.Array
    likeliest_BTK: jax.Array
    likeliest_logprobs_BTK: jax.Array


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model, compiled once for all batches of a shape.

    Attributes:
      forbidden: ids that are never chosen.
      ends: ids after which a row stands still.
      tempered: whether log-probabilities are told after temperature.
    """

    model: Any
    forbidden: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    tempered: bool = False

    def empty(self, *sizes: int) -> State:
        """A state of so many rows and slots of each, and of the source if there is one.

        A model without slots, a recurrent one, holds texts of any length.
        """
        return _compiled("empty", self.model.policy.platform)(self, *sizes)

    def prefill(self, params: Any, inputs: Inputs) -> Prefix:
        """Reads prompts, one compilation for each shape of them."""
        return _compiled("prefill", self.model.policy.platform)(self, params, inputs)

    def insert(self, state: State, prefix: Prefix, slots_P: jax.Array) -> State:
        """Puts prompts in rows of a state, which is used up; a slot of B is none."""
        return _compiled("insert", self.model.policy.platform)(state, prefix, slots_P)

    def generate(
        self,
        params: Any,
        state: State,
        rows: sampling.Rows,
        keys_B: jax.Array,
        left_B: jax.Array,
        steps: int = PIECE,
        *,
        told_B: jax.Array | None = None,
        endless_B: jax.Array | None = None,
        allowed_BW: jax.Array | None = None,
    ) -> tuple[State, Made]:
        """Up to `steps` more tokens of every row; the given state is used up.

        Args:
          keys_B: random keys, as their data.
          left_B: tokens that each row may still make, at most as there is room for.
          steps: at most PIECE; no compilation depends on it.
          told_B: how many of the likeliest tokens to tell with each; NONE is nothing.
          endless_B: which rows go on after an end.
          allowed_BW: a bit for each token that may be chosen, of every step; give it
            with one step at a time.
        """
        B = len(left_B)
        if allowed_BW is None:
            allowed_BW = _all_allowed(B, -(-self.model.vocab_size // 32))
        told_B = np.full(B, NONE, np.int32) if told_B is None else told_B
        endless_B = np.zeros(B, bool) if endless_B is None else endless_B
        return _compiled("generate", self.model.policy.platform)(
            self, params, state, rows, keys_B, left_B, np.int32(steps), told_B,
            endless_B, allowed_BW,
        )  # fmt: skip

    def resize(self, state: State, batch: int, length: int) -> State:
        """The first rows of a state, or more of them, with so many slots in each.

        What is decoded works on all rows and reads all their slots.
        """
        return _compiled("resize", self.model.policy.platform)(
            self, state, batch, length
        )

    def _resize(self, state, batch, length):
        wanted = jax.eval_shape(lambda: self._empty(batch, length))

        def fit(x, like):
            x = x[tuple(slice(size) for size in like.shape)]
            more = zip(like.shape, x.shape, strict=True)
            return jnp.pad(x, [(0, size - held) for size, held in more])

        return jax.tree.map(fit, state, wanted)

    def _empty(self, batch, *sizes):
        V = self.model.vocab_size
        return State(
            jnp.zeros((batch, V), jnp.float32),
            self.model.init_cache(batch, *sizes),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros((batch, V), jnp.int32),
        )

    def _prefill(self, params, inputs):
        past = self.model.init_cache(len(inputs.index_B), 0)
        output = self.model.apply({"params": params}, inputs, past)
        lengths_P = (inputs.segments_BT > 0).sum(axis=1, dtype=jnp.int32)
        last_P1D = jnp.take_along_axis(
            output.hidden_BTD, (lengths_P - 1)[:, None, None], axis=1
        )
        logits_PV = self._logits_BV(params, last_P1D)
        rows_P1 = jnp.arange(len(lengths_P))[:, None]
        # Padding repeats the first token, which is there in any case.
        tokens_PT = jnp.where(
            inputs.segments_BT > 0, inputs.tokens_BT, inputs.tokens_BT[:, :1]
        )
        history_PV = jnp.zeros(logits_PV.shape, jnp.int32)
        history_PV = history_PV.at[rows_P1, tokens_PT].set(1)
        return Prefix(
            logits_PV, output.cache, lengths_P, history_PV, inputs.tokens_BT,
            output.hidden_BTD,
        )  # fmt: skip

    def _generate(
        self, params, state, rows, keys_B, left_B, steps, told_B, endless_B, allowed_BW
    ):  # fmt: skip
        B, K = len(left_B), min(LIKELIEST, self.model.vocab_size)
        keys_B = jax.random.wrap_key_data(keys_B)
        nothing = Made(
            jnp.full((PIECE, B), NONE, jnp.int32),
            jnp.zeros((PIECE, B)),
            jnp.zeros((PIECE, B, K), jnp.int32),
            jnp.zeros((PIECE, B, K)),
        )

        def goes_on(held):
            step, _, left_B, _ = held
            return (step < steps) & (left_B > 0).any()

        def one(held):
            step, state, left_B, made = held
            token_B = self._choose(state, rows, keys_B, left_B > 0, allowed_BW)
            logits_BV = state.logits_BV
            if self.tempered:
                logits_BV = logits_BV / rows.temperature_B[:, None]
            told = _told(logits_BV, token_B, told_B, left_B > 0, K)
            now = (jnp.where(left_B > 0, token_B, NONE), *told)
            made = Made(*(x.at[step].set(n) for x, n in zip(made, now, strict=True)))
            state = self._fed(params, state, token_B, left_B > 0)
            ended_B = jnp.isin(token_B, jnp.array(self.ends, jnp.int32)) & ~endless_B
            left_B = jnp.where(ended_B, 0, jnp.maximum(left_B - 1, 0))
            return step + 1, state, left_B, made

        start = (jnp.int32(0), state, left_B, nothing)
        _, state, _, made = jax.lax.while_loop(goes_on, one, start)
        return state, Made(*(x.swapaxes(0, 1) for x in made))

    def _choose(self, state, rows, keys_B, active_B, allowed_BW):
        """The next token of every row."""
        logits_BV, _, positions_B, history_BV = state

        free_B = (allowed_BW == -1).all(axis=1)

        def carefully():
            chosen_BV = sampling.penalise(logits_BV, history_BV, rows)
            chosen_BV = jax.lax.cond(
                free_B.all(), lambda: chosen_BV, lambda: _only(chosen_BV, allowed_BW)
            )
            step_keys_B = jax.vmap(jax.random.fold_in)(keys_B, positions_B)
            return sampling.choose(chosen_BV, step_keys_B, rows)

        greedy_B = (sampling.is_greedy(rows) & free_B) | ~active_B
        return jax.lax.cond(greedy_B.all(), lambda: sampling.best(logits_BV), carefully)

    def _fed(self, params, state, token_B, active_B):
        """The state after a token of the rows that are active."""
        _, cache, positions_B, history_BV = state
        B = len(token_B)
        history_BV = history_BV.at[jnp.arange(B), token_B].add(2 * active_B)
        inputs = Inputs(
            token_B[:, None],
            positions_B[:, None],
            active_B.astype(jnp.int32)[:, None],
            jnp.arange(B),
        )
        output = self.model.apply({"params": params}, inputs, cache)
        logits_BV = self._logits_BV(params, output.hidden_BTD)
        cache = cache.insert(output.cache, inputs)
        return State(logits_BV, cache, positions_B + active_B, history_BV)

    def _logits_BV(self, params, hidden_B1D):
        head = self.model.apply({"params": params}, hidden_B1D, method="head")
        logits_BV = head.logits(self.model.policy)[:, 0]
        return logits_BV.at[:, jnp.array(self.forbidden, int)].set(-jnp.inf)


def key_data(seed: int, numbers: Sequence[int]) -> jax.Array:
    """The keys of the texts of a seed that have these numbers, as their data."""
    keys_B = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(
        jnp.asarray(numbers, jnp.uint32)
    )
    return jax.random.key_data(keys_B)


@functools.cache
def _all_allowed(B: int, W: int) -> np.ndarray:
    return np.full((B, W), -1, np.int32)


def _only(logits_BV, allowed_BW):
    """Logits of the tokens whose bit is set; the others are -inf."""
    places_V = jnp.arange(logits_BV.shape[1])
    bits_BV = allowed_BW[:, places_V // 32] >> (places_V % 32)[None] & 1
    return jnp.where(bits_BV == 1, logits_BV, -jnp.inf)


def _told(logits_BV, token_B, told_B, active_B, K):
    """The log-probabilities of a token and of the K likeliest ones, if a row asks."""
    B = len(token_B)

    def tell():
        whole_B1 = jax.nn.logsumexp(logits_BV, axis=1, keepdims=True)
        own_B1 = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)
        values_BK, ids_BK = jax.lax.cond(
            (active_B & (told_B > 0)).any(),
            lambda: tuple(jax.lax.top_k(logits_BV, K)),
            lambda: (jnp.zeros((B, K)), jnp.zeros((B, K), jnp.int32)),
        )
        return (own_B1 - whole_B1)[:, 0], ids_BK, values_BK - whole_B1

    def tell_nothing():
        return jnp.zeros(B), jnp.zeros((B, K), jnp.int32), jnp.zeros((B, K))

    return jax.lax.cond((active_B & (told_B >= 0)).any(), tell, tell_nothing)


def _insert(state, prefix, slots_P):
    return State(
        state.logits_BV.at[slots_P].set(prefix.logits_PV, mode="drop"),
        caches.place(state.cache, prefix.cache, slots_P),
        state.positions_B.at[slots_P].set(prefix.lengths_P, mode="drop"),
        state.history_BV.at[slots_P].set(prefix.history_PV, mode="drop"),
    )


@functools.cache
def _compiled(part: str, platform: str) -> Any:
    """The jitted part for a platform; it compiles when it is first called."""
    if part == "empty":
        return jax.jit(Engine._empty, static_argnums=(0, 1, 2, 3))
    if part == "prefill":
        return jax.jit(Engine._prefill, static_argnums=0)
    if part == "resize":
        return jax.jit(Engine._resize, static_argnums=(0, 2, 3))
    if part == "insert":
        return jax.jit(_insert, donate_argnums=0)
    return jax.jit(
        Engine._generate, static_argnums=0, donate_argnums=2,
        compiler_options=compiler_options(platform),
    )  # fmt: skip
