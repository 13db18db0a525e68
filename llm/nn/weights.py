"""The one product of activations and weights.

The gradient is written out, because the transposes that XLA derives are slow on a CPU:
the cotangent arrives in float32 and must be cast, and the activations of the weight
gradient must be physically transposed (see `llm/precision.py`).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from llm import sharding
from llm.nn import low_precision
from llm.precision import Policy, Weight, dense, matmul, row_major, transposed


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "a", "b"],
    meta_fields=["scale"],
)
@dataclasses.dataclass(frozen=True)
class Lora:
    """A kernel that stays, and a low-rank update: `kernel + scale * a @ b`.

    It stands for the kernel wherever that is multiplied (`llm/adapters/lora.py`).

    Attributes:
      kernel: an array, or what else stands for one.
      a: of the kernel's inputs, and the rank.
      b: of the rank, and the kernel's outputs; a stack of layers has a stack of both.
    """

    kernel: jax.Array | Weight
    a: jax.Array
    b: jax.Array
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.kernel.shape

    def merged(self) -> jax.Array:
        """The sum as one array, float32."""
        R = self.a.shape[-1]
        stacked = self.a.ndim + self.b.ndim - 2 > len(self.shape)
        L = self.shape[:1] if stacked else ()
        inputs = math.prod(self.a.shape[len(L) : -1])
        a, b = self.a.reshape(*L, inputs, R), self.b.reshape(*L, R, -1)
        update = jnp.matmul(a, b, precision="highest")
        return dense(self.kernel) + self.scale * update.reshape(self.shape)


def einsum(
    spec: str, x: jax.Array, kernel: jax.Array | Weight | Lora, policy: Policy
) -> jax.Array:
    """Contracts the last axes of `x` with the first axes of `kernel`.

    Args:
      spec: such as `'BTD,DNH->BTNH'`; what is contracted ends `x` and begins `kernel`.
      kernel: float32 parameters, cast to the policy's operand dtype; or what stands for
        them; or either with a low-rank update.

    Returns:
      An array of the policy's activation dtype.
    """
    contracted = _contracted(spec)
    if isinstance(kernel, Lora):
        y = einsum(spec, x, kernel.kernel, policy)
        low = _product(x, kernel.a, contracted, policy)
        return y + _product(low, kernel.b, 1, policy) * kernel.scale
    if isinstance(kernel, Weight):  # it has no gradient
        return _forward(x, kernel, contracted, policy)[0]
    if policy.products != "dtype":
        return low_precision.product(x, kernel, contracted, policy)
    return _product(x, kernel, contracted, policy)


@functools.cache
def _contracted(spec: str) -> int:
    """The number of contracted axes of a spec in the one form that we accept."""
    inputs, _, result = spec.partition("->")
    x, _, kernel = inputs.partition(",")
    count = len(set(x) & set(kernel))
    form = x[: len(x) - count] + kernel[count:]
    if count == 0 or x[len(x) - count :] != kernel[:count] or result != form:
        raise ValueError(f"got {spec!r}; want trailing axes against leading ones")
    return count


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, kernel, contracted, policy):
    return _forward(x, kernel, contracted, policy)[0]


def _contract(x, y, x_axes, y_axes, dtype):
    """Axes kept of x, then those of y; no array changes its shape on the way.

    Folding heads into a matrix and out again is free on a CPU; on a TPU, whose memory
    is in tiles of the last two axes, each is a copy.
    """
    return jax.lax.dot_general(
        x, y, ((tuple(x_axes), tuple(y_axes)), ((), ())), preferred_element_type=dtype
    )


def _forward(x, kernel, contracted, policy):
    if policy.platform != "cpu" and not isinstance(kernel, Weight):
        kept = x.ndim - contracted
        y = _contract(
            x.astype(policy.operands), kernel.astype(policy.operands),
            range(kept, x.ndim), range(contracted), policy.activations,
        )  # fmt: skip
        return y, (x.astype(policy.operands), kernel)
    kept = x.shape[: x.ndim - contracted]
    made = kernel.shape[contracted:]
    if not isinstance(kernel, Weight):
        x = x.astype(policy.operands)
        if _cut_length(len(kept)):
            y = _wide(_last(x, len(kept)), _rows(kernel, contracted), policy)
            y = y.reshape(*kept, *made).astype(policy.activations)
            return y, (x, kernel)
    y_MN = matmul(_rows(x, len(kept)), _rows(kernel, contracted), policy)
    y = row_major(y_MN, policy)
    return y.reshape(*kept, *made).astype(policy.activations), (x, kernel)


def _backward(contracted, policy, saved, dy):
    x, kernel = saved
    kept = x.ndim - contracted
    if policy.platform != "cpu":
        dy, own = dy.astype(policy.operands), kernel.astype(policy.operands)
        dx = _contract(
            dy, own, range(kept, dy.ndim), range(contracted, kernel.ndim),
            policy.activations,
        )  # fmt: skip
        return dx, _contract(x, dy, range(kept), range(kept), kernel.dtype)
    if _cut_length(kept):
        dy_BTN, x_BTK = _last(dy, kept), _last(x, kept)
        kernel_KN = _rows(kernel, contracted)
        dx = _wide(dy_BTN, kernel_KN.T, policy).reshape(x.shape)
        dkernel_KN = _wide(x_BTK, dy_BTN, policy, tuple(range(kept)))
        dkernel = dkernel_KN.reshape(kernel.shape).astype(kernel.dtype)
        return dx.astype(policy.activations), dkernel
    dy_MN, x_MK = _rows(dy, kept), _rows(x, kept)
    kernel_KN = _rows(kernel, contracted)
    kernel_NK = transposed(kernel_KN, policy)
    dx_MK = row_major(matmul(dy_MN, kernel_NK, policy), policy)
    dkernel_KN = row_major(matmul(transposed(x_MK, policy), dy_MN, policy), policy)
    dx = dx_MK.reshape(x.shape).astype(policy.activations)
    return dx, dkernel_KN.reshape(kernel.shape).astype(kernel.dtype)


_product.defvjp(_forward, _backward)


def _cut_length(kept: int) -> bool:
    """Whether rows lie in pieces on devices, whose flattening would gather them."""
    return kept > 1 and sharding.ways("context") * sharding.ways("tensor") > 1


def _wide(a, b, policy: Policy, contracted: tuple[int, ...] = ()) -> jax.Array:
    """Product that leaves the axes of `a` apart; last of `a`, first of `b` by default.

    Operands are rounded by the policy and, on a CPU, which has no bfloat16 product of
    this form, multiplied in float32.
    """
    dtype = jnp.float32 if policy.platform == "cpu" else policy.operands
    a, b = (x.astype(policy.operands).astype(dtype) for x in (a, b))
    axes = (contracted, contracted) if contracted else ((a.ndim - 1,), (0,))
    return jax.lax.dot_general(
        a, b, (axes, ((), ())), preferred_element_type=jnp.float32
    )


def _last(x: jax.Array, leading: int) -> jax.Array:
    """Collapses what follows the `leading` axes."""
    return x.reshape(*x.shape[:leading], -1)


def _rows(x: jax.Array | Weight, leading: int) -> jax.Array | Weight:
    """Collapses to a matrix: `leading` axes to rows, the others to columns."""
    rows = 1
    for size in x.shape[:leading]:
        rows *= size
    return x.reshape(rows, -1)
