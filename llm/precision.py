"""The precision policy: how a backend carries out a compute dtype.

Which dtypes a backend multiplies, accumulates and works elementwise in is a property of
the backend, stated here once; models never mention it. The backend is the platform of
the devices a program is compiled *for*, so it is handed down in the `Policy` and never
asked of the process.

On TPU and GPU, operands and results have the compute dtype and products accumulate in
float32. On a CPU, bfloat16 products are twice as fast as float32 ones only in the form
bfloat16 x bfloat16 -> float32, row-major and with the contracted axes where they
belong; elementwise work is faster in float32. That form wants many rows: with few, as
when one token is decoded, a product waits for its weights to come from memory, and
`Half` weights are half the bytes (those of `llm/nn/quantized.py` fewer).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a backend carries out a compute dtype.

    Attributes:
      dtype: compute dtype of products, `float32` or `bfloat16`.
      platform: `cpu`, `gpu` or `tpu`, of the devices that the program is compiled for.
      devices: how many of them.
      chip: what jax calls one, such as `TPU v5 lite`; '' where it does not matter.
      products: how activations and kernels are multiplied in training: `dtype`, or in
        eight bits, `int8` or `fp8` (`llm/nn/low_precision.py`).
      attention: what carries it out, a name of `llm/nn/attention.py`; `auto` is
        splash where that takes the rows and heads, else XLA's products.
    """

    dtype: str = "float32"
    platform: str = "cpu"
    devices: int = 1
    chip: str = ""
    products: str = "dtype"
    attention: str = "auto"

    @property
    def operands(self) -> Any:
        """Dtype in which products take their operands."""
        return jnp.dtype(self.dtype)

    @property
    def activations(self) -> Any:
        """Dtype of everything between products."""
        return jnp.dtype("float32" if self.platform == "cpu" else self.dtype)


class Weight:
    """What stands for a float32 array where that is multiplied or looked up.

    Not in training. Subclasses are pytrees whose first leaf has the array's shape, so
    that they pass through Linen's modules and scans as it does; they say what a product
    with a matrix is, and which columns of the matrix others of theirs are.
    """

    shape: tuple[int, ...]

    def dense(self) -> jax.Array:
        """The array, float32."""
        raise NotImplementedError

    def columns(self, start: Any, count: int) -> "Weight":
        """Some columns of a matrix; `start` may be traced."""
        raise NotImplementedError

    def product(self, a_MK: jax.Array) -> jax.Array:
        """a_MK @ self, float32; self is a matrix."""
        raise NotImplementedError

    def multiplied(self, a_MK: jax.Array) -> jax.Array:
        """As `product`, in parts where else all weights would be written out."""
        K, N = self.shape
        few = math.prod(a_MK.shape[:-1]) < FEW_ROWS
        if not few or K * N <= 2 * _CHUNK:
            return self.product(a_MK)
        size = max(_CHUNK // K, 1)
        loops = N // size
        made = jax.lax.map(
            lambda i: self.columns(i * size, size).product(a_MK), jnp.arange(loops)
        )
        made = jnp.moveaxis(made, 0, -2).reshape(*a_MK.shape[:-1], loops * size)
        rest = self.columns(loops * size, N - loops * size).product(a_MK)
        return jnp.concatenate([made, rest], axis=-1)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["bits"], meta_fields=["turned"]
)
@dataclasses.dataclass(frozen=True)
class Half(Weight):
    """A float32 parameter rounded to bfloat16, as the bits of it, uint16.

    A CPU turns the bits back into float32 by a shift, in passing, where its conversion
    of bfloat16 itself is slow: 8 to 11 against 2.7 G weights a second (LOG.md).

    Attributes:
      turned: it stands for the matrix whose transpose the bits are; a table of 50,000
        tokens is better read as it lies.
    """

    bits: jax.Array
    turned: bool = False

    @classmethod
    def of(cls, x: jax.Array) -> "Half":
        """The rounded array."""
        return cls(jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.bits.shape[::-1] if self.turned else self.bits.shape

    @property
    def T(self) -> "Half":
        """The transpose of a matrix."""
        return Half(self.bits, not self.turned)

    def reshape(self, *shape: int) -> "Half":
        """As of an array; it must not be turned."""
        assert not self.turned
        return Half(self.bits.reshape(*shape))

    def dense(self) -> jax.Array:
        """The array, float32."""
        return _float32(self.bits.T if self.turned else self.bits)

    def take(self, rows: jax.Array) -> jax.Array:
        """Rows of the leading axis, float32; one out of range is the last."""
        assert not self.turned
        return _float32(jnp.take(self.bits, rows, axis=0, mode="clip"))

    def columns(self, start: Any, count: int) -> "Half":
        """Some columns of a matrix."""
        axis = 0 if self.turned else 1
        bits = jax.lax.dynamic_slice_in_dim(self.bits, start, count, axis)
        return Half(bits, self.turned)

    def product(self, a_MK: jax.Array) -> jax.Array:
        """a_MK @ self, float32; self is a matrix."""
        if math.prod(a_MK.shape[:-1]) < FEW_ROWS:
            own, dtype = _float32(self.bits), jnp.float32
        else:
            dtype = jnp.bfloat16
            own = jax.lax.bitcast_convert_type(self.bits, dtype)
        contracted = ((a_MK.ndim - 1,), (1 if self.turned else 0,))
        return jax.lax.dot_general(
            a_MK.astype(dtype), own, (contracted, ((), ())),
            preferred_element_type=jnp.float32,
        )  # fmt: skip


def dense(params: Any) -> Any:
    """Parameters as arrays, whatever stands for them."""
    is_weight = lambda x: isinstance(x, Weight)  # noqa: E731
    return jax.tree.map(
        lambda x: x.dense() if is_weight(x) else x, params, is_leaf=is_weight
    )


def first_columns(kernel_KN: jax.Array | Weight, count: int) -> jax.Array | Weight:
    """The first columns of a matrix."""
    if isinstance(kernel_KN, Weight):
        return kernel_KN.columns(0, count)
    return kernel_KN[:, :count]


def _float32(bits: jax.Array) -> jax.Array:
    wide = bits.astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(wide, jnp.float32)


def compiler_options(platform: str) -> dict[str, Any]:
    """XLA's options for products with few rows.

    Its scheduler for CPUs begins with all that it can, such as turning all halves of a
    layer into float32, before it uses any; they are then no longer in the cache.
    """
    if platform != "cpu":
        return {}
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False}


FLOAT32 = Policy()
FEW_ROWS = 16
_CHUNK = 2**20  # weights of a large matrix that are multiplied at once
_CACHE = 2**20  # bytes of a core's own


def matmul(a_MK: jax.Array, b_KN: jax.Array | Weight, policy: Policy) -> jax.Array:
    """Matrix product, batched over leading axes: policy operands, float32 result."""
    if isinstance(b_KN, Weight):
        return b_KN.multiplied(a_MK)
    return jnp.matmul(
        a_MK.astype(policy.operands),
        b_KN.astype(policy.operands),
        preferred_element_type=jnp.float32,
    )


def transposed(x_MK: jax.Array, policy: Policy) -> jax.Array:
    """The last two axes exchanged, in the operand dtype and, on a CPU, in memory.

    XLA would fold a transpose into the product, whose slow path then costs twice the
    time of the fast one; the copy is cheap beside it.
    """
    return row_major(jnp.swapaxes(x_MK.astype(policy.operands), -1, -2), policy)


def row_major(x: jax.Array, policy: Policy) -> jax.Array:
    """Pins the memory layout on a CPU, where only row-major products are fast.

    XLA's CPU runtime has no bfloat16 x bfloat16 -> float32 product at all that writes
    another layout, and would otherwise choose one to save a later transpose.
    """
    if policy.platform != "cpu":
        return x
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def over_batch(function: Callable, arrays: tuple, each: int, policy: Policy) -> Any:
    """`function(*examples, policy)` for every example of the leading axis.

    All at once, except on one CPU: there as many at a time as have their temporaries,
    of `each` bytes an example, in the cache. Those of a whole batch would be written to
    fresh memory.
    """
    one = functools.partial(function, policy=policy)
    rows = arrays[0].shape[0]
    fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * each <= _CACHE]
    size = max(fitting, default=1)
    if policy.platform != "cpu" or policy.devices > 1 or size == rows:
        return jax.vmap(one)(*arrays)
    if size == 1:
        return jax.lax.map(lambda examples: one(*examples), arrays)
    groups = tuple(x.reshape(rows // size, size, *x.shape[1:]) for x in arrays)
    made = jax.lax.map(lambda group: jax.vmap(one)(*group), groups)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), made)
