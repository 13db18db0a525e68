"""Bytes that a function needs while it runs, from its trace alone.

`working_bytes` walks the traced program in order and adds up what is live: a result
counts from the operation that makes it to the last one that reads it. Two things that
every XLA backend does are taken into account, or the sum would be twice too large: an
elementwise operation writes over an operand that it is the last to read, and reshapes,
broadcasts and iotas are not stored. What fusion saves beyond that is not known before
compiling, so this is an estimate from above, within about half of XLA's own figure.

    grad = jax.grad(loss)
    working_bytes(grad, params, batch)   # activations and temporaries
    saved_bytes(loss, params, batch)     # of these, what the backward pass waits for
    largest(jax.jit(grad).trace(params, batch).jaxpr)    # of these, each by its name
"""

import collections
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from llm import units

# Never stored: they are computed where they are read.
_FREE = {"broadcast_in_dim", "iota", "reshape", "squeeze", "expand_dims", "copy"}
# These cannot write their result over an operand.
_APART = {
    "dot_general", "conv_general_dilated", "gather", "transpose", "concatenate",
    "reduce_sum", "reduce_max", "sort", "top_k", "slice", "dynamic_slice",
}  # fmt: skip
# Their own results are arrays, whatever is inside.
_LOOPS = {"scan", "while"}
_KERNELS = {"shard_map", "pallas_call"}


class Array(NamedTuple):
    """One that a program makes.

    Attributes:
      name: the pass that makes it and the module, as `backward Llama/stack`.
      shape: with its type, over all devices; a loop's has the rounds in front.
      bytes: of one of these, over all devices.
      count: how many there are of this name and shape.
    """

    name: str
    shape: str
    bytes: int
    count: int

    def __str__(self) -> str:
        size = units.size(self.bytes)
        if self.count == 1:
            return f"{self.shape} of {self.name}, {size}"
        return f"{self.count} x {self.shape} of {self.name}, {size} each"


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree of arrays or of their shapes."""
    return sum(_size(leaf) for leaf in jax.tree.leaves(tree))


def device_bytes(placed: Any) -> int:
    """Bytes on one device of shapes that carry their shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(placed)
    )


def working_bytes(fn: Callable, *args: Any, fused: bool = False) -> int:
    """Most bytes that `fn` holds at once beyond its arguments and results.

    Args:
      args: arrays or `jax.ShapeDtypeStruct`s.
      fused: elementwise results are never stored; right for an optimizer's update,
        which XLA runs as one pass over each parameter but for its products.
    """
    return _peak(jax.make_jaxpr(fn)(*args).jaxpr, fused)


def saved_bytes(fn: Callable, params: Any, *args: Any) -> int:
    """Bytes that a forward pass keeps for the gradient with respect to `params`.

    The parameters themselves and the other arguments are kept anyway and do not count.
    """

    def residuals(params, *args):
        return jax.vjp(lambda p: fn(p, *args), params)[1]

    jaxpr = jax.make_jaxpr(residuals)(params, *args).jaxpr
    kept = {v for v in jaxpr.outvars if isinstance(v, Var)} - set(jaxpr.invars)
    return sum(_size(v.aval) for v in kept)


def largest(program: ClosedJaxpr, most: int = 12) -> list[Array]:
    """The largest arrays of a traced program, whether or not they live at once; of
    equal ones, those that are many.

    Results of elementwise operations are left out, as XLA seldom stores them. A loop's
    results are what it keeps of each round: of a stack of layers, the activations that
    wait for the backward pass.
    """
    counts: collections.Counter[tuple[str, str, int]] = collections.Counter()
    _count(program.jaxpr, "", counts)
    found = [Array(*key, count) for key, count in counts.items()]
    return sorted(found, key=lambda x: (-x.bytes, -x.count, x.name, x.shape))[:most]


def _count(jaxpr: Jaxpr, inside: str, counts) -> None:
    for eqn in jaxpr.eqns:
        stack = f"{inside}/{eqn.source_info.name_stack}"
        kind, bodies = eqn.primitive.name, list(_bodies(eqn))
        stored = kind in _LOOPS | _KERNELS or not bodies
        if stored and kind not in _FREE and not _elementwise(eqn):
            for v in eqn.outvars:
                counts[_place(stack), v.aval.str_short(), _size(v.aval)] += 1
        for body, _ in bodies if kind not in _KERNELS else ():
            _count(body, stack, counts)


def _place(stack: str) -> str:
    """`/transpose(jvp(Llama))/stack` as `backward Llama/stack`."""
    direction = "update" if "jvp(" not in stack else "forward"
    direction = "backward" if "transpose(" in stack else direction
    plain = re.sub(r"transpose\(|jvp\(|vmap\(|\)", "", stack)
    parts = [part for part in plain.split("/") if part]
    unnamed = "" if direction == "update" else "loss"
    return f"{direction} {'/'.join(parts) or unnamed}".rstrip()


def _peak(jaxpr: Jaxpr, fused: bool) -> int:
    """Most bytes of intermediate results at once; inputs and outputs do not count."""
    last_read = {}
    for i, eqn in enumerate(jaxpr.eqns):
        last_read |= {v: i for v in eqn.invars if isinstance(v, Var)}
    outside = {v for v in jaxpr.outvars if isinstance(v, Var)}
    live: dict[Var, int] = {}
    peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        dying = {v for v in eqn.invars if not isinstance(v, Literal)}
        dying = {v for v in dying if last_read[v] == i and v in live}
        name = eqn.primitive.name
        inner = max((_inner(*body, fused) for body in _bodies(eqn)), default=0)
        elementwise = _elementwise(eqn)
        stored = name not in _FREE and not (fused and elementwise)
        made = {
            v: _size(v.aval) if stored else 0
            for v in eqn.outvars
            if v in last_read and v not in outside
        }
        now = sum(live.values()) + sum(made.values()) + inner
        if elementwise:
            now -= min(sum(live[v] for v in dying), sum(made.values()))
        peak = max(peak, now)
        for v in dying:
            del live[v]
        live |= made
    return peak


def _inner(jaxpr: Jaxpr, loops: bool, fused: bool) -> int:
    """A loop's body also holds a slice of each operand and of each result."""
    slices = {v for v in (*jaxpr.invars, *jaxpr.outvars) if isinstance(v, Var)}
    return _peak(jaxpr, fused) + (sum(_size(v.aval) for v in slices) if loops else 0)


def _elementwise(eqn) -> bool:
    """Whether XLA fuses an operation with its neighbours, calls of such included."""
    bodies = list(_bodies(eqn))
    return eqn.primitive.name not in _APART and all(
        not loops and all(map(_elementwise, jaxpr.eqns)) for jaxpr, loops in bodies
    )


def _bodies(eqn) -> Iterator[tuple[Jaxpr, bool]]:
    loops = eqn.primitive.name in _LOOPS
    for value in eqn.params.values():
        for body in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(body, ClosedJaxpr):
                yield body.jaxpr, loops
            elif isinstance(body, Jaxpr):
                yield body, loops


def _size(leaf: Any) -> int:
    # Random keys and tokens of effects have no itemsize worth counting.
    itemsize = getattr(getattr(leaf, "dtype", None), "itemsize", 0)
    return math.prod(getattr(leaf, "shape", ())) * itemsize
