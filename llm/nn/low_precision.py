"""Products of training in eight bits: int8 or fp8, forward and backward.

Operands are rounded as they come (dynamic or current scaling), each with a scale that
brings its largest value to the largest that eight bits hold; the sums are exact in
int32, or float32, and scaled back. Rounding is straight through: the gradient is that
of the plain product, itself made of rounded operands.

    int8   a scale for each row of activations and each column of the kernel, whichever
           of a product's axes are not summed (vector-wise, arXiv:2208.07339)
    fp8    a scale for each array; e4m3 forward, e5m2, whose range is wider, for
           gradients (arXiv:2209.05433)

A chip with an int8 unit (v5e, v5p, v6e) multiplies int8 at twice the speed of
bfloat16; fp8 is faster on tpu7x and on NVIDIA's from Hopper on, elsewhere a way to try
it. Finding scales and rounding are passes over memory beside, which may cost more than
products save: compile the plan before you believe it (LOG.md has a case). Parameters
and moments stay float32.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from llm.precision import Policy

PRODUCTS = ("dtype", "int8", "fp8")  # dtype: as the policy's dtype says
FORWARD, GRADIENT = jnp.float8_e4m3fn, jnp.float8_e5m2
_INT8 = 127.0


def int8(x: jax.Array, summed: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """(values, scales): `x` is about their product.

    Args:
      summed: axes that a scale is shared along, those that a product sums over.
    """
    x = x.astype(jnp.float32)
    scale = _scale(jnp.abs(x).max(axis=summed, keepdims=True), _INT8)
    return jnp.round(x / scale).astype(jnp.int8), scale


def fp8(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(values, scale of the whole array): `x` is about their product."""
    x = x.astype(jnp.float32)
    most = float(jnp.finfo(dtype).max)
    scale = _scale(jnp.abs(x).max(keepdims=True), most)
    return jnp.clip(x / scale, -most, most).astype(dtype), scale


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: jax.Array, kernel: jax.Array, contracted: int, policy: Policy):
    """Contracts the last axes of `x` with the first ones of `kernel`, in eight bits."""
    return _forward(x, kernel, contracted, policy)[0]


def _forward(x, kernel, contracted, policy):
    kept = x.ndim - contracted
    y = _contract(
        x, kernel, range(kept, x.ndim), range(contracted), policy.products,
        policy=policy,
    )  # fmt: skip
    return y.astype(policy.activations), (x.astype(policy.operands), kernel)


def _backward(contracted, policy, saved, dy):
    x, kernel = saved
    kept = x.ndim - contracted
    of_y, of_kernel = range(kept, dy.ndim), range(contracted, kernel.ndim)
    contract = functools.partial(
        _contract, products=policy.products, policy=policy, left=GRADIENT
    )
    dx = contract(dy, kernel, of_y, of_kernel)
    # Gradients on the left: made with its axes exchanged, and brought into order.
    turned = contract(dy, x, range(kept), range(kept))
    order = (*range(len(of_y), turned.ndim), *range(len(of_y)))
    return dx.astype(policy.activations), turned.transpose(order).astype(kernel.dtype)


product.defvjp(_forward, _backward)


def _contract(a, b, a_axes, b_axes, products, *, policy, left=FORWARD):
    """Axes kept of a, then those of b, float32.

    Args:
      left: fp8 dtype of `a`.
    """
    a_axes, b_axes = tuple(a_axes), tuple(b_axes)
    if products == "int8":
        (a8, a_scale), (b8, b_scale) = int8(a, a_axes), int8(b, b_axes)
        made = jnp.int32
    else:
        (a8, a_scale), (b8, b_scale) = fp8(a, left), fp8(b, FORWARD)
        made = jnp.float32
        if policy.platform == "cpu":  # which has no such product; the same values
            a8, b8 = a8.astype(made), b8.astype(made)
    sums = jax.lax.dot_general(
        a8, b8, ((a_axes, b_axes), ((), ())), preferred_element_type=made
    )
    a_kept, b_kept = a.ndim - len(a_axes), b.ndim - len(b_axes)
    a_scale = jnp.squeeze(a_scale, a_axes)
    b_scale = jnp.squeeze(b_scale, b_axes)
    a_scale = a_scale.reshape(*a_scale.shape, *(1,) * b_kept)
    b_scale = b_scale.reshape(*(1,) * a_kept, *b_scale.shape)
    return sums.astype(jnp.float32) * a_scale * b_scale


def _scale(largest: jax.Array, most: float) -> jax.Array:
    """What brings the largest value to `most`; 1 where all are nought."""
    return jnp.where(largest > 0, largest / most, 1.0)
