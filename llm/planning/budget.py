"""What a training run needs, before a cent is spent: FLOPs, memory, hours and money.

Nothing is allocated or compiled. Parameter and optimizer bytes are those of the real
model and optimizer as `jax.eval_shape` sees them, cut by the real sharding rules;
activations are read off the traced step of one device (`llm/training/live_memory.py`),
so they follow the model's rematerialisation, and are an estimate from above.

How many tokens a model of N parameters deserves has two answers (Hoffmann et al. 2022,
arXiv:2203.15556, "Chinchilla"):

    rule of thumb   D = 20 N
    parametric fit  the law of llm/sweeps/scaling_law.py

Both are optimal for the loss per training FLOP: a model that will be used a lot should
be smaller and trained for longer.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh

from llm import sharding, units
from llm.planning.flops import Chip
from llm.planning.topology import StandIn
from llm.training import live_memory

TOKENS_PER_PARAMETER = 20
# Of a device's memory, what the runtime, the program itself and fragmentation take.
RESERVE = 0.05


class Memory(NamedTuple):
    """Bytes on one device at the fullest moment of a step, by what they hold."""

    parameters: int
    gradients: int
    optimizer: int
    # Kept for the backward pass under the chosen rematerialisation.
    activations: int
    # What else is alive then: a recomputed layer, gathered weights, a chunk of logits.
    temporaries: int


class Cost(NamedTuple):
    """What training takes on a number of chips."""

    tokens_per_s: float
    hours: float
    dollars: float | None


def planned_mesh(axes: Sequence[tuple[str, int]], devices: int) -> AbstractMesh:
    """The mesh that so many devices would form; none of them is here.

    Raises:
      InputError: the axes do not multiply to the number of devices.
    """
    mesh = sharding.make_mesh(axes, [StandIn() for _ in range(devices)])
    return AbstractMesh(mesh.devices.shape, mesh.axis_names, axis_types=mesh.axis_types)


def step_memory(
    params: Any,
    opt_state: Any,
    batch: Any,
    *,
    loss: Callable[[Any, Any], jax.Array],
    update: Callable,
    accumulate: int = 1,
    ema: bool = False,
    tensor_ways: int = 1,
) -> Memory:
    """Memory of a training step.

    Args:
      params, opt_state: shapes with shardings.
      batch: shapes of the micro-batch of one device.
      loss: (params, batch) to a scalar.
      update: of an optax transformation.
      accumulate: micro-batches of an update; with more than one, the sum of their
        gradients stands beside the gradient of the last.
      ema: a moving average of the parameters is kept.
      tensor_ways: how many devices share the heads, feed-forward and vocabulary of a
        layer, which is what temporaries are made of; the stream between the layers,
        which is what is saved, is whole on each.
    """
    held = live_memory.device_bytes(params)
    saved = live_memory.saved_bytes(loss, params, batch)
    working = live_memory.working_bytes(jax.grad(loss), params, batch)
    # The activations are gone when the parameters are updated.
    updating = live_memory.working_bytes(update, params, opt_state, params, fused=True)
    updating = updating * held / live_memory.tree_bytes(params) - saved
    return Memory(
        parameters=held * (2 if ema else 1),
        gradients=held * (2 if accumulate > 1 else 1),
        optimizer=live_memory.device_bytes(opt_state),
        activations=saved,
        temporaries=int(max((working - saved) / tensor_ways, updating, 0)),
    )


def cost(
    tokens: float,
    flops_per_token: float,
    chip: Chip,
    *,
    chips: int,
    mfu: float,
    price: float | None,
) -> Cost:
    """Time and money for a number of tokens.

    Args:
      mfu: share of peak FLOP/s to expect, by the same count as `flops_per_token`.
      price: dollars per chip-hour; None where it is not known.
    """
    tokens_per_s = chips * chip.peak_flops * mfu / flops_per_token
    hours = tokens / tokens_per_s / 3600
    return Cost(tokens_per_s, hours, dollars(hours * chips, price))


def dollars(chip_hours: float, price: float | None) -> float | None:
    """What chip-hours cost; None where the price is not known."""
    return None if price is None else chip_hours * price


def spare_bytes(need: Memory, chip: Chip) -> float:
    """Memory of a device left beside a step and the reserve; negative: too little."""
    return chip.hbm_bytes / chip.devices * (1 - RESERVE) - sum(need)


def verdict(need: Memory, chip: Chip) -> str:
    """One sentence: whether a step fits on a device of the chip, and by how much."""
    spare = spare_bytes(need, chip)
    whole = units.size(chip.hbm_bytes / chip.devices)
    if spare >= 0:
        return f"fits, with {units.size(spare)} of {whole} to spare"
    return f"does not fit: {units.size(-spare)} more than the {whole} there are"
