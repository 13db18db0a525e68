"""Feed-forward layers: gated ones (arXiv:2002.05202) and plain ones with biases."""

import functools

import flax.linen as nn
import jax

from llm.nn.dense import Dense
from llm.precision import Policy

ACTIVATIONS = {
    "silu": nn.silu,
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}


class Gated(nn.Module):
    """down(activation(gate(x)) * up(x)): SwiGLU with silu, GeGLU with gelu."""

    mlp: int
    policy: Policy
    residual_scale: float = 1.0
    activation: str = "silu"

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        D, F = x_BTD.shape[-1], self.mlp
        into = {"shape": (D, F), "axes": ("embed", "mlp"), "policy": self.policy}
        gate_BTF = Dense("BTD,DF->BTF", name="gate", **into)(x_BTD)
        up_BTF = Dense("BTD,DF->BTF", name="up", **into)(x_BTD)
        hidden_BTF = ACTIVATIONS[self.activation](gate_BTF) * up_BTF
        hidden_BTF = nn.with_logical_constraint(hidden_BTF, ("batch", "length", "mlp"))
        return Dense(
            "BTF,FD->BTD",
            shape=(F, D),
            axes=("mlp", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            name="down",
        )(hidden_BTF)


class MLP(nn.Module):
    """down(activation(up(x))), with biases."""

    mlp: int
    policy: Policy
    activation: str = "gelu_tanh"
    residual_scale: float = 1.0

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        D, F = x_BTD.shape[-1], self.mlp
        hidden_BTF = Dense(
            "BTD,DF->BTF",
            shape=(D, F),
            axes=("embed", "mlp"),
            policy=self.policy,
            bias=True,
            name="up",
        )(x_BTD)
        hidden_BTF = ACTIVATIONS[self.activation](hidden_BTF)
        hidden_BTF = nn.with_logical_constraint(hidden_BTF, ("batch", "length", "mlp"))
        return Dense(
            "BTF,FD->BTD",
            shape=(F, D),
            axes=("mlp", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            bias=True,
            name="down",
        )(hidden_BTF)
