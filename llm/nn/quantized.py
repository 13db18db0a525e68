"""Parameters in few bits: whole numbers with scales, in place of float32 arrays.

    w ~ values * scale        values in -127..127 (int8) or -8..7 (int4)

Zero stays zero. With four bits the scale has the sign that lets the largest number be
-8, and is searched for: the end of the range, and then the scale that fits the rounded
numbers best. A kernel has a scale for each of its outputs and,
with `group`, for each group of so many inputs; a table of vectors has its scales by
rows, so that one stored form serves both to look a token up and to make its logit.

`K inputs, N outputs, G groups of inputs, V rows of a table, D its columns`
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from llm.precision import FEW_ROWS, Weight

_TINY = float(jnp.finfo(jnp.float32).tiny)
MOST = {"int8": 127, "int4": 8}
# Shares of the largest number of a group that are tried as the end of the range: with
# few values it is better to cut off what is rare, or, as numbers are rounded, to leave
# some room beyond it. With four bits, whose range has no middle, both signs are tried.
_ENDS = {
    "int8": (1.0,),
    "int4": tuple(s * e / 20 for e in range(14, 25) for s in (1, -1)),
}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "scales"],
    meta_fields=["outputs", "turned"],
)
@dataclasses.dataclass(frozen=True)
class Quantized(Weight):
    """Whole numbers and their scales.

    Attributes:
      values: of the array's shape; a stack of layers has a stack of both.
      scales: [G, outputs...] of a kernel [inputs..., outputs...]; [V, G] of a table.
      outputs: how many axes of outputs a kernel has; 0 of a table.
      turned: it stands for the transpose, of a table.
    """

    values: jax.Array
    scales: jax.Array
    outputs: int
    turned: bool = False

    @property
    def table(self) -> bool:
        """Whether it is one."""
        return self.outputs == 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.values.shape[::-1] if self.turned else self.values.shape

    @property
    def T(self) -> "Quantized":
        """The transpose of a table."""
        assert self.table
        return dataclasses.replace(self, turned=not self.turned)

    def reshape(self, *shape: int) -> "Quantized":
        """A kernel as a matrix of its inputs and outputs."""
        assert not self.table and len(shape) == 2
        values = self.values.reshape(*shape)
        return Quantized(values, self.scales.reshape(-1, values.shape[1]), 1)

    def dense(self) -> jax.Array:
        """The array, float32."""
        if self.table:
            whole = _table(self.values, self.scales)
            return whole.T if self.turned else whole
        shape, outputs = self.values.shape, self.outputs
        inputs = self.values.ndim - self.scales.ndim + 1
        layers = shape[: self.values.ndim - inputs - outputs]
        N = math.prod(shape[self.values.ndim - outputs :])
        values = self.values.reshape(*layers, -1, N)
        return _kernel(values, self.scales.reshape(*layers, -1, N)).reshape(shape)

    def take(self, rows: jax.Array) -> jax.Array:
        """Rows of a table, float32; one out of range is the last."""
        assert self.table and not self.turned
        pick = lambda x: jnp.take(x, rows, axis=0, mode="clip")  # noqa: E731
        return _table(pick(self.values), pick(self.scales))

    def columns(self, start: Any, count: int) -> "Quantized":
        """Some columns of a matrix; of a table, which must be turned, its rows."""
        assert self.table == self.turned
        axis = 0 if self.table else 1
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, count, axis)  # noqa: E731
        return dataclasses.replace(
            self, values=cut(self.values), scales=cut(self.scales)
        )

    def product(self, a_MK: jax.Array) -> jax.Array:
        """a_MK @ self, float32; self is a matrix."""
        assert self.table == self.turned
        groups = self.scales.shape[1 if self.table else 0]
        few = math.prod(a_MK.shape[:-1]) < FEW_ROWS
        # Whole numbers are exact in bfloat16, whose products are fast with many rows.
        dtype = jnp.float32 if few else jnp.bfloat16
        if groups == 1:
            own, scale_N = self.values.astype(dtype), self.scales.reshape(-1)
        else:
            scaled = _table if self.table else _kernel
            own, scale_N = scaled(self.values, self.scales).astype(dtype), None
        contracted = ((a_MK.ndim - 1,), (1 if self.table else 0,))
        made = jax.lax.dot_general(
            a_MK.astype(dtype), own, (contracted, ((), ())),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        if scale_N is None:
            return made
        return made * scale_N.reshape((1,) * (made.ndim - 1) + (-1,))


def quantize_kernel(
    kernel: jax.Array,
    inputs: int,
    *,
    bits: str,
    group: int = 0,
    squares_K: jax.Array | None = None,
) -> Quantized:
    """A kernel in few bits.

    Args:
      kernel: one layer's; `jax.vmap` takes a stack of layers.
      inputs: how many of its leading axes are inputs.
      bits: int8 or int4.
      group: inputs that share a scale; 0 is all. Where it does not divide them, the
        largest divisor below it is taken.
      squares_K: mean square of each input, by which its errors count; None is 1.
    """
    K = math.prod(kernel.shape[:inputs])
    size = _divisor(K, group or K)
    own = kernel.reshape(K // size, size, *kernel.shape[inputs:])
    weight = 1.0
    if squares_K is not None:
        # An input that is always 0 on the text may not be elsewhere.
        least = 1e-6 * squares_K.mean() + _TINY
        weight = jnp.maximum(squares_K, least).reshape(
            K // size, size, *(1,) * (kernel.ndim - inputs)
        )
    values, scales = _rounded(own, axis=1, bits=bits, weight=weight)
    return Quantized(values.reshape(kernel.shape), scales[:, 0], kernel.ndim - inputs)


def quantize_table(table_VD: jax.Array, *, bits: str, group: int = 0) -> Quantized:
    """A table of vectors in few bits; the arguments are those of a kernel."""
    V, D = table_VD.shape
    size = _divisor(D, group or D)
    values, scales = _rounded(table_VD.reshape(V, -1, size), axis=2, bits=bits)
    return Quantized(values.reshape(V, D), scales[..., 0], outputs=0)


def _rounded(
    x: jax.Array, axis: int, bits: str, weight: Any = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Values of the shape of `x`, and scales with one place along the axis.

    Args:
      weight: what the squared error of each number counts.
    """
    most = MOST[bits]
    low, high = (-most, most) if bits == "int8" else (-most, most - 1)
    largest = jnp.abs(x).max(axis=axis, keepdims=True)
    total = lambda y: y.sum(axis=axis, keepdims=True)  # noqa: E731

    def better(best, end):
        scale = jnp.maximum(largest, _TINY * most) * (end / most)
        values = jnp.clip(jnp.round(x / scale), low, high)
        if bits == "int4":  # the scale that makes the squared error of these least
            squares = total(weight * jnp.square(values))
            fitted = total(weight * values * x) / jnp.where(squares > 0, squares, 1.0)
            scale = jnp.where(squares > 0, fitted, scale)
        error = total(weight * jnp.square(values * scale - x))
        new = error, values.astype(jnp.int8), scale
        least = ~(error >= best[0])  # also of a NaN, which is not to become 0
        return jax.tree.map(lambda a, b: jnp.where(least, a, b), new, best), None

    # One end after another: all at once would take the memory of twenty models.
    nothing = jnp.full_like(largest, jnp.inf)
    best = nothing, jnp.zeros(x.shape, jnp.int8), jnp.zeros_like(largest)
    best, _ = jax.lax.scan(better, best, jnp.array(_ENDS[bits], jnp.float32))
    _, values, scale = best
    return values.astype(jnp.dtype(bits)), scale


def _kernel(values: jax.Array, scales: jax.Array) -> jax.Array:
    """[..., K, N] of values [..., K, N] and scales [..., G, N]."""
    *layers, K, N = values.shape
    G = scales.shape[-2]
    wide = values.astype(jnp.float32).reshape(*layers, G, K // G, N)
    return (wide * scales[..., None, :]).reshape(*layers, K, N)


def _table(values: jax.Array, scales: jax.Array) -> jax.Array:
    """[..., D] of values [..., D] and scales [..., G]."""
    *rows, D = values.shape
    G = scales.shape[-1]
    wide = values.astype(jnp.float32).reshape(*rows, G, D // G)
    return (wide * scales[..., None]).reshape(*rows, D)


def _divisor(size: int, most: int) -> int:
    return next(n for n in range(min(size, most), 0, -1) if size % n == 0)
