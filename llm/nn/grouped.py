"""Products of rows with the kernel of their expert, and their gradients.

The rows of an expert follow each other. Where all have equally many, the product is a
batched one; where not, it is `jax.lax.ragged_dot`, except on a CPU, for which XLA has
no ragged product, only one of all rows with all experts: there rows are taken in blocks
of one expert each.

`D in, F out, E experts, R rows, C rows of a block, G blocks`
"""

import functools
import math

import jax
import jax.numpy as jnp

from llm.precision import Policy, matmul, row_major, transposed

_BLOCK = 128  # rows that one product of a CPU takes at most


def block_rows(rows: int, experts: int, policy: Policy) -> int:
    """The rows of a block; 0 where the backend has ragged products.

    Half of what an expert has on average, as a power of two: few rows are wasted where
    its last block is not full.
    """
    if policy.platform != "cpu":
        return 0
    return min(2 ** int(math.log2(max(rows // (2 * experts), 1))), _BLOCK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def by_expert(x_ERD: jax.Array, kernel_EDF: jax.Array, policy: Policy) -> jax.Array:
    """Equally many rows for each expert, times its kernel."""
    y_ERF = row_major(matmul(x_ERD, kernel_EDF, policy), policy)
    return y_ERF.astype(policy.activations)


def _by_expert_forward(x_ERD, kernel_EDF, policy):
    x_ERD = x_ERD.astype(policy.operands)
    return by_expert(x_ERD, kernel_EDF, policy), (x_ERD, kernel_EDF)


def _by_expert_backward(policy, saved, dy_ERF):
    x_ERD, kernel_EDF = saved
    kernel_EFD = transposed(kernel_EDF, policy)
    dx_ERD = row_major(matmul(dy_ERF, kernel_EFD, policy), policy)
    x_EDR = transposed(x_ERD, policy)
    dkernel_EDF = row_major(matmul(x_EDR, dy_ERF, policy), policy)
    return dx_ERD.astype(policy.activations), dkernel_EDF


by_expert.defvjp(_by_expert_forward, _by_expert_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def by_run(
    x_RD: jax.Array, kernel_EDF: jax.Array, sizes_E: jax.Array, size: int, policy
) -> jax.Array:
    """Rows times kernels: the first sizes_E[0] rows times the first one, and so on.

    Args:
      size: of `block_rows`; where it is not 0, all sizes are multiples of it, and the
        rows past the last run are zeros.
    """
    return _by_run_forward(x_RD, kernel_EDF, sizes_E, size, policy)[0]


def _by_run_forward(x_RD, kernel_EDF, sizes_E, size, policy):
    x_RD = x_RD.astype(policy.operands)
    operand_EDF = jnp.asarray(kernel_EDF, policy.operands)
    y_RF = _run_product(x_RD, operand_EDF, sizes_E, size, policy)
    return y_RF.astype(policy.activations), (x_RD, kernel_EDF, sizes_E)


def _by_run_backward(size, policy, saved, dy_RF):
    x_RD, kernel_EDF, sizes_E = saved
    dy_RF = dy_RF.astype(policy.operands)
    kernel_EFD = transposed(kernel_EDF, policy)
    dx_RD = _run_product(dy_RF, kernel_EFD, sizes_E, size, policy)
    if size:
        owner_G = _owners(sizes_E, size, len(x_RD))

        def add(sum_EDF, block):
            x_CD, dy_CF, e = block
            new_DF = matmul(transposed(x_CD, policy), dy_CF, policy)
            return sum_EDF.at[e].add(row_major(new_DF, policy)), None

        zero_EDF = jnp.zeros(kernel_EDF.shape, jnp.float32)
        blocks = (_blocks(x_RD, size), _blocks(dy_RF, size), owner_G)
        dkernel_EDF, _ = jax.lax.scan(add, zero_EDF, blocks)
    else:
        dkernel_EDF = jax.lax.ragged_dot_general(
            x_RD, dy_RF, sizes_E, _ROWS_CONTRACTED,
            preferred_element_type=jnp.float32,
        )  # fmt: skip
    return dx_RD.astype(policy.activations), dkernel_EDF, None


by_run.defvjp(_by_run_forward, _by_run_backward)

_ROWS_CONTRACTED = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())),
    lhs_ragged_dimensions=[0],
    rhs_group_dimensions=[],
)


def _run_product(x_RD, kernel_EDF, sizes_E, size, policy):
    if not size:
        return jax.lax.ragged_dot(
            x_RD, kernel_EDF, sizes_E, preferred_element_type=jnp.float32
        )
    owner_G = _owners(sizes_E, size, len(x_RD))

    def product(block):
        x_CD, e = block
        return row_major(matmul(x_CD, kernel_EDF[e], policy), policy)

    y_GCF = jax.lax.map(product, (_blocks(x_RD, size), owner_G))
    return y_GCF.reshape(len(x_RD), -1)


def _blocks(x_RD, size):
    return x_RD.reshape(-1, size, x_RD.shape[-1])


def _owners(sizes_E, size, rows):
    """The expert of each block; those past the last run are zeros, whoever has them."""
    end_E = jnp.cumsum(sizes_E)
    first_G = jnp.arange(0, rows, size)
    owner_G = jnp.searchsorted(end_E, first_G, side="right")
    return jnp.minimum(owner_G, len(sizes_E) - 1)
