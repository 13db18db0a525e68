"""What training begins with: random weights, or those of a model that there is.

    c, source = resolved(c, workdir, host)   the config with the network of that model
    state, frozen = first(...)               its weights, laid out on the mesh

Weights go from leaf to leaf of the same name. A leaf that the model lacks, such as a
classifier, begins at random; one that has no use, such as a head for another
vocabulary, is left behind; both are said. A vocabulary may grow or shrink by what
objectives add to it: rows that are new are the mean of the others.

What an adapter freezes, and the reference of an objective that has one, lies in
`frozen/` of the run directory, which so needs no other to be used or resumed.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llm import run_dir, sharding, tree
from llm.adapters import Adapter, named_boxes, nested
from llm.checkpoint import Checkpoints, LoopState, State, restore_params
from llm.errors import InputError
from llm.inference import import_model, load_model
from llm.knobs import section
from llm.precision import dense
from llm.registry import plugin
from llm.training import train_step
from llm.training.train_step import Frozen


@section("")
class Begin:
    """What a training begins with."""

    # A model to begin with, as generate.model_dir: its network, weights and tokenizer
    # take the place of `model` and `tokenizer`; '' begins with random weights.
    init_from: str = ""
    # Which parameters are trained: a file of llm/adapters/ and its knobs.
    adapter: dict = plugin("adapters", "full")
    # The network: a file of llm/models/ and its knobs.
    model: dict = plugin("models", "llama")
    # What it learns: a file of llm/objectives/ and its knobs.
    objective: dict = plugin("objectives", "causal_lm")


def resolved(c: ConfigDict, workdir: str, host: jax.Device) -> tuple[ConfigDict, str]:
    """The config with the network of `c.init_from`, and that model's run directory.

    How to train it is said here, not there: dropout is that of this config, and so is
    remat, unless it is none: what needed it then may need it now.
    A Hugging Face folder or GGUF file is imported to the workdir first. Without
    `init_from` the config is as it was, and the directory ''.
    """
    if not c.init_from:
        return c, ""
    source = import_model.run_of(c.init_from, workdir, host)
    held = ConfigDict(run_dir.load(source)["config"])
    c = ConfigDict(c.to_dict())
    given, c.model = c.model, held.model
    for knob in ("dropout", "remat"):
        if knob in given and knob in held.model and given[knob] != "none":
            c.model[knob] = given[knob]
    c.tokenizer.update(vocab_size=held.tokenizer.vocab_size, kind=held.tokenizer.kind)
    return c, source


class Parts(NamedTuple):
    """Parameters as an adapter takes them apart, abstract, with axes and shardings.

    Attributes:
      boxes: {leaf name: box} of all parameters of the network, abstract.
      whole: all of them, with shardings.
      trained: from a key to the boxed part that is trained.
      own: the abstract part that is not, with shardings; () where there is none.
      axes: {leaf name: logical axes} of the trained part.
    """

    boxes: dict[str, nn.LogicallyPartitioned]
    whole: Any
    trained: Callable[[jax.Array], Any]
    own: Any
    axes: dict[str, tuple[str, ...]]


def parts(init: Callable, adapter: Adapter, mesh: Mesh, rules: str) -> Parts:
    """What of the parameters that `init` makes is trained, and what stays."""

    def split(key):
        return adapter.split(jax.random.fold_in(key, 2), init(key))

    boxed, rest = jax.eval_shape(split, jax.random.key(0))
    own = () if adapter.whole else _abstract(rest, mesh, rules)
    every = jax.eval_shape(init, jax.random.key(0))
    return Parts(
        boxes=named_boxes(every),
        whole=_abstract(every, mesh, rules),
        trained=lambda key: split(key)[0],
        own=own,
        axes=train_step.logical_axes(boxed),
    )


def weights(source: str, host: jax.Device) -> dict[str, Any]:
    """The weights of a run directory, {leaf name: value}; {} of none."""
    params = dense(load_model.load(source, host).params) if source else {}
    return tree.named_leaves(params)


def first(
    init: Callable,
    adapter: Adapter,
    tx: Any,
    abstract: State,
    made: Parts,
    *,
    seed: int,
    given: dict[str, Any],
    reference: bool,
    say: Callable[[str], None],
) -> tuple[State, Frozen]:
    """The state of step 0 and what stays, on the devices of the mesh.

    Args:
      given: {leaf name: value} of the model to begin with; {} is random weights.
      reference: whether the objective wants the first parameters kept.
    """
    if not given and adapter.whole and not reference:
        return train_step.init_state(init, tx, abstract, seed), Frozen()
    begin = lambda key: nn.meta.unbox(init(key))  # noqa: E731
    params = jax.jit(begin, out_shardings=_shardings(made.whole))(jax.random.key(seed))
    if given:
        params = _taken(params, given, made.boxes, say)
    key = jax.random.fold_in(jax.random.key(seed), 2)

    leaves = tree.named_leaves(params)

    @jax.jit
    def added(params):
        """What is trained and is no parameter of the model."""
        boxed = tree.map_named(lambda n, x: made.boxes[n].replace_boxed(x), params)
        trained = nn.meta.unbox(adapter.split(key, boxed)[0])
        held = tree.named_leaves(trained).items()
        return {name: leaf for name, leaf in held if name not in leaves}

    every = leaves | added(params)
    wanted = tree.named_leaves(abstract.params)
    laid_out = jax.jit(lambda x: x, out_shardings=_shardings(wanted))
    trained = nested(laid_out({n: every[n] for n in wanted}))
    own = made.own
    if own != ():
        own = nested({n: leaves[n] for n in tree.named_leaves(own)})
    kept = None
    if reference:
        # Where the adapter keeps all of them, they are the reference as they are.
        kept = own if _same_tree(own, params) else jax.tree.map(jnp.copy, params)
    ema = jax.tree.map(jnp.copy, trained) if abstract.ema is not None else None
    opt_state = jax.jit(tx.init, out_shardings=_shardings(abstract.opt_state))(trained)
    return State(jnp.int32(0), trained, ema, opt_state), Frozen(own, kept)


def save(workdir: str, frozen: Frozen) -> None:
    """Writes what stays, once, to `frozen/`; nothing if there is nothing.

    All processes take part, each with what its devices hold.
    """
    alike = frozen.reference is frozen.own
    for name, held in (
        (load_model.OWN, frozen.own),
        (load_model.REFERENCE, None if alike else frozen.reference),
    ):
        if jax.tree.leaves(held):
            checkpoints = Checkpoints(os.path.join(workdir, name), held)
            if checkpoints.newest() < 0:
                state = State(jnp.int32(0), held, None, None)
                checkpoints.save(state, LoopState(), None, donated=False)
            checkpoints.close()


def restore(workdir: str, made: Parts, reference: bool) -> Frozen:
    """What `save` wrote."""
    own = made.own
    if own != ():
        own, _ = restore_params(
            os.path.join(workdir, load_model.OWN), own, which="last"
        )
    if not reference:
        return Frozen(own)
    whole = made.whole
    if _same_tree(own, whole):
        return Frozen(own, own)
    where = os.path.join(workdir, load_model.REFERENCE)
    return Frozen(own, restore_params(where, whole, which="last")[0])


def _taken(params, given, boxes, say) -> Any:
    """`params` with the leaves of `given` that have their names."""
    leaves, new = tree.named_leaves(params), []
    for name, leaf in leaves.items():
        if name not in given:
            new.append(name)
            continue
        value = _fitted(name, given[name], leaf.shape, boxes[name].names)
        leaves[name] = jax.device_put(value, leaf.sharding)
    for names, what in (
        (new, "new, at random"),
        ([n for n in given if n not in leaves], "left behind"),
    ):
        if names:
            more = f" and {len(names) - 4} more" if names[4:] else ""
            say(f"{what}: {', '.join(names[:4])}{more}")
    return nested(leaves)


def _fitted(name, value, shape, axes) -> Any:
    """The value with as many rows of the vocabulary as there are now."""
    if value.shape == shape:
        return value
    changed = [a for a, x, y in zip(axes, value.shape, shape, strict=False) if x != y]
    if len(value.shape) != len(shape) or changed != ["vocab"]:
        raise InputError(
            got=f"{name} of {value.shape} in the model to begin with, and {shape} here",
            want="the same network",
            do="leave model.* as that model has it",
        )
    at = axes.index("vocab")
    rows = np.moveaxis(np.asarray(value), at, 0)
    more = shape[at] - len(rows)
    if more > 0:
        mean = rows.mean(axis=0, keepdims=True)
        rows = np.concatenate([rows, np.repeat(mean, more, axis=0)])
    return np.moveaxis(rows[: shape[at]], 0, at)


def _abstract(boxed, mesh, rules) -> Any:
    shapes, shardings = nn.meta.unbox(boxed), sharding.shardings_of(boxed, mesh, rules)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes, shardings,
    )  # fmt: skip


def _shardings(abstract) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _same_tree(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b)
