"""Where numbers stop being finite: the first module, or the gradients that do.

A loss that is not a number says nothing of where it came from, as all that follows is
none either. Here the step is done again, on the parameters and the batch that failed,
and every module tells whether all that it returns is finite. The first that does not,
in the order of computation and of layers, is where to look.

    locate = build_locate(model, objective, policy, knobs, join)
    locate(params, batch, step)     # "not finite first: stack/layer/mlp/up, layer 3"
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm import tree
from llm.nn.contract import both
from llm.objectives import Objective
from llm.precision import Policy
from llm.training.train_step import (
    NOTHING,
    Frozen,
    Knobs,
    in_turn,
    key_of,
    numbered,
    reference,
)

_NOTES = "intermediates"
_MOST = 4  # gradients that are named


def build_locate(
    model: nn.Module,
    objective: Objective,
    policy: Policy,
    knobs: Knobs,
    join: Callable[[Any, Any], Any],
) -> Callable[..., str]:
    """(params, batch, step, frozen) -> a line about what is not finite, or ''.

    Args:
      join: the adapter's, as `build_step` has it.
    """
    order: list[str] = []  # modules in the order in which they end

    def watch(call, args, kwargs, context):
        made = call(*args, **kwargs)
        if context.method_name == "__call__":
            name = "/".join(context.module.path)
            if name not in order:
                order.append(name)
            context.module.sow(_NOTES, "finite", _all_finite(made))
        return made

    def examined(params, batch, key, frozen):
        def loss_of(params):
            seen: list[Any] = []

            def apply(params, inputs, train=False, rngs=None):
                with nn.intercept_methods(watch):
                    made, noted = model.apply(
                        {"params": params}, inputs, train=train, method=both,
                        rngs=rngs, mutable=[_NOTES],
                    )  # fmt: skip
                seen.append(noted.get(_NOTES, {}))
                return made

            total, _, _ = objective.loss(
                apply, join(params, frozen.own), batch, rngs={"dropout": key},
                policy=policy, **reference(objective, frozen),
            )  # fmt: skip
            return total, seen

        (total, seen), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        leaves = jax.tree.map(_all_finite, {"params": params, "gradient": gradient})
        return jnp.isfinite(total), seen, leaves

    examined = jax.jit(examined)

    def locate(params, batch, step: int, frozen: Frozen = NOTHING) -> str:
        key = key_of(knobs.seed, step - 1)
        parts = in_turn(numbered(batch), knobs.accumulate)
        for n in range(knobs.accumulate):
            part = jax.tree.map(lambda x, n=n: x[n], parts)
            found = jax.device_get(examined(params, part, key, frozen))
            line = _line(order, *found)
            if line:
                return line
        return ""

    return locate


def _all_finite(made: Any) -> jax.Array:
    floats = [
        x
        for x in jax.tree.leaves(made)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    # -inf is how scores say "not this one".
    checks = [jnp.all(~jnp.isnan(x) & (x != jnp.inf)) for x in floats]
    return jnp.all(jnp.stack(checks)) if checks else jnp.array(True)


def _line(order, total, seen, leaves) -> str:
    params = [n for n, fine in tree.named_leaves(leaves["params"]).items() if not fine]
    if params:
        return f"not finite: the parameters {_named(params)}"
    for noted in seen:
        first = first_of(order, noted)
        if first:
            return f"not finite first: {first}"
    if not total:
        return "not finite first: the loss, of finite hidden states"
    named = tree.named_leaves(leaves["gradient"])
    gradients = [n for n, fine in named.items() if not fine]
    if gradients:
        return f"the loss is finite, not so the gradients of {_named(gradients)}"
    return ""


def first_of(order: Sequence[str], noted: Mapping[str, Any]) -> str:
    """The first module of a forward pass whose result is not finite, '' for none.

    Args:
      order: names of modules in the order in which they end.
      noted: {name: ... {"finite": ([calls] bool, or [layers] bool)}}, nested.
    """
    flat = tree.named_leaves(noted)
    found = {}
    for name, fine in flat.items():
        module = name.partition("/finite")[0].removesuffix("finite")
        held = np.atleast_1d(np.asarray(fine))
        found[module] = found[module] & held if module in found else held
    known = [name for name in order if name in found]
    for layered, names in itertools.groupby(known, lambda n: len(found[n]) > 1):
        group = list(names)
        bad = [
            (layer, n)
            for n, name in enumerate(group)
            for layer in np.flatnonzero(~found[name])[:1]
        ]
        if bad:
            layer, n = min(bad)
            return group[n] + (f", layer {layer}" if layered else "")
    return ""


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
