"""The only place that repeats a block.

`scan` compiles one layer, whatever the depth, and stacks its parameters with a leading
`layers` axis; `unroll` has the same parameters and compiles every layer, which is
faster to run and slower to compile; `loop` keeps a subtree per layer (`layer_0`,
`layer_1`, ...).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from llm.errors import InputError
from llm.nn import pipeline

HOW = ("scan", "unroll", "loop")
# What the backward pass keeps of a layer; the rest it computes again.
REMAT = {
    "none": None,
    # The results of products with weights; all else is computed again.
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def check_stack(layers: int, how: str, remat: str) -> None:
    """Raises InputError for a stack that cannot be built."""
    if layers < 1:
        raise InputError(got=f"model.layers {layers}", want="1 or more")
    for field, value, known in (("how", how, HOW), ("remat", remat, tuple(REMAT))):
        if value not in known:
            raise InputError(
                got=f"model.{field} {value!r}", want=f"one of {', '.join(known)}"
            )


def check_decoder(
    *, width: int, heads: int, kv_heads: int, head_dim: int, mlp: int, dropout: float
) -> None:
    """Raises InputError for sizes of a Llama or its like that cannot be built."""
    sizes = {
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp": mlp,
    }
    for field, size in sizes.items():
        if size < 1:
            raise InputError(got=f"model.{field} {size}", want="1 or more")
    if not 0 <= dropout < 1:
        raise InputError(got=f"model.dropout {dropout}", want="at least 0 and below 1")
    if heads % kv_heads:
        raise InputError(
            got=f"{heads} heads on {kv_heads} kv_heads", want="a whole number for each"
        )
    if head_dim % 2:
        raise InputError(got=f"head_dim {head_dim}", want="an even one, for rope")


class Stack(nn.Module):
    """Applies `layers` copies of a block in turn.

    Attributes:
      block: a Linen class; its `__call__(x, cache, each, *shared)` returns
        (x, what to insert in the cache, noted); noted is a dict of arrays.
      knobs: what to construct the block with.
    """

    block: type[nn.Module]
    layers: int
    knobs: dict[str, Any]
    how: str = "scan"
    remat: str = "none"

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
        if REMAT[self.remat] is not None:
            step = nn.remat(step, policy=REMAT[self.remat], prevent_cse=False)
        if self.how == "loop":
            made = []
            for i in range(self.layers):
                given = jax.tree.map(lambda leaf, i=i: leaf[i], (cache, each))
                block = self.block(**self.knobs, name=f"layer_{i}")
                x, out = step(block, x, given)
                made.append(out)
            return x, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
        x, made = self._scanned(step)(x, (cache, each))
        return x, *made

    def _scanned(self, step):
        repeat = nn.scan(
            step,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.layers,
            unroll=self.layers if self.how == "unroll" else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return functools.partial(repeat, self.block(**self.knobs, name="layer"))

    def _in_stages(self, cache, shared) -> bool:
        """Whether the mesh has stages; not for a look inside or a cache."""
        names = (s[:1] for s in shared if type(s) is tuple)
        looks = any(isinstance(name, str) for first in names for name in first)
        return (
            pipeline.stages() > 1
            and cache is None
            and not looks
            and not self.is_initializing()
        )

    def _pipeline(self, x, each, shared):
        """The same layers with the same keys, as functions of their parameters."""
        pipeline.check_stages(self.layers, self.how, pipeline.stages())
        block = self.block(**self.knobs, parent=None)

        def layer(x, given, shared):
            def run(x, given):
                params, rngs, each = given
                variables = {"params": params}
                x, _, noted = block.apply(variables, x, None, each, *shared, rngs=rngs)
                return x, noted

            if REMAT[self.remat] is not None:
                run = jax.checkpoint(run, policy=REMAT[self.remat], prevent_cse=False)
            return run(x, given)

        keys = self._scanned(lambda block, x, _: (x, dict(block.scope.rngs)))
        rngs = keys(None, None)[1]
        given = (self.variables["params"]["layer"], rngs, each)
        x, noted = pipeline.pipelined(layer, x, given, shared, self.layers)
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
