"""What is checked of a training before anything is read or written.

A pipeline asks here first: minutes of cleaning text come before the training.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from llm import models, objectives, registry, sharding
from llm.data import mixture
from llm.errors import InputError
from llm.nn.attention import kernel
from llm.nn.contract import has_head
from llm.nn.pipelining import check_stages
from llm.precision import Policy
from llm.training import profiling, rollouts
from llm.training.assembly import assemble


def check(c: ConfigDict, devices: Sequence[jax.Device]) -> None:
    """Raises InputError for what cannot be trained on these devices."""
    t = c.train
    mesh = sharding.make_mesh(c.mesh, devices)
    sharding.rules_for(c.rules, mesh)
    mixture.check(mixture.Wanted(**c.data.mixture))
    _check_batch(t, mesh)
    if t.notices not in ("auto", "none") and not t.notices.startswith("http://"):
        raise InputError(
            got=f"train.notices {t.notices!r}", want="auto, none or an http:// address"
        )
    if t.local_every and not t.local_dir:
        raise InputError(
            got=f"train.local_every {t.local_every} without train.local_dir",
            want="a folder on the machine's own disk",
        )
    steps = length(t, rows_per_epoch=1)
    # Those of epochs are known once there is a corpus.
    profiling.check(tuple(c.profile_steps), math.inf if t.epochs else steps)
    policy = Policy(
        t.dtype, devices[0].platform, len(devices), devices[0].device_kind,
        t.products, t.attention,
    )  # fmt: skip
    attention_of(c, policy, mesh)
    network = models.build(c.model, c.objective, policy, c.tokenizer.vocab_size)
    model, objective, _ = network
    check_pair(c, objective)
    rollouts.check(c, objective.online)
    if objective.predicts_tokens and not has_head(model):
        raise InputError(
            got=f"objective {c.objective.name!r} with a {c.model.name} without a head",
            want="model.mlm_head=True",
        )
    shapes = objectives.row_shapes(objective, t.seq_len)
    _check_length(model, shapes)
    _check_mesh(model, shapes, mesh)
    for field in ("decay", "freeze"):
        try:
            re.compile(c.optimizer[field])
        except re.error as error:
            raise InputError(
                got=f"optimizer.{field} {c.optimizer[field]!r} ({error})",
                want="a regular expression",
            ) from error
    assemble(c, network, policy, mesh, steps=1)


def length(t: ConfigDict, rows_per_epoch: int) -> int:
    """Steps of the run, from exactly one of `steps`, `tokens` and `epochs`."""
    given = {name: t[name] for name in ("steps", "tokens", "epochs") if t[name]}
    if len(given) != 1:
        raise InputError(
            got=", ".join(f"train.{k}={v}" for k, v in given.items()) or "no length",
            want="exactly one of train.steps, train.tokens and train.epochs above 0",
        )
    if t.steps:
        return t.steps
    if t.tokens:
        return math.ceil(t.tokens / (t.batch_size * t.seq_len))
    return math.ceil(t.epochs * rows_per_epoch / t.batch_size)


def check_pair(c: ConfigDict, objective: Any) -> None:
    """Raises InputError where the objective cannot train this kind of model."""
    kind = registry.module("models", c.model.name).KIND
    if kind not in objective.kinds:
        fitting = [
            name
            for name in registry.choices("objectives")
            if kind in _smallest(name, c.tokenizer.vocab_size).kinds
        ]
        raise InputError(
            got=f"objective {c.objective.name!r}, which needs a model that is "
            f"{' or '.join(objective.kinds)}; {c.model.name!r} is {kind}",
            want=f"one of {', '.join(fitting)}",
        )


def _smallest(name: str, vocab_size: int) -> Any:
    knobs = registry.module("objectives", name).TINY
    return objectives.build({"name": name, **knobs}, vocab_size)


def _check_length(model: Any, shapes: dict[str, Any]) -> None:
    """Raises InputError for rows with positions that the model has not learned."""
    known, T = model.cfg.context, shapes["tokens"].shape[0]
    if known and known < T:
        raise InputError(
            got=f"rows of {T} tokens, from train.seq_len, and model.length {known}",
            want=f"at most {known} tokens",
        )


def _check_mesh(model: Any, shapes: dict[str, Any], mesh: Any) -> None:
    """Raises InputError for layers, heads or rows that the mesh cannot cut."""
    check_stages(model.layers, model.cfg.how, mesh.shape.get("stage", 1))
    heads, tensor = model.cfg.heads, mesh.shape.get("tensor", 1)
    if heads % tensor:
        raise InputError(
            got=f"{heads} heads on {tensor} devices of the mesh axis 'tensor'",
            want="an axis that divides the heads",
        )
    ways = mesh.shape.get("context", 1)
    for name in ("tokens", "source_tokens"):
        T = shapes[name].shape[0] if name in shapes else 0
        if T % ways:
            raise InputError(
                got=f"rows of {T} {name} on {ways} devices of the mesh axis 'context'",
                want=f"a multiple of {ways}, by train.seq_len",
            )


def _check_batch(t: ConfigDict, mesh) -> None:
    ways = sharding.batch_ways(mesh) * t.accumulate
    if t.batch_size % ways:
        raise InputError(
            got=f"train.batch_size {t.batch_size} with {t.accumulate} micro-batches on "
            f"a mesh of {dict(mesh.shape)}",
            want=f"a multiple of {ways}",
        )


def attention_of(c: ConfigDict, policy: Policy, mesh: Any) -> str:
    """What carries attention out."""
    m = c.model
    head_dim = m.get("head_dim") or m.width // m.get("heads", 1)
    around = mesh.shape.get("context", 1)
    return kernel(policy, c.train.seq_len, head_dim, m.get("windows", ()), around)
