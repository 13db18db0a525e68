"""The state of training and its update, as pure functions.

    state   sharded from the start: eval_shape -> shardings -> jit(init, out_shardings)
    step    donated state; micro-batches summed, then divided by the global weight

Nothing here knows of time, files or hosts: the loop around it is
`llm/training/train_loop.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from llm import sharding, tree
from llm.checkpoint import State
from llm.nn import pipelining
from llm.objectives import Objective
from llm.precision import Policy
from llm.training import spikes


@dataclasses.dataclass(frozen=True)
class Knobs:
    """How long and how; `docs/config.md` says what each field means."""

    steps: int
    tokens_per_step: int
    accumulate: int = 1
    clip_norm: float = 1.0
    ema: float = 0.0
    seed: int = 0
    log_every: int = 10
    validate_every: int = 0
    checkpoint_every: int = 0
    local_every: int = 0
    patience: int = 0
    spike: str = "off"
    watchdog: float = 0.0
    watchdog_longest: float = 0.0
    notices: str = ""
    profile: tuple[int, int] = (0, 0)
    overfit_gap: float = 0.5
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    tokens_per_epoch: float = 0.0


def abstract_state(
    init: Callable[[jax.Array], Any],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    rules: str,
    *,
    ema: bool = False,
) -> State:
    """Shapes, dtypes and shardings of the training state; nothing is computed.

    Args:
      init: from a key to parameters in `nn.LogicallyPartitioned` boxes.
    """
    boxed = jax.eval_shape(init, jax.random.key(0))
    params = _placed(nn.meta.unbox(boxed), sharding.shardings_of(boxed, mesh, rules))
    opt_state = jax.eval_shape(tx.init, params)
    whole = sharding.replicated(mesh)
    own = {
        n: (leaf.shape, leaf.sharding) for n, leaf in tree.named_leaves(params).items()
    }

    def like_its_parameter(name, leaf):
        # A moment's name ends in the name of its parameter.
        shardings = [s for n, (shape, s) in own.items() if _ends(name, n, leaf, shape)]
        where = shardings[0] if shardings else whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return State(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
        params=params,
        ema=params if ema else None,
        opt_state=tree.map_named(like_its_parameter, opt_state),
    )


def _ends(name, parameter, leaf, shape):
    return leaf.shape == shape and f"/{name}".endswith(f"/{parameter}")


def _placed(shapes, shardings):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        shardings,
    )


def logical_axes(boxed: Any) -> dict[str, tuple[str, ...]]:
    """{leaf name: logical axes} of parameters in `nn.LogicallyPartitioned` boxes."""
    is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    leaves, _ = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=is_box)
    return {tree.name(path): tuple(box.names) for path, box in leaves}


def init_state(init, tx, abstract: State, seed: int) -> State:
    """The state of step 0, made on its devices: no array exists whole on one host."""

    def make():
        params = nn.meta.unbox(init(jax.random.key(seed)))
        ema = jax.tree.map(jnp.copy, params) if abstract.ema is not None else None
        return State(jnp.int32(0), params, ema, tx.init(params))

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(make, out_shardings=shardings)()


def _all(trainable: Any, frozen: Any) -> Any:
    """Parameters of which nothing is frozen."""
    del frozen
    return trainable


class Frozen(NamedTuple):
    """Parameters that training reads and does not change.

    Attributes:
      own: of the model, what the adapter does not train.
      reference: those that training began with, where the objective asks for them.
    """

    own: Any = ()
    reference: Any = None


NOTHING = Frozen()


def build_step(
    apply: Callable,
    objective: Objective,
    tx: optax.GradientTransformation,
    knobs: Knobs,
    policy: Policy,
    join: Callable[[Any, Any], Any] = _all,
) -> Callable[..., tuple[State, dict]]:
    """The update, to be jitted: (state, batch, frozen, bounds) -> (state, metrics).

    Gradients of sums are added over micro-batches, whose rows are taken in turn so that
    each stays spread over the devices, and divided once by the weight of all. With
    bounds (`llm/training/spikes.py`), a step above them leaves all but its number as it
    was.

    Args:
      join: the adapter's, of what is trained and `Frozen.own`.
    """

    def loss_of(params, batch, key, frozen):
        total, weight, metrics = objective.loss(
            apply, join(params, frozen.own), batch, rngs={"dropout": key},
            policy=policy, **reference(objective, frozen),
        )  # fmt: skip
        return total, (weight, metrics)

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    def summed(params, batch, key, frozen):
        if knobs.accumulate == 1 and pipelining.stages() == 1:
            return gradient_of(params, batch, key, frozen)
        parts = in_turn(batch, knobs.accumulate)
        whole = whole_batch(
            lambda part: loss_of(params, part, key, frozen)[1], parts, objective.whole
        )
        return sum_over(
            lambda part: gradient_of(params, part | whole, key, frozen), parts
        )

    def step(
        state: State,
        batch: dict,
        frozen: Frozen = NOTHING,
        bounds: spikes.Bounds | None = None,
    ):
        batch, key = numbered(batch), key_of(knobs.seed, state.step)
        (total, (weight, sums)), gradient = summed(state.params, batch, key, frozen)
        weight = jnp.maximum(weight, 1.0)
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        norm = tree.global_norm(gradient)
        if knobs.clip_norm:
            scale = jnp.minimum(1.0, knobs.clip_norm / jnp.maximum(norm, 1e-12))
            gradient = jax.tree.map(lambda g: g * scale, gradient)
        with jax.named_scope("optimizer"):
            updates, opt_state = tx.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            # Early on the average follows closely, as the first weights say nothing.
            held = jnp.minimum(knobs.ema, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: e + (1 - held) * (p - e), ema, params)
        metrics = {name: value / jnp.maximum(w, 1) for name, (value, w) in sums.items()}
        metrics.pop("expert_load", None)  # of which `expert_load_max` is logged
        metrics |= {"objective": total / weight, "grad_norm": norm}
        made = State(state.step + 1, params, ema, opt_state)
        if bounds is not None:
            learned = _within(metrics, bounds)
            before = state._replace(step=made.step)
            made = jax.tree.map(lambda a, b: jnp.where(learned, a, b), made, before)
            metrics["skipped"] = 1.0 - learned
        return made, metrics

    return step


def sum_over(function: Callable[[dict], Any], parts: dict) -> Any:
    """The sum of what a function makes of each part of a batch, one after another."""
    first = jax.tree.map(lambda x: x[0], parts)
    if len(jax.tree.leaves(parts)[0]) == 1:
        return function(first)
    shapes = jax.eval_shape(function, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(part)), None

    return jax.lax.scan(add, zeros, parts)[0]


def whole_batch(
    aux: Callable[[dict], tuple], parts: dict, names: tuple[str, ...] = ()
) -> dict[str, jax.Array]:
    """What the losses of parts must know of the whole batch that is cut in them.

    Those of the objective are means of its metrics. The balance loss of a mixture of
    experts is of the loads of the whole batch. Either is needed before the first part
    goes backward: all parts go forward once more. Nothing where there is neither.

    Args:
      aux: (weight, metrics) of a part.
      names: the objective's, of metrics.
    """
    first = jax.tree.map(lambda x: x[0], parts)
    known = jax.eval_shape(aux, first)[1]
    names = [name for name in (*names, "expert_load") if name in known]
    if not names:
        return {}

    def of_part(part):
        weight, metrics = aux(part)
        return weight, {name: metrics[name] for name in names}

    weight, sums = sum_over(of_part, parts)
    means = {name: x / jnp.maximum(w, 1.0) for name, (x, w) in sums.items()}
    if "expert_load" in means:
        means["own_share"] = weight / jnp.maximum(sums["expert_load"][1], 1.0)
    return means


def _within(metrics, bounds: spikes.Bounds) -> jax.Array:
    checks = [
        jnp.isfinite(metrics[name]) & (metrics[name] <= most)
        for name, most in bounds._asdict().items()
    ]
    return jnp.all(jnp.stack(checks))


def jit_step(step: Callable, abstract: State, options: dict | None = None) -> Callable:
    """`build_step`'s update as it is compiled: state donated, and laid out as it was.

    Args:
      options: of the compiler, as `llm/planning/compiler_options.py` has them.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=options or None,
    )


def abstract_batch(shapes: dict[str, Any], rows: int, mesh: Any) -> dict[str, Any]:
    """Shapes of a batch and where it lies, from those of a row."""
    cut = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype, sharding=cut)
        for name, x in shapes.items()
    }


def numbered(batch: dict) -> dict:
    """A batch with the numbers of its rows, which dropout depends on."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    return {**batch, "index": jnp.arange(rows, dtype=jnp.int32)}


def key_of(seed: int, step: jax.Array | int) -> jax.Array:
    """The key of dropout after so many steps."""
    return jax.random.fold_in(jax.random.key(seed), step)


def in_turn(batch: dict, parts: int) -> dict:
    """[B, ...] as [parts, B / parts, ...]: row r goes to part r % parts."""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1),
        batch,
    )


def reference(objective: Objective, frozen: Frozen) -> dict[str, Any]:
    """What an objective with a reference wants besides."""
    return {"reference": frozen.reference} if objective.reference else {}


def build_validate(
    apply, objective: Objective, policy: Policy, join: Callable[[Any, Any], Any] = _all
) -> Callable:
    """Sums of a batch: (params, batch, frozen=Frozen()) -> {name: (sum, weight)}."""

    def validate(params, batch, frozen: Frozen = NOTHING):
        params, others = join(params, frozen.own), reference(objective, frozen)
        _, _, sums = objective.loss(
            apply, params, numbered(batch), rngs=None, policy=policy, **others
        )
        sums.pop("expert_load", None)
        return sums

    return validate
