"""A model with what it learns, from their specs: what training, planning and use share.

network = build(c.model, c.objective, policy, tokenizer.vocab_size, tokenizer)
params = nn.meta.unbox(network.init(jax.random.key(0)))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from llm import objectives, registry
from llm.nn.contract import plain_inputs
from llm.nn.embedding import padded_vocab
from llm.objectives import Objective
from llm.precision import Policy


class Network(NamedTuple):
    """A model and its objective.

    Attributes:
      init: from a key to parameters in their boxes; their shapes do not depend on any
        batch, and those that the objective adds are among them.
    """

    model: Any
    objective: Objective
    init: Callable[[jax.Array], Any]


def build(
    model_spec: Any,
    objective_spec: Any,
    policy: Policy,
    vocab_size: int,
    tokenizer: Any = None,
) -> Network:
    """The network of a config.

    Args:
      model_spec, objective_spec: as in `registry.build`.
      vocab_size: ids of the tokenizer; those of the objective follow them.
      tokenizer: as in `objective.build`.
    """
    objective = objectives.build(objective_spec, vocab_size, tokenizer)
    padded = padded_vocab(vocab_size + objective.extra_tokens)
    model = registry.build("models", model_spec, vocab_size=padded, policy=policy)

    def init(key):
        params = model.init(key, plain_inputs(np.zeros((1, 2), np.int32)))["params"]
        return objective.extend(jax.random.fold_in(key, 1), params, model.width)

    return Network(model, objective, init)
