"""The key-value cache: an explicit argument and result of a model.

Every leaf of every cache is [layers, batch, ...]: axis 1 is the batch, for insertion of
a request, reordering of beams and paging alike. Slot s of a row holds position s.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

BATCH_AXIS = 1


class KeyValues(NamedTuple):
    """Keys and values of one layer (BSKH), or of all layers (LBSKH)."""

    keys: jax.Array
    values: jax.Array

    @property
    def length(self) -> int:
        """Slots of a row."""
        return self.keys.shape[-3]

    def write(
        self, k_BTKH: jax.Array, v_BTKH: jax.Array, slots_BT: jax.Array
    ) -> "KeyValues":
        """Puts keys and values in their slots; a slot out of range is not written."""
        rows_B1 = jnp.arange(self.keys.shape[0])[:, None]

        def put(held, new):
            return held.at[rows_B1, slots_BT].set(new.astype(held.dtype), mode="drop")

        return KeyValues(put(self.keys, k_BTKH), put(self.values, v_BTKH))


def empty(layers: int, shape_BSKH: tuple[int, ...], dtype) -> KeyValues:
    """A cache of zeros for all layers."""
    zeros = jnp.zeros((layers, *shape_BSKH), dtype)
    return KeyValues(zeros, zeros)
