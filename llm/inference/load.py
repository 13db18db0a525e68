"""A trained run directory as a model to use."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from etils import epath
from ml_collections import ConfigDict

from llm import network, run_directory
from llm.checkpoint import restore_params
from llm.data import tokenizer as tokenizers
from llm.objective import Objective
from llm.precision import Policy


class Loaded(NamedTuple):
    """A model, its objective, parameters, tokenizer, and the config of its training."""

    model: Any
    objective: Objective
    params: Any
    tokenizer: tokenizers.Tokenizer
    config: ConfigDict
    step: int


def load(model_dir: str, device: jax.Device, *, which: str = "best") -> Loaded:
    """Restores a run onto one device.

    Raises:
      InputError: not a run directory, or nothing readable in it.
    """
    config = ConfigDict(run_directory.load(model_dir)["config"])
    tokenizer = tokenizers.load(epath.Path(model_dir) / "tokenizer")
    policy = Policy(config.train.dtype, device.platform)
    model, objective, init = network.build(
        config.model, config.objective, policy, tokenizer.vocab_size, tokenizer
    )
    here = jax.sharding.SingleDeviceSharding(device)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        nn.meta.unbox(jax.eval_shape(init, jax.random.key(0))),
    )
    params, step = restore_params(model_dir, abstract, which=which)
    return Loaded(model, objective, params, tokenizer, config, step)


def for_decoding(loaded: Loaded) -> Any:
    """The model with the policy to generate with.

    One token at a time is a product with a vector, which a CPU does far slower in
    bfloat16 than in float32.
    """
    policy = loaded.model.policy
    dtype = "float32" if policy.platform == "cpu" else policy.dtype
    return loaded.model.clone(policy=Policy(dtype, policy.platform))
