"""A trained run directory as a model to use."""

import dataclasses
import os
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from etils import epath
from ml_collections import ConfigDict

from llm import adapters, compress, models, run_dir, tree
from llm.checkpoint import restore_params
from llm.objectives import Objective
from llm.precision import Half, Policy
from llm.tokenizers import Tokenizer
from llm.tokenizers import sentencepiece_tokenizer as tokenizers

# Folders of a run: parameters that it did not train, and those that it began with.
OWN, REFERENCE = "frozen/own", "frozen/reference"
_CACHED = 2**25  # bytes of parameters that a CPU may hold near itself
_MATRICES = re.compile(r".*/kernel|embed/embedding")


class Loaded(NamedTuple):
    """A model, its objective, parameters, tokenizer, and the config of its training."""

    model: Any
    objective: Objective
    params: Any
    tokenizer: Tokenizer
    config: ConfigDict
    step: int


def load(model_dir: str, device: jax.Device, *, which: str = "best") -> Loaded:
    """Restores a run onto one device.

    Raises:
      InputError: not a run directory, or nothing readable in it.
    """
    restored = joined(model_dir, device, which=which)
    adapter = adapters.build(restored.config.get("adapter"))
    if adapter.whole:
        return restored
    return restored._replace(params=jax.jit(adapter.plain)(restored.params))


def joined(model_dir: str, device: jax.Device, *, which: str = "best") -> Loaded:
    """As `load`, but with adapters beside their kernels, as they are trained."""
    config = ConfigDict(run_dir.load(model_dir)["config"])
    tokenizer = tokenizers.load(epath.Path(model_dir) / "tokenizer")
    policy = Policy(config.train.dtype, device.platform)
    model, objective, init = models.build(
        config.model, config.objective, policy, tokenizer.vocab_size, tokenizer
    )
    here = jax.sharding.SingleDeviceSharding(device)
    adapter = adapters.build(config.get("adapter"))
    trained, frozen = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        nn.meta.unbox(
            jax.eval_shape(lambda key: adapter.split(key, init(key)), jax.random.key(0))
        ),
    )
    method = config.get("compressed")
    if method:
        trained = _compressed(trained, init, method, here)
    params, step = restore_params(model_dir, trained, which=which)
    if not adapter.whole:
        where = os.path.join(model_dir, OWN)
        own, _ = restore_params(where, frozen, which="last")
        params = adapter.join(params, own)
    return Loaded(model, objective, params, tokenizer, config, step)


def context(loaded: Loaded) -> int:
    """The longest row that a model reads: that of its positions, of the model that it
    was imported from, or of its training."""
    imported = loaded.config.get("convert", {}).get("context", 0)
    return loaded.model.cfg.context or imported or loaded.config.train.seq_len


def boxes(loaded: Loaded) -> Any:
    """The parameters of the network in their boxes, with axes; abstract."""
    _, _, init = models.build(
        loaded.config.model, loaded.config.objective, loaded.model.policy,
        loaded.tokenizer.vocab_size, loaded.tokenizer,
    )  # fmt: skip
    return jax.eval_shape(init, jax.random.key(0))


def _compressed(abstract, init, method, where) -> Any:
    """What a compression makes of parameters, abstract."""
    named = adapters.named_boxes(jax.eval_shape(init, jax.random.key(0)))
    axes = {name: box.names for name, box in named.items()}
    method = method.to_dict() if hasattr(method, "to_dict") else method
    made = jax.eval_shape(lambda p: compress.build(method).apply(p, axes), abstract)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), made
    )


def reference(loaded: Loaded, model_dir: str) -> Any:
    """The parameters that a run began with, as its objective asks for them."""
    where = os.path.join(model_dir, REFERENCE)
    if not epath.Path(where).exists():
        where = os.path.join(model_dir, OWN)  # all of them were left as they are
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        loaded.params,
    )
    return restore_params(where, abstract, which="last")[0]


def for_decoding(loaded: Loaded) -> tuple[Any, Any]:
    """The model and its parameters in the form to generate with.

    One token at a time is a product with a vector, which a CPU does far slower in
    bfloat16 than in float32. So there the model works in float32, and if it is one of
    bfloat16 and too large for the cache, its matrices are halves, which come from
    memory in half the time. An unrolled stack is slower there than a scanned one.
    """
    policy, params = loaded.model.policy, loaded.params
    if policy.platform != "cpu":
        return loaded.model, params
    if policy.dtype == "bfloat16" and tree.size_bytes(params) > _CACHED:
        params = _halved(params)
    cfg = loaded.model.cfg
    if cfg.how == "unroll":
        cfg = dataclasses.replace(cfg, how="scan")
    return loaded.model.clone(cfg=cfg, policy=Policy("float32", "cpu")), params


def _halved(params: Any) -> Any:
    """Matrices as halves, but for experts, which are multiplied in another way, and
    for what chooses among them."""
    names = tree.named_leaves(params)
    experts = tuple({n.partition("router/")[0] for n in names if "router/" in n})
    half = jax.jit(Half.of)

    def halved(name, x):
        wanted = _MATRICES.fullmatch(name) and not name.startswith(experts)
        return half(x) if wanted else x

    return tree.map_named(halved, params)
