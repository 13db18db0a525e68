"""Schedules and optimizers, as optax chains.

Every optimizer treats a stack of scanned layers as the layers it holds: what an update
takes from a whole leaf (Muon's orthogonal factor, Adafactor's row and column means) is
taken a layer at a time, so that scanning does not change training.

    tx = optimizer("muon", schedule("cosine", 1000), axes, learning_rate=3e-3)
    groups(...)  # {leaf name: optimizer}, for the log
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from llm import knobs, registry, tree
from llm.errors import InputError
from llm.knobs import Amount, Between0And1, Count, Share, ShareBelow1, section
from llm.precision import FLOAT32, Policy, matmul, transposed

NAMES = ("adafactor", "adam", "adamw", "lion", "muon", "rmsprop", "sgd")
SCHEDULES = ("constant", "cosine", "linear", "range", "rsqrt", "wsd")


@section("optimizer")
class Optimizer:
    """What learns."""

    # adamw adam sgd rmsprop adafactor lion muon.
    name: Literal[NAMES] = "adamw"
    # Peak learning rate; with muon, of the parameters that AdamW updates.
    learning_rate: Amount = 3e-3
    # Width of the model at which the learning rates were found: at another width each
    # parameter learns as much slower or faster as it must (muP, see
    # llm/training/optim.py). 0 takes them as they are.
    base_width: Count = 0
    # Peak learning rate of the matrices that Muon updates.
    muon_learning_rate: Amount = 0.02
    # First and second moment decay (adam family, lion); momentum is for sgd, muon.
    b1: ShareBelow1 = 0.9
    b2: ShareBelow1 = 0.95
    momentum: ShareBelow1 = 0.95
    epsilon: Amount = 1e-8
    # Decoupled weight decay, on the leaves that match `decay`.
    weight_decay: Amount = 0.1
    decay: str = r".*(kernel|embedding)"
    # Leaves to leave as they are; '' freezes nothing.
    freeze: str = ""
    # Largest global gradient norm; 0 does not clip.
    clip_norm: Amount = 1.0


@section("schedule")
class Schedule:
    """The learning rate over time."""

    # cosine wsd rsqrt linear constant, each after a linear warm-up; or range, which
    # grows from the share `first` of the peak to the peak (configs/lr_range.py).
    name: Literal[SCHEDULES] = "cosine"
    # Warm-up, and the final decay of wsd, as shares of the run.
    warmup: Share = 0.05
    decay: Share = 0.2
    # Final learning rate as a share of the peak.
    final: Share = 0.1
    first: Between0And1 = 1e-4


def schedule(
    name: str,
    steps: int,
    *,
    warmup: float = 0.05,
    decay: float = 0.2,
    final: float = 0.1,
    first: float = 1e-4,
) -> Callable[[jax.Array], jax.Array]:
    """The factor of the peak learning rate at a step (0 is the first update).

    Args:
      steps: length of the run.
      warmup: share of the run over which the factor rises linearly from near 0 to 1.
      decay: share of the run over which `wsd` falls linearly at the end.
      final: factor that the step after the last one would have, so that the last one
        still learns where it is 0 (`rsqrt`, `range` and `constant` do without).
      first: factor of the first update of `range`, a test of learning rates
        (arXiv:1506.01186): it then grows by the same share each step, without warm-up.
    """
    knobs.check("schedule", Schedule, {"name": name})
    rise = max(1, round(warmup * steps))
    fall = max(1, round(decay * steps))
    rest = max(1, steps - rise + 1)

    def factor(step):
        if name == "range":
            return first ** (1 - jnp.asarray(step, jnp.float32) / max(1, steps - 1))
        step = jnp.asarray(step, jnp.float32) + 1
        up = jnp.minimum(step / rise, 1.0)
        done = jnp.clip((step - rise) / rest, 0.0, 1.0)
        shape = {
            "constant": lambda: 1.0,
            "linear": lambda: 1 + (final - 1) * done,
            "cosine": lambda: final + (1 - final) * (1 + jnp.cos(jnp.pi * done)) / 2,
            "rsqrt": lambda: jnp.sqrt(rise / jnp.maximum(step, rise)),
            "wsd": lambda: (
                1 + (final - 1) * jnp.clip((step - steps + fall) / (fall + 1), 0.0, 1.0)
            ),
        }[name]()
        return up * shape

    return factor


def groups(
    name: str, axes: dict[str, tuple[str, ...]], *, freeze: str = ""
) -> dict[str, str]:
    """The optimizer of every leaf, from its logical axes: {leaf name: axes}."""

    def group(leaf, names):
        if freeze and re.fullmatch(freeze, leaf):
            return "frozen"
        if name == "muon":
            return "muon" if tree.is_matrix(names) else "adamw"
        return name

    return {leaf: group(leaf, names) for leaf, names in axes.items()}


def rates(
    name: str, axes: dict[str, tuple[str, ...]], *, width: int, base_width: int
) -> dict[str, float]:
    """Factors of the learning rate that let it stay when the width grows.

    Maximal-update parametrisation (arXiv:2203.03466, table 3), for optimizers whose
    update does not depend on the gradient's size: what reads the width, hidden matrices
    and the head, learns as much slower as it is wider; embeddings, norms and biases do
    not. The initial values that go with it (1 / sqrt(fan-in), and a head of zeros) are
    those of the models anyway. Muon's matrices are right as they are. Heads and `mlp`
    are to grow with the width, `head_dim` to stay.

    Args:
      name: of the optimizer.
      base_width: where the learning rate was found.

    Raises:
      InputError: an optimizer or a model that this is not for.
    """
    tied = not any(names == ("embed", "vocab") for names in axes.values())
    if name == "sgd" or tied or any("rank" in names for names in axes.values()):
        what = f"the optimizer {name!r}" if name == "sgd" else "tied or added weights"
        raise InputError(
            got=f"optimizer.base_width with {what}",
            want="not sgd, and all of a model with a head of its own",
        )

    def reads_width(names):
        return tree.is_matrix(names) or names == ("embed", "vocab")

    labels = groups(name, axes)
    return {
        leaf: base_width / width if reads_width(n) and labels[leaf] != "muon" else 1.0
        for leaf, n in axes.items()
    }


def configured(
    knobs: Mapping[str, Any],
    factor: Callable[[jax.Array], jax.Array],
    axes: dict[str, tuple[str, ...]],
    *,
    model: Mapping[str, Any],
    policy: Policy = FLOAT32,
) -> optax.GradientTransformation:
    """The optimizer of a config.

    Args:
      knobs: as `c.optimizer` has them.
      factor, axes, policy: see `optimizer`.
      model: the knobs of the model, for its name and width.
    """
    own = {k: v for k, v in knobs.items() if k not in ("clip_norm", "base_width")}
    base, scales = knobs["base_width"], {}
    if base:
        _check_transfers(model["name"])
        scales = rates(own["name"], axes, width=model["width"], base_width=base)
    return optimizer(own.pop("name"), factor, axes, policy=policy, rates=scales, **own)


def _check_transfers(name: str) -> None:
    """Raises InputError for a model that `rates` is not right for."""
    known = registry.choices("models")
    fit = [n for n in known if registry.module("models", n).Config.transfers]
    if name not in fit:
        raise InputError(
            got=f"optimizer.base_width with the model {name!r}",
            want=f"0, or one of {', '.join(fit)}",
        )


def optimizer(
    name: str,
    factor: Callable[[jax.Array], jax.Array],
    axes: dict[str, tuple[str, ...]],
    *,
    learning_rate: float,
    muon_learning_rate: float = 0.02,
    b1: float = 0.9,
    b2: float = 0.95,
    momentum: float = 0.95,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decay: str = r".*(kernel|embedding)",
    freeze: str = "",
    policy: Policy = FLOAT32,
    rates: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """An optimizer by name; clipping is the training loop's, which has the norm.

    Args:
      factor: what `schedule` returned.
      axes: {leaf name: logical axes}.
      decay: regular expression of the leaves that decay, decoupled from the gradient.
      policy: precision of Muon's products.
      rates: {leaf name: factor of its learning rate}; weight decay stays as it is.
    """

    knobs.check("optimizer", Optimizer, {"name": name})

    def scaled(core, peak):
        return optax.chain(
            *slowed(core),
            optax.add_decayed_weights(weight_decay, lambda p: tree.matches(p, decay)),
            optax.scale_by_learning_rate(lambda step: peak * factor(step)),
        )

    def slowed(core):
        """The core, and where there are any, the rates of its leaves."""
        if not rates or set(rates.values()) == {1.0}:
            return (core,)
        return core, optax.stateless(
            lambda updates, _: tree.map_named(lambda n, u: u * rates[n], updates)
        )

    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)
    # L2 regularisation for plain Adam, as it was defined; AdamW decouples it.
    coupled = optax.add_decayed_weights(weight_decay, lambda p: tree.matches(p, decay))
    plain = optax.chain(
        coupled,
        *slowed(adam),
        optax.scale_by_learning_rate(lambda s: learning_rate * factor(s)),
    )
    made = {
        "adamw": lambda: scaled(adam, learning_rate),
        "adam": lambda: plain,
        "sgd": lambda: scaled(optax.trace(decay=momentum), learning_rate),
        "rmsprop": lambda: scaled(
            optax.scale_by_rms(decay=b2, eps=epsilon), learning_rate
        ),
        "lion": lambda: scaled(optax.scale_by_lion(b1=b1, b2=b2), learning_rate),
        "adafactor": lambda: scaled(
            by_layer(
                optax.chain(
                    optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)
                ),
                axes,
            ),
            learning_rate,
        ),
        "muon": lambda: scaled(
            scale_by_muon(axes, momentum=momentum, policy=policy), muon_learning_rate
        ),
        "frozen": optax.set_to_zero,
    }
    labels = groups(name, axes, freeze=freeze)
    return optax.partition(
        {group: made[group]() for group in set(labels.values())},
        lambda params: tree.map_named(lambda leaf, _: labels[leaf], params),
    )


def by_layer(
    tx: optax.GradientTransformation, axes: dict[str, tuple[str, ...]]
) -> optax.GradientTransformation:
    """Applies `tx` to each layer of a stacked leaf as to a leaf of its own."""

    def kind(params):
        return tree.map_named(
            lambda leaf, _: "stack" if axes[leaf][:1] == ("layers",) else "leaf", params
        )

    def over_layers(function):
        # Without a stack (how='loop', or a frozen one) there is nothing to map over.
        return lambda g, *rest: (
            jax.vmap(function) if jax.tree.leaves(g) else function
        )(g, *rest)

    mapped = optax.GradientTransformation(
        over_layers(tx.init),
        lambda g, s, p=None: over_layers(tx.update)(g, s, p),
    )
    return optax.partition({"stack": mapped, "leaf": tx}, kind)


def scale_by_muon(
    axes: dict[str, tuple[str, ...]], *, momentum: float = 0.95, policy: Policy
) -> optax.GradientTransformation:
    """Muon (kellerjordan.github.io/posts/muon): an orthogonalised momentum.

    A kernel is seen as a matrix from its inputs to its outputs, with heads folded, a
    layer (and expert) at a time; the update is scaled by sqrt(max(1, out / in)).
    """

    def init(params):
        return optax.TraceState(trace=jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        trace = jax.tree.map(lambda g, m: momentum * m + g, updates, state.trace)

        def direction(leaf, gradient, held):
            nesterov = momentum * held + gradient
            matrix = as_matrix(nesterov, axes[leaf])
            scale = max(1.0, matrix.shape[-1] / matrix.shape[-2]) ** 0.5
            return (orthogonal(matrix, policy) * scale).reshape(gradient.shape)

        return tree.map_named(direction, updates, trace), optax.TraceState(trace)

    return optax.GradientTransformation(init, update)


def as_matrix(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """[stacking..., inputs, outputs]: axis `embed` is one side, the rest the other."""
    stacking = sum(a in tree.STACKING for a in axes)
    shape = x.shape[stacking:]
    if axes[stacking] == "embed":
        return x.reshape(*x.shape[:stacking], shape[0], -1)
    return x.reshape(*x.shape[:stacking], -1, shape[-1])


def orthogonal(x: jax.Array, policy: Policy, steps: int = 5) -> jax.Array:
    """Approximates U V^T, where x = U S V^T, by a quintic Newton-Schulz iteration.

    Its singular values end between about 0.7 and 1.2; the coefficients favour speed.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[-2] > x.shape[-1]
    x = x.swapaxes(-1, -2) if tall else x
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(steps):
        gram = matmul(x, transposed(x, policy), policy)
        x = a * x + matmul(b * gram + c * matmul(gram, gram, policy), x, policy)
    return x.swapaxes(-1, -2) if tall else x
