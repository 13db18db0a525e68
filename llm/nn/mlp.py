"""Gated feed-forward layer, SwiGLU (arXiv:2002.05202)."""

import flax.linen as nn
import jax

from llm.nn.dense import Dense
from llm.precision import Policy


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    mlp: int
    policy: Policy
    residual_scale: float

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        D, F = x_BTD.shape[-1], self.mlp
        into = {"shape": (D, F), "axes": ("embed", "mlp"), "policy": self.policy}
        gate_BTF = Dense("BTD,DF->BTF", name="gate", **into)(x_BTD)
        up_BTF = Dense("BTD,DF->BTF", name="up", **into)(x_BTD)
        hidden_BTF = nn.silu(gate_BTF) * up_BTF
        hidden_BTF = nn.with_logical_constraint(hidden_BTF, ("batch", "length", "mlp"))
        return Dense(
            "BTF,FD->BTD",
            shape=(F, D),
            axes=("mlp", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            name="down",
        )(hidden_BTF)
