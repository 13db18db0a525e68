"""The one training loop: any model, objective and optimizer; no `if objective ==`.

    state   sharded from the start: eval_shape -> shardings -> jit(init, out_shardings)
    step    donated state; micro-batches summed, then divided by the global weight
    hooks   log, validate, checkpoint, in this order, each once at its step

The host never stalls the device: metrics of step s are read after step s + 1 is
dispatched, except where a hook at s needs them. A checkpoint is written only after the
loss and gradient norm of its step are known to be finite.
"""

import contextlib
import dataclasses
import functools
import gc
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from llm import hosts, sharding, spikes, tree
from llm.checkpoint import Checkpoints, State
from llm.errors import Diverged, Interrupted, Preempted
from llm.monitor import Console, MetricWriter, StepTimer
from llm.objective import Objective
from llm.precision import Policy
from llm.profiling import Profiler
from llm.watchdog import Watchdog

_MEET_EVERY = 4  # steps after which several processes ask each other whether to stop


@dataclasses.dataclass(frozen=True)
class Knobs:
    """How long and how; `llm/config.py` says what each field means."""

    steps: int
    tokens_per_step: int
    accumulate: int = 1
    clip_norm: float = 1.0
    ema: float = 0.0
    seed: int = 0
    log_every: int = 10
    validate_every: int = 0
    checkpoint_every: int = 0
    patience: int = 0
    spike: str = "off"
    watchdog: float = 0.0
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
    bounds (`llm/spikes.py`), a step above them leaves all but its number as it was.

    Args:
      join: the adapter's, of what is trained and `Frozen.own`.
    """

    def loss_of(params, batch, key, frozen):
        total, weight, metrics = objective.loss(
            apply, join(params, frozen.own), batch, rngs={"dropout": key},
            policy=policy, **_reference(objective, frozen),
        )  # fmt: skip
        return total, (weight, metrics)

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    def summed(params, batch, key, frozen):
        if knobs.accumulate == 1:
            (total, aux), gradient = gradient_of(params, batch, key, frozen)
            return total, aux, gradient

        def micro(carry, part):
            (total, aux), gradient = gradient_of(params, part, key, frozen)
            return jax.tree.map(jnp.add, carry, (total, aux, gradient)), None

        parts = jax.tree.map(lambda x: _in_turn(x, knobs.accumulate), batch)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient_of, params, first, key, frozen)
        (total, aux), gradient = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), shapes
        )
        return jax.lax.scan(micro, (total, aux, gradient), parts)[0]

    def step(
        state: State,
        batch: dict,
        frozen: Frozen = NOTHING,
        bounds: spikes.Bounds | None = None,
    ):
        rows = jax.tree.leaves(batch)[0].shape[0]
        batch = {**batch, "index": jnp.arange(rows, dtype=jnp.int32)}
        key = jax.random.fold_in(jax.random.key(knobs.seed), state.step)
        total, (weight, sums), gradient = summed(state.params, batch, key, frozen)
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
        metrics |= {"objective": total / weight, "grad_norm": norm}
        made = State(state.step + 1, params, ema, opt_state)
        if bounds is not None:
            learned = _within(metrics, bounds)
            before = state._replace(step=made.step)
            made = jax.tree.map(lambda a, b: jnp.where(learned, a, b), made, before)
            metrics["skipped"] = 1.0 - learned
        return made, metrics

    return step


def _within(metrics, bounds: spikes.Bounds) -> jax.Array:
    checks = [
        jnp.isfinite(metrics[name]) & (metrics[name] <= most)
        for name, most in bounds._asdict().items()
    ]
    return jnp.all(jnp.stack(checks))


def jit_step(step: Callable, abstract: State, options: dict | None = None) -> Callable:
    """`build_step`'s update as it is compiled: state donated, and laid out as it was.

    Args:
      options: of the compiler, as `llm/compiler.py` has them.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=options or None,
    )


def _in_turn(x: jax.Array, parts: int) -> jax.Array:
    """[B, ...] as [parts, B / parts, ...]: row r goes to part r % parts."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _reference(objective: Objective, frozen: Frozen) -> dict[str, Any]:
    return {"reference": frozen.reference} if objective.reference else {}


def build_validate(
    apply, objective: Objective, policy: Policy, join: Callable[[Any, Any], Any] = _all
) -> Callable:
    """Sums of a batch: (params, batch, frozen=Frozen()) -> {name: (sum, weight)}."""

    def validate(params, batch, frozen: Frozen = NOTHING):
        rows = jax.tree.leaves(batch)[0].shape[0]
        batch = {**batch, "index": jnp.arange(rows, dtype=jnp.int32)}
        params, others = join(params, frozen.own), _reference(objective, frozen)
        return objective.loss(apply, params, batch, rngs=None, policy=policy, **others)[
            2
        ]

    return validate


def fit(
    state: State,
    loop: dict[str, Any],
    *,
    step: Callable,
    validate: Callable,
    batches: Callable[[int], Iterator[dict]],
    validation: Callable[[], Iterable[dict]],
    documents: Callable[[int], list[str]],
    learning_rate: Callable[[int], float],
    knobs: Knobs,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    console: Console,
) -> tuple[State, dict[str, Any]]:
    """Trains from `state.step` to `knobs.steps` or until it stops early.

    Args:
      state: new or restored; its buffers are donated.
      loop: what the loop remembers across restarts; {} for a new run.
      step, validate: compiled forms of what `build_step` and `build_validate` return.
      batches: from a step to an iterator over the batches of that step and on.
      validation: the validation batches, always the same; empty turns validation off.
      documents: ids of the documents in the batch of a step, for the error message.

    Raises:
      Preempted, Interrupted: asked to stop; the state is saved.
      Diverged: a loss or gradient norm is not finite; nothing of it is saved.
    """
    loop = {"events": [], "waited": 0, "stopped_early": False, **loop}
    loop = {"seconds": 0.0, "productive": 0.0, "lost": 0.0, **loop}
    loop["lost"] += writer.dropped_seconds
    first = int(state.step)
    timer = StepTimer(knobs.steps, first)
    seconds_before = loop["seconds"]
    pending: tuple[int, dict] | None = None
    stop, stopping = _StopRequest(), ""
    watchdog = Watchdog(writer.workdir, times=knobs.watchdog)
    profiler = Profiler(writer.workdir, *knobs.profile)

    @contextlib.contextmanager
    def pause():
        """Leaves a validation or checkpoint out of the speed; a time to clean up."""
        with timer.pause(), watchdog.pause():
            gc.collect()
            yield

    def settle(extra: dict[str, Any] | None = None) -> dict[str, float]:
        """Reads the metrics of the last dispatched step, checks and logs them."""
        nonlocal pending
        at, device_metrics = pending
        pending = None
        metrics = {k: float(v) for k, v in jax.device_get(device_metrics).items()}
        watchdog.beat(at)
        if metrics.pop("skipped", 0.0):
            skipped(at, metrics)
        elif not all(math.isfinite(metrics[k]) for k in ("objective", "grad_norm")):
            raise _diverged(at, metrics, documents(at - 1), checkpoints, loop)
        elif knobs.spike != "off":
            spikes.note(loop, at, metrics)
        due = knobs.log_every and at % knobs.log_every == 0
        if not (due or extra or at == knobs.steps):
            console.progress(at)
            return metrics
        lap = timer.lap(at, at * knobs.tokens_per_step)
        loop["seconds"] = seconds_before + lap.seconds
        loop["productive"] += lap.productive
        record = _record(at, metrics, lap, knobs, learning_rate) | (extra or {})
        record["seconds"] = loop["seconds"]
        spent = max(loop["seconds"] + loop["lost"], 1e-9)
        record["goodput"] = loop["productive"] / spent
        writer.write(record)
        console.log(record)
        return metrics

    def event(at: int, kind: str, message: str) -> None:
        loop["events"].append({"step": at, "event": kind, "message": message})
        console.message(f"step {at}: {message}")

    def skipped(at: int, metrics: dict[str, float]) -> None:
        """What follows a spike, once: not where a step is skipped again."""
        if at in loop.get("skipped", ()):
            return
        loop["skipped"] = [*loop.get("skipped", ()), at]
        if spikes.too_many(loop, at):
            raise _diverged(at, metrics, documents(at - 1), checkpoints, loop)
        event(
            at, "spike",
            f"loss {metrics['objective']:.4g} with gradient norm "
            f"{metrics['grad_norm']:.4g}: not learned from; documents in the batch: "
            f"{_shown(documents(at - 1))}",
        )  # fmt: skip
        loop["return"] = knobs.spike == "rollback"

    def returned(state: State) -> State | None:
        """The state of the newest checkpoint, with what the loop knew then."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        jax.tree.map(lambda x: x.delete(), state)  # there may be no room for two
        checkpoints.wait()
        state, then = checkpoints.restore(abstract, say=console.message)
        at = int(state.step)
        keep = ("events", "skipped", "seconds", "lost")
        loop.update({k: v for k, v in then.items() if k not in keep})
        writer.rewind(at)
        timer.restart(at, at * knobs.tokens_per_step)
        event(at, "rollback", f"went back to step {at}")
        return state

    def save(at: int, loss: float | None) -> None:
        loop["saved"] = at
        with pause():
            checkpoints.save(state, loop, loss)

    def leave() -> None:
        checkpoints.close()
        writer.close()
        console.close()
        at = int(state.step)
        raise Preempted(at) if stopping == "SIGTERM" else Interrupted(at)

    with stop, watchdog, _garbage_in_pauses(), contextlib.closing(profiler):
        stream, at = batches(first), first
        while at < knobs.steps and not loop["stopped_early"]:
            at += 1
            bounds = None if knobs.spike == "off" else spikes.bounds(loop, at)
            profiler.before(at)
            new_state, metrics = step(state, next(stream), bounds)
            if pending is not None:
                settle()
            state, pending = new_state, (at, metrics)
            told = profiler.after(at, metrics)
            if told:
                console.message(told)
            if at == first + 1:
                jax.block_until_ready(metrics)  # compilation is not speed
                timer.restart(at, at * knobs.tokens_per_step)
            last = at == knobs.steps
            validating = last or _due(at, knobs.validate_every)
            loss, extra = None, None
            if validating:
                jax.block_until_ready(metrics)
                with pause():
                    extra = _validate(validate, state, validation)
            # Asked once: a request that comes later in this step is for the next one.
            stopping = _asked_for(stop, at, last)
            saving = last or _due(at, knobs.checkpoint_every) or bool(stopping)
            if extra or saving:
                train = settle(extra)
            if loop.pop("return", False) and loop.get("saved"):
                state, pending = returned(state), None
                at = int(state.step)
                stream = batches(at)
                continue
            if extra and not math.isfinite(extra["validation_loss"]):
                seen = {"objective": extra["validation_loss"], "grad_norm": math.nan}
                raise _diverged(at, seen, documents(at - 1), checkpoints, loop)
            if extra:
                loss = extra["validation_loss"]
                improved = _watch(at, train["loss"], loss, loop, knobs, event)
                saving |= loop["stopped_early"] or (improved and checkpoints.keeps_best)
            if saving:
                save(at, loss)
            if stopping:
                leave()
        checkpoints.wait()
        # During the last save: nothing is lost, but what would follow must not begin.
        stopping = hosts.agreed(stop.requested, _StopRequest.KNOWN)
        if stopping:
            leave()
    return state, loop


@contextlib.contextmanager
def _garbage_in_pauses() -> Iterator[None]:
    """Leaves cyclic garbage to `gc.collect` in pauses: elsewhere its collection stops
    a step, and with it all hosts that wait for this one."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _asked_for(stop: "_StopRequest", at: int, last: bool) -> str:
    """The signal that asks to stop, the same in all processes, which meet for it."""
    if jax.process_count() > 1 and not last and at % _MEET_EVERY:
        return ""
    return hosts.agreed(stop.requested, _StopRequest.KNOWN)


def _due(at: int, every: int) -> bool:
    return bool(every) and at % every == 0


def _record(at, metrics, lap, knobs, learning_rate) -> dict[str, Any]:
    tokens = at * knobs.tokens_per_step
    # The first step of a process compiles and has no speed.
    rate = lap.tokens_per_s or None
    flops = rate * knobs.flops_per_token if rate else None
    return {
        "step": at,
        **metrics,
        "learning_rate": float(learning_rate(at - 1)),
        "tokens": tokens,
        "epoch": tokens / knobs.tokens_per_epoch if knobs.tokens_per_epoch else 0.0,
        "tokens_per_s": rate,
        "model_flops_per_s": flops,
        "mfu": flops / knobs.peak_flops if flops and knobs.peak_flops else None,
        "eta_s": lap.eta_s if rate else None,
    }


def _validate(validate, state: State, validation) -> dict[str, float]:
    """Means over the validation batches, of the average parameters where kept."""
    params = state.params if state.ema is None else state.ema
    totals: dict[str, list[float]] = {}
    for batch in validation():
        for name, (value, weight) in jax.device_get(validate(params, batch)).items():
            held = totals.setdefault(name, [0.0, 0.0])
            held[0] += float(value)
            held[1] += float(weight)
    return {f"validation_{k}": v / max(w, 1.0) for k, (v, w) in totals.items()}


def _watch(at, train_loss, loss, loop, knobs, event) -> bool:
    """Notes the best validation loss, overfitting, lost patience; True if improved."""
    improved = loss < loop.get("best_validation_loss", math.inf)
    if improved:
        loop.update(best_validation_loss=loss, best_step=at, waited=0)
    else:
        loop["waited"] += 1
    loop["validation_loss"] = loss
    warned = any(e["event"] == "overfitting" for e in loop["events"])
    if loss - train_loss > knobs.overfit_gap and not improved and not warned:
        event(
            at,
            "overfitting",
            f"overfitting: validation loss {loss:.3f} is {loss - train_loss:.3f} above "
            f"the training loss {train_loss:.3f} and no longer falls; want more data, "
            "fewer epochs, dropout or train.patience",
        )
    if knobs.patience and loop["waited"] >= knobs.patience:
        loop["stopped_early"] = True
        event(
            at,
            "early stop",
            f"stopped early: {loop['waited']} validations without a loss below "
            f"{loop['best_validation_loss']:.4f} (step {loop['best_step']})",
        )
    return improved


def _diverged(at, metrics, documents, checkpoints, loop) -> Diverged:
    checkpoints.wait()
    saved = f"step {loop['saved']}" if loop.get("saved") else "none"
    return Diverged(
        f"step {at}: loss {metrics['objective']} with gradient norm "
        f"{metrics['grad_norm']}; documents in the batch: {_shown(documents)}; "
        f"last good checkpoint: {saved}; "
        "try a lower learning rate, longer warm-up, clipping or train.spike=skip"
    )


def _shown(documents: list[str]) -> str:
    return ", ".join(documents[:8]) + (" ..." if len(documents) > 8 else "")


class _StopRequest:
    """SIGTERM and Ctrl-C ask the loop to save and stop; a second Ctrl-C stops it."""

    KNOWN = ("SIGINT", "SIGTERM")

    def __init__(self):
        self.requested = ""
        self._before: dict[int, Any] = {}

    def __enter__(self):
        # Only a main thread may; elsewhere (a notebook's worker) signals are not ours.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        del frame
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)


compiled = functools.partial(jax.jit, donate_argnums=0)
