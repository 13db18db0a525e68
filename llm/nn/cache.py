"""The key-value cache: an explicit argument of a model, which returns what to add.

    output = model(inputs, cache)                    the cache itself is only read
    cache = cache.insert(output.cache, inputs)       once for all layers, in place

A cache of no slots, `model.init_cache(batch, 0)`, is that of a text that begins: a
prefill attends to nothing else, and what it adds is inserted where there is room.

Every leaf of every cache is [layers, batch, ...]: axis 1 is the batch, for insertion of
a request, reordering of beams and paging alike. Slot s of a row holds position s. Keys
and values lie as the products of attention want them (of a key, the same number of all
slots side by side): else each new token would copy the whole past.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm.nn.context import Context, Reach
from llm.nn.contract import Inputs

BATCH_AXIS = 1


class KeyValues(NamedTuple):
    """Keys (BKHS) and values (BKSH) of one layer, or of all layers (LBKHS, LBKSH)."""

    keys: jax.Array
    values: jax.Array

    @classmethod
    def of(cls, k_BSKH: jax.Array, v_BSKH: jax.Array) -> "KeyValues":
        """Those of whole rows."""
        return cls(k_BSKH.transpose(0, 2, 3, 1), v_BSKH.transpose(0, 2, 1, 3))

    def context(self, reach: Reach) -> Context:
        """Those of one layer, to attend to."""
        k_BSKH, v_BSKH = self.keys.transpose(0, 3, 1, 2), self.values.swapaxes(1, 2)
        return Context((k_BSKH,), (v_BSKH,), reach)

    @property
    def length(self) -> int:
        """Slots of a row."""
        return self.keys.shape[-1]

    def insert(self, new: "KeyValues", inputs: Inputs) -> "KeyValues":
        """Puts what a model made of its inputs in their slots, in all layers.

        Padding is not written, nor what has a slot out of range.
        """
        slots_BT = jnp.where(inputs.segments_BT > 0, inputs.positions_BT, self.length)
        rows_B1 = jnp.arange(slots_BT.shape[0])[:, None]

        keys_BTLKH = new.keys.astype(self.keys.dtype).transpose(1, 4, 0, 2, 3)
        values_BTLKH = new.values.astype(self.values.dtype).transpose(1, 3, 0, 2, 4)
        keys, values = self.keys.at, self.values.at
        return KeyValues(
            keys[:, rows_B1, :, :, slots_BT].set(keys_BTLKH, mode="drop"),
            values[:, rows_B1, :, slots_BT].set(values_BTLKH, mode="drop"),
        )

    def replace(self, new: "KeyValues") -> "KeyValues":
        """Puts the first slots of all rows and layers at once; the others are zeros."""

        more = [(0, self.length - new.length)]
        none = [(0, 0)]
        return KeyValues(
            jnp.pad(new.keys.astype(self.keys.dtype), none * 4 + more),
            jnp.pad(new.values.astype(self.values.dtype), none * 3 + more + none),
        )


class Carry(NamedTuple):
    """States of a recurrent model, LBD each."""

    states: tuple[jax.Array, ...]

    def insert(self, new: "Carry", inputs: Inputs) -> "Carry":
        """What was is no more: a recurrent model returns its whole state."""
        del self, inputs
        return new


def empty(layers: int, shape_BSKH: tuple[int, ...], dtype) -> KeyValues:
    """A cache of zeros for all layers."""
    B, S, K, H = shape_BSKH
    keys_LBKHS = jnp.zeros((layers, B, K, H, S), dtype)
    values_LBKSH = jnp.zeros((layers, B, K, S, H), dtype)
    return KeyValues(keys_LBKHS, values_LBKSH)


def place(cache: Any, new: Any, rows_P: jax.Array) -> Any:
    """Puts what a model made of whole prompts in rows of a cache of any model.

    Slots after a prompt keep what they held: nobody attends to them before they are
    written. A row that is out of range is none.
    """

    def put(held, piece):
        sizes = zip(
            held.shape[BATCH_AXIS + 1 :], piece.shape[BATCH_AXIS + 1 :], strict=True
        )
        first = tuple(slice(min(size, there)) for there, size in sizes)
        piece = piece[(slice(None),) * (BATCH_AXIS + 1) + first]
        at = held.at[(slice(None), rows_P, *first)]
        return at.set(piece.astype(held.dtype), mode="drop")

    return jax.tree.map(put, cache, new)


def begins(cache: KeyValues | None) -> bool:
    """Whether a text has no past: there is nothing to attend to but itself."""
    return cache is None or cache.length == 0


def extend(
    cache: KeyValues | None, k_BTKH: jax.Array, v_BTKH: jax.Array, inputs: Inputs
) -> tuple[Context, KeyValues | None]:
    """What the queries of `inputs` attend to, and what to insert in the cache.

    They attend to the same rows, after the slots of a cache if there is one: of these,
    those before the first position of the row. With a past, a row is one piece of one
    text, padded on the right.
    """
    positions_BT, segments_BT = inputs.positions_BT, inputs.segments_BT
    prefix = inputs.prefix_BT
    new = None if cache is None else KeyValues.of(k_BTKH, v_BTKH)
    if begins(cache):
        reach = Reach(positions_BT, segments_BT, positions_BT, segments_BT, prefix)
        return Context((k_BTKH,), (v_BTKH,), reach, ordered=prefix is None), new
    B, S = positions_BT.shape[0], cache.length
    # A row holds one text, and what is in its slots from here on is of no text.
    past_BS = jnp.arange(S)[None] < positions_BT[:, :1]
    own_BT = segments_BT > 0
    if prefix is not None:
        prefix = jnp.concatenate([jnp.zeros((B, S), bool), prefix], axis=1)
    reach = Reach(
        positions_BT,
        jnp.ones_like(segments_BT),
        positions(cache, positions_BT),
        jnp.concatenate([past_BS, own_BT], axis=1).astype(segments_BT.dtype),
        prefix,
    )
    past = cache.context(reach)
    return Context((*past.keys, k_BTKH), (*past.values, v_BTKH), reach), new


def positions(cache: KeyValues | None, positions_BT: jax.Array) -> jax.Array:
    """Of the keys that `extend` gives, BS: those of the slots, then the rows' own."""
    if begins(cache):
        return positions_BT
    B, S = positions_BT.shape[0], cache.length
    slots_BS = jnp.broadcast_to(jnp.arange(S, dtype=positions_BT.dtype), (B, S))
    return jnp.concatenate([slots_BS, positions_BT], axis=1)
