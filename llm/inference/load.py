"""A trained run directory as a model to use."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from etils import epath
from ml_collections import ConfigDict

from llm import objective, registry, run_directory
from llm.checkpoint import restore_params
from llm.data import tokenizer as tokenizers
from llm.nn.contract import plain_inputs
from llm.nn.embed import padded_vocab
from llm.precision import Policy


class Loaded(NamedTuple):
    """A model, its parameters and tokenizer, and the config it was trained with."""

    model: Any
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
    extra = objective.build(config.objective, tokenizer.vocab_size).extra_tokens
    vocab_size = padded_vocab(tokenizer.vocab_size + extra)
    model = registry.build("models", config.model, vocab_size=vocab_size, policy=policy)

    def init():
        zeros_BT = jax.numpy.zeros((1, 2), jax.numpy.int32)
        return model.init(jax.random.key(0), plain_inputs(zeros_BT))["params"]

    here = jax.sharding.SingleDeviceSharding(device)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        nn.meta.unbox(jax.eval_shape(init)),
    )
    params, step = restore_params(model_dir, abstract, which=which)
    return Loaded(model, params, tokenizer, config, step)


def for_decoding(loaded: Loaded) -> Any:
    """The model with the policy to generate with.

    One token at a time is a product with a vector, which a CPU does far slower in
    bfloat16 than in float32.
    """
    policy = loaded.model.policy
    dtype = "float32" if policy.platform == "cpu" else policy.dtype
    return loaded.model.clone(policy=Policy(dtype, policy.platform))
