"""What queries attend to: keys, values, and who may see whom.

`B batch, T query, S key, K kv heads, H head dim`
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Reach(NamedTuple):
    """Who may attend to whom: same segment, and not later than the query.

    Segment 0 is padding. Keys of the prefix are seen from before them, too. With
    `causal` false, position plays no part, only `window` (keys at most window - 1
    positions away), where it is neither 0 nor None.
    """

    positions_BT: jax.Array
    segments_BT: jax.Array
    positions_BS: jax.Array
    segments_BS: jax.Array
    prefix_BS: jax.Array | None = None

    def mask_BTS(
        self, causal: bool = True, window: int | jax.Array | None = None
    ) -> jax.Array:
        """True where the query may attend to the key."""
        ahead_BTS = self.positions_BT[:, :, None] - self.positions_BS[:, None, :]
        allowed_BTS = self.segments_BT[:, :, None] == self.segments_BS[:, None, :]
        if causal:
            past_BTS = ahead_BTS >= 0
            if self.prefix_BS is not None:
                past_BTS |= self.prefix_BS[:, None, :]
            allowed_BTS &= past_BTS
        if window is None:
            return allowed_BTS
        # A layer of a scanned stack has its window as an array.
        return allowed_BTS & ((window == 0) | (jnp.abs(ahead_BTS) < window))


class Context(NamedTuple):
    """Keys and values, in as many parts as they lie in memory, and their reach.

    Attributes:
      keys, values: BSKH each; S of the reach is all parts together.
      ordered: queries and keys are the same row, and no query reaches a later key.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    reach: Reach
    ordered: bool = False
