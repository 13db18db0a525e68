"""The contract of an objective: from a record to a loss.

`features(record, rng)` turns one row of tokens into the arrays of one example, a pure
function of its arguments. `loss(apply, params, batch, policy)` returns the sum of the
losses of a batch, the sum of their weights and {name: (sum, weight)} for the log; the
training loop alone divides, by the global weight, across micro-batches and hosts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Objective(NamedTuple):
    """See the module docstring.

    Attributes:
      kinds: kinds of model that it can train: 'causal', 'masked', 'encdec'.
    """

    kinds: tuple[str, ...]
    features: Callable[[dict[str, Any], Any], dict[str, Any]]
    loss: Callable[..., tuple[jax.Array, jax.Array, dict[str, tuple]]]
