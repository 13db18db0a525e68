"""Feed-forward layers: gated ones (arXiv:2002.05202) and plain ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from llm import sharding
from llm.nn.dense import Dense
from llm.nn.weights import einsum
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
        return Dense(
            "BTF,FD->BTD",
            shape=(F, D),
            axes=("mlp", "embed"),
            policy=self.policy,
            scale=self.residual_scale,
            name="down",
        )((gate_BTF, up_BTF), product=self._down)

    def _down(self, spec, gated, kernel_FD, policy):
        """The last product, of what the gate lets through."""
        activation = ACTIVATIONS[self.activation]
        whole = policy.products == "dtype" and isinstance(kernel_FD, jax.Array)
        if policy.platform == "tpu" and whole:
            return _gated_product(*gated, kernel_FD, activation, policy)
        gate_BTF, up_BTF = gated
        hidden_BTF = nn.with_logical_constraint(
            activation(gate_BTF) * up_BTF, ("batch", "length", "mlp")
        )
        return einsum(spec, hidden_BTF, kernel_FD, policy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _gated_product(gate_BTF, up_BTF, kernel_FD, activation, policy):
    """activation(gate) * up @ kernel, whose gradient makes the hidden layer once.

    On a TPU, elementwise work goes into the products that read it, which read it
    several times: where the hidden layer is recomputed, it is rather written out
    together with the two gradients.
    """
    return _gated_forward(gate_BTF, up_BTF, kernel_FD, activation, policy)[0]


def _gated_forward(gate_BTF, up_BTF, kernel_FD, activation, policy):
    hidden_BTF = nn.with_logical_constraint(
        activation(gate_BTF) * up_BTF, ("batch", "length", "mlp")
    )
    y_BTD = einsum("BTF,FD->BTD", hidden_BTF, kernel_FD, policy)
    return y_BTD, (gate_BTF, up_BTF, kernel_FD)


def _gated_backward(activation, policy, saved, dy_BTD):
    gate_BTF, up_BTF, kernel_FD = saved
    dtype = policy.operands
    dhidden_BTF = jnp.einsum(
        "BTD,FD->BTF", dy_BTD.astype(dtype), kernel_FD.astype(dtype)
    )
    gate_BTF, up_BTF, dhidden_BTF = _row_major(gate_BTF, up_BTF, dhidden_BTF)
    hidden_BTF, back = jax.vjp(lambda g, u: activation(g) * u, gate_BTF, up_BTF)
    made = _row_major(hidden_BTF, *back(dhidden_BTF))
    hidden_BTF, dgate_BTF, dup_BTF = jax.lax.optimization_barrier(made)
    dkernel_FD = jnp.einsum(
        "BTF,BTD->FD", hidden_BTF.astype(dtype), dy_BTD.astype(dtype),
        preferred_element_type=kernel_FD.dtype,
    )  # fmt: skip
    return dgate_BTF, dup_BTF, dkernel_FD


_gated_product.defvjp(_gated_forward, _gated_backward)


def _row_major(*arrays_BTF):
    """The arrays, as they lie in memory on the way forward.

    A v6e would rather have tokens last here, for the gradient of the kernels, and copy
    all that was kept of gate and up, a quarter of a step. A constraint is not known to
    the partitioner, so it is put on what each device has.
    """
    layout = Layout((0, 1, 2))
    return sharding.on_each_device(
        lambda *own: tuple(with_layout_constraint(x, layout) for x in own),
        ("batch", "length", "mlp"),
        *arrays_BTF,
    )


class MLP(nn.Module):
    """down(activation(up(x))), with biases but where `bias` is false."""

    mlp: int
    policy: Policy
    activation: str = "gelu_tanh"
    residual_scale: float = 1.0
    bias: bool = True

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        D, F = x_BTD.shape[-1], self.mlp
        dense = functools.partial(Dense, policy=self.policy, bias=self.bias)
        up = dense("BTD,DF->BTF", (D, F), ("embed", "mlp"), name="up")
        hidden_BTF = ACTIVATIONS[self.activation](up(x_BTD))
        hidden_BTF = nn.with_logical_constraint(hidden_BTF, ("batch", "length", "mlp"))
        return dense(
            "BTF,FD->BTD", (F, D), ("mlp", "embed"), scale=self.residual_scale,
            name="down",
        )(hidden_BTF)  # fmt: skip
