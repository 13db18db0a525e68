"""The key-value cache: an explicit argument and result of a model.

Every leaf of every cache is [layers, batch, ...]: axis 1 is the batch, for insertion of
a request, reordering of beams and paging alike. Slot s of a row holds position s. The
slots of a head lie side by side, as the products of attention want them: else each new
token would copy the whole past.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm.nn.attention import Reach
from llm.nn.contract import Inputs

BATCH_AXIS = 1


class KeyValues(NamedTuple):
    """Keys and values of one layer (BKSH), or of all layers (LBKSH)."""

    keys: jax.Array
    values: jax.Array

    @classmethod
    def of(cls, k_BSKH: jax.Array, v_BSKH: jax.Array) -> "KeyValues":
        """Those of whole rows."""
        return cls(k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2))

    def rows(self) -> tuple[jax.Array, jax.Array]:
        """(keys, values) of one layer as attention takes them, BSKH."""
        return self.keys.swapaxes(1, 2), self.values.swapaxes(1, 2)

    @property
    def length(self) -> int:
        """Slots of a row."""
        return self.keys.shape[-2]

    def write(
        self, k_BTKH: jax.Array, v_BTKH: jax.Array, slots_BT: jax.Array
    ) -> "KeyValues":
        """Puts keys and values in their slots; a slot out of range is not written."""
        rows_B1 = jnp.arange(self.keys.shape[0])[:, None]

        def put(held, new):
            new = new.astype(held.dtype)
            return held.at[rows_B1, :, slots_BT].set(new, mode="drop")

        return KeyValues(put(self.keys, k_BTKH), put(self.values, v_BTKH))

    def replace(self, made: "KeyValues") -> "KeyValues":
        """Puts the first slots of all rows at once; the others are zeros."""

        def put(held, new):
            more = held.shape[2] - new.shape[2]
            return jnp.pad(new.astype(held.dtype), ((0, 0), (0, 0), (0, more), (0, 0)))

        return KeyValues(put(self.keys, made.keys), put(self.values, made.values))


def empty(layers: int, shape_BSKH: tuple[int, ...], dtype) -> KeyValues:
    """A cache of zeros for all layers."""
    B, S, K, H = shape_BSKH
    zeros = jnp.zeros((layers, B, K, S, H), dtype)
    return KeyValues(zeros, zeros)


def extend(
    cache: KeyValues | None, k_BTKH: jax.Array, v_BTKH: jax.Array, inputs: Inputs
) -> tuple[tuple[jax.Array, jax.Array], Reach, Any]:
    """What the queries of `inputs` attend to: ((keys, values), reach, cache).

    Without a cache, the same rows; with one, its slots, into which the new keys and
    values go first.
    """
    positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT
    prefix = inputs.prefix_BT
    if cache is None:
        reach = Reach(positions_BT, segments_BT, positions_BT, segments_BT, prefix)
        return (k_BTKH, v_BTKH), reach, None
    B, S = positions_BT.shape[0], cache.length
    slots_BT = jnp.where(segments_BT > 0, positions_BT, S)
    cache = cache.write(k_BTKH, v_BTKH, slots_BT)
    slots_BS = jnp.broadcast_to(jnp.arange(S), (B, S))
    if prefix is not None:
        rows_B1 = jnp.arange(B)[:, None]
        prefix = jnp.zeros((B, S), bool).at[rows_B1, slots_BT].set(prefix, mode="drop")
    # A row holds one text: every slot up to the query's own is its past.
    ones = jnp.ones_like
    reach = Reach(positions_BT, ones(segments_BT), slots_BS, ones(slots_BS), prefix)
    return cache.rows(), reach, cache
