"""A mixture of experts: each token goes through the few that a router chooses.

The router's probabilities are a softmax over all experts (float32), and the `top_k`
largest are the shares of the chosen ones. Assignments of tokens to experts are sorted
by expert into rows of one array, so that each expert multiplies a run of rows
(`llm/nn/grouped.py`). There are two ways:

    dropless    all assignments are carried out, whatever the experts' loads
    capacity    in training, an expert takes at most C = capacity * T * top_k / E tokens
                of an example (GShard, arXiv:2006.16668), in their order; to the others
                it adds nothing. The rows of all experts are then equal in number, and
                may lie on the devices of the mesh axis `expert`.

What is dropped depends on the example alone and on what is before a token in it, never
on its batch mates or its future. Padding is not routed: it takes no capacity and counts
in no loss.

Two losses keep the router in shape: the balance loss of the Switch Transformer
(2101.03961, eq. 4), which is 1 where all experts get the same, and the squared
log-normaliser of its logits (ST-MoE, 2202.08906, eq. 5). The loads that the first one
balances are those of the whole batch: within a few rows, experts may specialise
(2501.11873).

`B batch, T tokens, D width, F mlp, E experts, J choices of a token, A assignments
(T*J), R rows, C capacity`
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.nn.dense import Dense
from llm.nn.grouped import block_rows, by_expert, by_run
from llm.precision import Policy


def check_experts(experts: int, top_k: int) -> None:
    """Raises InputError for a layer that cannot be built."""
    if top_k > experts:
        raise InputError(
            got=f"model.top_k {top_k} of {experts} experts", want=f"1 to {experts}"
        )


class Routing(NamedTuple):
    """Where each token goes.

    Attributes:
      expert_BTJ: which experts, the likeliest first; E where the token is padding.
      share_BTJ: what each counts in the sum.
      figures: sums over real tokens: `balance_loss` and `router_z_loss` (without
        coefficient), `expert_load_max`, the busiest expert's share of assignments, and
        `expert_load`, the share of each in those of these rows.
    """

    expert_BTJ: jax.Array
    share_BTJ: jax.Array
    figures: dict[str, jax.Array]


def route(
    logits_BTE: jax.Array,
    real_BT: jax.Array,
    top_k: int,
    renormalise: bool,
    load_E: jax.Array | None = None,
) -> Routing:
    """Chooses experts by the router's logits, float32.

    Args:
      renormalise: whether the shares of a token sum to 1.
      load_E: shares of the experts in the whole batch; None takes those of these rows.
    """
    E = logits_BTE.shape[-1]
    real_BT1 = real_BT[..., None].astype(jnp.float32)
    probability_BTE = jax.nn.softmax(logits_BTE, axis=-1)
    share_BTJ, expert_BTJ = jax.lax.top_k(probability_BTE, top_k)
    if renormalise:
        share_BTJ = share_BTJ / share_BTJ.sum(axis=-1, keepdims=True)
    expert_BTJ = jnp.where(real_BT1 > 0, expert_BTJ, E)
    tokens = real_BT1.sum()
    count = jnp.maximum(tokens, 1.0)
    own_E = loads(expert_BTJ.reshape(-1), E) / (count * top_k)
    load_E = own_E if load_E is None else load_E
    mean_E = (probability_BTE * real_BT1).sum(axis=(0, 1)) / count
    log_z_BT = jax.nn.logsumexp(logits_BTE, axis=-1)
    figures = {
        "balance_loss": tokens * E * jnp.sum(load_E * mean_E),
        "router_z_loss": jnp.sum(jnp.square(log_z_BT) * real_BT1[..., 0]),
        "expert_load_max": tokens * load_E.max(),
        "expert_load": tokens * own_E,
    }
    return Routing(expert_BTJ, share_BTJ, figures)


class MoE(nn.Module):
    """Gated feed-forward experts (SwiGLU) behind a router.

    Attributes:
      mlp: width of one expert.
      capacity: factor; 0 drops nothing.
      balance, router_z: coefficients of the two losses.
    """

    experts: int
    top_k: int
    mlp: int
    policy: Policy
    renormalise: bool = True
    capacity: float = 0.0
    balance: float = 0.01
    router_z: float = 0.001
    residual_scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        train: bool,
        load_E: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(y_BTD, sums over tokens of losses, with their coefficients, and figures)."""
        D, E, F = x_BTD.shape[-1], self.experts, self.mlp
        logits_BTE = Dense(
            "BTD,DE->BTE",
            shape=(D, E),
            axes=("embed", "experts"),
            policy=dataclasses.replace(self.policy, dtype="float32", products="dtype"),
            name="router",
        )(x_BTD.astype(jnp.float32))
        routing = route(
            logits_BTE, segments_BT > 0, self.top_k, self.renormalise, load_E
        )
        figures = dict(routing.figures)
        figures["balance_loss"] *= self.balance
        figures["router_z_loss"] *= self.router_z
        into = {"shape": (E, D, F), "axes": ("experts", "embed", "mlp")}
        kernels = (
            Kernels(**into, name="gate")(),
            Kernels(**into, name="up")(),
            Kernels(
                shape=(E, F, D),
                axes=("experts", "mlp", "embed"),
                scale=self.residual_scale,
                name="down",
            )(),
        )
        if self.capacity and train:
            y_BTD, dropped = within_capacity(
                x_BTD, routing, kernels, self.capacity, self.policy
            )
            figures["expert_dropped"] = dropped / self.top_k
        else:
            y_BTD = dropless(x_BTD, routing, kernels, self.policy)
        return y_BTD, figures


class Kernels(nn.Module):
    """A kernel for each expert, [experts, in, out]; `scale` as in `llm/nn/dense.py`."""

    shape: tuple[int, int, int]
    axes: tuple[str, str, str]
    scale: float = 1.0

    @nn.compact
    def __call__(self) -> jax.Array:
        init = nn.with_logical_partitioning(
            nn.initializers.normal(self.scale * self.shape[1] ** -0.5), self.axes
        )
        return self.param("kernel", init, self.shape, jnp.float32)


def dropless(x_BTD, routing: Routing, kernels: tuple, policy: Policy) -> jax.Array:
    """The shared outputs of all chosen experts."""
    B, T, D = x_BTD.shape
    E, J = kernels[0].shape[0], routing.expert_BTJ.shape[-1]
    A = B * T * J
    expert_A = routing.expert_BTJ.reshape(A)
    sizes_E = loads(expert_A, E)
    size = block_rows(A, E, policy)
    if size:
        sizes_E = -(-sizes_E // size) * size
    R = (A + E * (size - 1)) // size * size if size else A
    start_E = jnp.cumsum(sizes_E) - sizes_E
    rank_A = ranks(expert_A, E)
    slot_A = jnp.where(expert_A < E, _take(start_E, expert_A) + rank_A, R)
    x_AD = jnp.repeat(x_BTD.reshape(B * T, D), J, axis=0)
    x_RD = placed(x_AD, slot_A, R)

    def product(x_RD, kernel):
        return by_run(x_RD, kernel, sizes_E, size, policy)

    y_RD = _gated(x_RD, kernels, product)
    y_BTJD = back(y_RD, slot_A).reshape(B, T, J, D)
    return _summed(y_BTJD, routing.share_BTJ, policy)


def within_capacity(
    x_BTD, routing: Routing, kernels: tuple, capacity: float, policy: Policy
) -> tuple[jax.Array, jax.Array]:
    """The same for what fits, and how many assignments did not."""
    B, T, D = x_BTD.shape
    E, J = kernels[0].shape[0], routing.expert_BTJ.shape[-1]
    C = min(math.ceil(capacity * T * J / E), T)
    R = E * C

    def dispatch(x_TD, expert_TJ):
        expert_A = expert_TJ.reshape(T * J)
        rank_A = ranks(expert_A, E)
        fits_A = (expert_A < E) & (rank_A < C)
        slot_A = jnp.where(fits_A, expert_A * C + rank_A, R)
        x_RD = placed(jnp.repeat(x_TD, J, axis=0), slot_A, R)
        return x_RD.reshape(E, C, D), slot_A, ((expert_A < E) & ~fits_A).sum()

    x_BECD, slot_BA, dropped_B = jax.vmap(dispatch)(x_BTD, routing.expert_BTJ)
    axes = ("experts", "expert_batch", "capacity", "width")
    x_EBCD = nn.with_logical_constraint(x_BECD.swapaxes(0, 1), axes)

    def product(x_ERD, kernel):
        return by_expert(x_ERD, kernel, policy)

    y_ERD = _gated(x_EBCD.reshape(E, B * C, D), kernels, product)
    y_EBCD = nn.with_logical_constraint(y_ERD.reshape(E, B, C, D), axes)
    y_BRD = y_EBCD.swapaxes(0, 1).reshape(B, R, D)
    y_BTJD = jax.vmap(back)(y_BRD, slot_BA).reshape(B, T, J, D)
    dropped = dropped_B.sum().astype(jnp.float32)
    return _summed(y_BTJD, routing.share_BTJ, policy), dropped


def _gated(x, kernels, product):
    gate, up, down = kernels
    return product(nn.silu(product(x, gate)) * product(x, up), down)


def _summed(y_BTJD, share_BTJ, policy):
    y_BTD = (y_BTJD.astype(jnp.float32) * share_BTJ[..., None]).sum(axis=2)
    return y_BTD.astype(policy.activations)


def loads(expert_A: jax.Array, experts: int) -> jax.Array:
    """How many assignments each expert has; those past the last expert do not count."""
    return jnp.zeros(experts, jnp.int32).at[expert_A].add(1, mode="drop")


def ranks(expert_A: jax.Array, experts: int) -> jax.Array:
    """Of each assignment, how many before it go to the same expert."""
    order_A = jnp.argsort(expert_A, stable=True)
    sizes_E = loads(expert_A, experts)
    start_E = jnp.cumsum(sizes_E) - sizes_E
    sorted_A = jnp.arange(len(expert_A)) - _take(start_E, expert_A[order_A])
    return jnp.zeros_like(sorted_A).at[order_A].set(sorted_A)


def _take(x_E, expert_A):
    return jnp.take(x_E, expert_A, mode="clip")


def placed(x_AD: jax.Array, slot_A: jax.Array, rows: int) -> jax.Array:
    """Row a at slot_A[a] of a new array, zeros elsewhere; a slot past its end is none.

    No two rows share a slot, so that the gradient is a look-up, too.
    """
    source_R = jnp.full(rows, len(slot_A), jnp.int32)
    source_R = source_R.at[slot_A].set(jnp.arange(len(slot_A)), mode="drop")
    return _moved(x_AD, source_R, slot_A)


def back(y_RD: jax.Array, slot_A: jax.Array) -> jax.Array:
    """What `placed` put at the slots; zeros for a slot past the end."""
    source_R = jnp.full(y_RD.shape[0], len(slot_A), jnp.int32)
    source_R = source_R.at[slot_A].set(jnp.arange(len(slot_A)), mode="drop")
    return _moved(y_RD, slot_A, source_R)


@jax.custom_vjp
def _moved(x, there, here):
    """x[there], zeros where out of range; `here` is the way back."""
    del here
    return jnp.take(x, there, axis=0, mode="fill", fill_value=0)


def _moved_forward(x, there, here):
    return _moved(x, there, here), (there, here)


def _moved_backward(saved, dy):
    there, here = saved
    return _moved(dy, here, there), None, None


_moved.defvjp(_moved_forward, _moved_backward)
