"""Recurrent layers: LSTM (Hochreiter and Schmidhuber 1997) and GRU (arXiv:1406.1078).

The equations and the order of the gates are those of PyTorch, so that weights go both
ways. What depends on the input alone is one product for all times; only the product
with the state is taken step by step. A state starts at zero where a text begins (its
position is 0), and stands still at padding.

`B batch, T time, D width, F gates * D`
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.nn.contract import Inputs
from llm.nn.weights import einsum
from llm.precision import Policy

State = tuple[jax.Array, ...]


def lstm(state: State, given_BF: jax.Array, held_BF: jax.Array) -> State:
    """(hidden, cell) from those before, the input's gates and the state's."""
    _, cell_BD = state
    enter, forget, new, leave = jnp.split(given_BF + held_BF, 4, axis=-1)
    cell_BD = nn.sigmoid(forget) * cell_BD + nn.sigmoid(enter) * jnp.tanh(new)
    return nn.sigmoid(leave) * jnp.tanh(cell_BD), cell_BD


def gru(state: State, given_BF: jax.Array, held_BF: jax.Array) -> State:
    """(hidden,) from the one before; the reset gate follows the product."""
    (hidden_BD,) = state
    given, held = jnp.split(given_BF, 3, axis=-1), jnp.split(held_BF, 3, axis=-1)
    reset = nn.sigmoid(given[0] + held[0])
    keep = nn.sigmoid(given[1] + held[1])
    new = jnp.tanh(given[2] + reset * held[2])
    return ((1 - keep) * new + keep * hidden_BD,)


class Weights(nn.Module):
    """A kernel and a bias for all gates."""

    width: int
    gates: int
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        D, F = self.width, self.gates * self.width
        normal = nn.initializers.normal(D**-0.5)
        kernel = nn.with_logical_partitioning(normal, ("embed", "mlp"))
        bias = nn.with_logical_partitioning(self.bias_init, ("mlp",))
        return (
            self.param("kernel", kernel, (D, F), jnp.float32),
            self.param("bias", bias, (F,), jnp.float32),
        )


class Recurrent(nn.Module):
    """A layer of one cell over all times.

    Attributes:
      cell: `lstm` or `gru`.
      gates: how many it has.
      states: how many arrays its state is.
      bias_init: of the input's bias.
    """

    cell: Callable[[State, jax.Array, jax.Array], State]
    gates: int
    states: int
    policy: Policy
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, state: State | None, inputs: Inputs
    ) -> tuple[jax.Array, State]:
        B, _, D = x_BTD.shape
        kernel_DF, bias_F = Weights(D, self.gates, self.bias_init, name="input")()
        given_BTF = einsum("BTD,DF->BTF", x_BTD, kernel_DF, self.policy)
        given_BTF = given_BTF + bias_F.astype(given_BTF.dtype)[None, None]
        kernel_DF, bias_F = Weights(D, self.gates, name="recurrent")()
        if state is None:
            state = (jnp.zeros((B, D), jnp.float32),) * self.states
        begins_BT = (inputs.positions_BT == 0) & (inputs.segments_BT > 0)
        stands_BT = inputs.segments_BT == 0

        def step(state, now):
            given_BF, begins_B, stands_B = now
            held = tuple(jnp.where(begins_B[:, None], 0.0, s) for s in state)
            held_BF = einsum("BD,DF->BF", held[0], kernel_DF, self.policy)
            held_BF = held_BF.astype(jnp.float32) + bias_F[None]
            new = self.cell(held, given_BF.astype(jnp.float32), held_BF)
            pairs = zip(state, new, strict=True)
            state = tuple(jnp.where(stands_B[:, None], s, n) for s, n in pairs)
            return state, state[0]

        by_time = jax.tree.map(
            lambda x: x.swapaxes(0, 1), (given_BTF, begins_BT, stands_BT)
        )
        state, hidden_TBD = jax.lax.scan(step, state, by_time)
        return hidden_TBD.swapaxes(0, 1).astype(x_BTD.dtype), state
