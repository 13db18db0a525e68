"""The only place that repeats a block.

`scan` compiles one layer, whatever the depth, and stacks its parameters with a leading
`layers` axis; `unroll` has the same parameters and compiles every layer, which is
faster to run and slower to compile; `loop` keeps a subtree per layer (`layer_0`,
`layer_1`, ...).
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.nn import pipelining
from llm.precision import Policy

HOW = ("scan", "unroll", "loop")
# What the backward pass keeps of a layer; the rest it computes again. Beside these, any
# tensors by name (`TENSORS`), those with @host in the memory of the host:
# "context,gate,up@host".
REMAT = {
    "none": None,
    # The results of products with weights; all else is computed again.
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # What is dear to compute again for its size. On a TPU, where it was chosen, it is
    # faster and smaller than `minimal` (LOG.md).
    "selective": ("attention_q", "attention_k", "context", "gate", "up", "norm"),
    "full": jax.checkpoint_policies.nothing_saveable,
}
# Results of products with weights, by the names of these; what the fused attention
# kernel takes, and what it makes; sizes that norms divide by.
TENSORS = (
    "query", "key", "value", "out", "gate", "up", "down",
    "attention_q", "attention_k", "attention_v", "context", "norm",
)  # fmt: skip


def remat_policy(remat: str) -> Any:
    """What `jax.checkpoint` takes for a name of `REMAT` or names of tensors."""
    known = REMAT.get(remat, tuple(remat.split(",")))
    if not isinstance(known, tuple):
        return known
    kept = [name for name in known if not name.endswith("@host")]
    sent = [name.removesuffix("@host") for name in known if name.endswith("@host")]
    if not sent:
        return jax.checkpoint_policies.save_only_these_names(*kept)
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=kept, names_which_can_be_offloaded=sent,
        offload_src="device", offload_dst="pinned_host",
    )  # fmt: skip


def check_remat(remat: str) -> None:
    """Raises InputError for what no stack can compute again."""
    if remat in REMAT:
        return
    for name in remat.split(","):
        if name.removesuffix("@host") not in TENSORS:
            raise InputError(
                got=f"model.remat {remat!r}",
                want=f"one of {', '.join(REMAT)}, or tensors such as context,up@host, "
                f"of {', '.join(TENSORS)}",
            )


class Stack(nn.Module):
    """Applies copies of a block in turn.

    Attributes:
      block: makes a Linen module of `cfg`, `policy` and a name; its
        `__call__(x, cache, each, *shared)` returns (x, what to insert in the cache,
        noted); noted is a dict of arrays.
      cfg: of the model; is read for `how`, `remat` and `layers`.
      layers: how many copies, where it is not `cfg.layers`.
    """

    block: Callable[..., nn.Module]
    cfg: Any
    policy: Policy
    layers: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, cache: Any, each: Any, *shared: Any
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        """(x, new, noted), the latter two with a leading axis of layers.

        Args:
          cache, each: with a leading axis of layers; `each` is what differs between
            layers beside their parameters, such as windows.
          shared: the same for all layers.
        """

        def step(block, x, given):
            cache, each = given
            x, new, noted = block(x, cache, each, *shared)
            return x, (new, noted)

        if self._in_stages(cache, shared):
            return self._pipeline(x, each, shared)
        policy, how = remat_policy(self.cfg.remat), self.cfg.how
        if policy is not None:
            # Of a scan, XLA cannot take what is computed again from the way forward.
            step = nn.remat(step, policy=policy, prevent_cse=how != "scan")
        if how == "loop":
            made = []
            for i in range(self._count):
                given = jax.tree.map(lambda leaf, i=i: leaf[i], (cache, each))
                block = self.block(self.cfg, self.policy, name=f"layer_{i}")
                x, out = step(block, x, given)
                made.append(out)
            return x, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
        x, made = self._scanned(step)(x, (cache, each))
        return x, *made

    def _scanned(self, step):
        repeat = nn.scan(
            step,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=self._count,
            unroll=self._count if self.cfg.how == "unroll" else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        layer = self.block(self.cfg, self.policy, name="layer")
        return functools.partial(repeat, layer)

    @property
    def _count(self) -> int:
        return self.layers or self.cfg.layers

    def _in_stages(self, cache, shared) -> bool:
        """Whether the mesh has stages; not for a look inside or a cache."""
        names = (s[:1] for s in shared if type(s) is tuple)
        looks = any(isinstance(name, str) for first in names for name in first)
        return (
            pipelining.stages() > 1
            and cache is None
            and not looks
            and not self.is_initializing()
        )

    def _pipeline(self, x, each, shared):
        """The same layers with the same keys, as functions of their parameters."""
        pipelining.check_stages(self._count, self.cfg.how, pipelining.stages())
        block = self.block(self.cfg, self.policy, parent=None)

        def layer(x, given, shared):
            def run(x, given):
                params, rngs, each = given
                variables = {"params": params}
                x, _, noted = block.apply(variables, x, None, each, *shared, rngs=rngs)
                return x, noted

            policy = remat_policy(self.cfg.remat)
            if policy is not None:
                run = jax.checkpoint(run, policy=policy, prevent_cse=False)
            return run(x, given)

        keys = self._scanned(lambda block, x, _: (x, dict(block.scope.rngs)))
        rngs = keys(None, None)[1]
        given = (self.variables["params"]["layer"], rngs, each)
        x, noted = pipelining.pipelined(layer, x, given, shared, self._count)
        return x, None, noted


def in_turn(pattern: tuple, layers: int) -> jax.Array | None:
    """The pattern's values, repeated over the layers, [L]; None where it is empty."""
    if not pattern:
        return None
    return jnp.array([pattern[i % len(pattern)] for i in range(layers)])


def restack(params: Any) -> Any:
    """Parameters of a loop (`layer_0`, ...) as those of a scanned stack."""
    ordered = [params[f"layer_{i}"] for i in range(len(params))]
    return {"layer": jax.tree.map(lambda *leaves: jnp.stack(leaves), *ordered)}
