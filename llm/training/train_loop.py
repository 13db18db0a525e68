"""The one training loop: any model, objective and optimizer; no `if objective ==`.

    step    of `llm/training/train_step.py`, compiled
    hooks   log, validate, checkpoint, in this order, each once at its step

The host never stalls the device: metrics of step s are read after step s + 1 is
dispatched, except where a hook at s needs them. A checkpoint is written only after the
loss and gradient norm of its step are known to be finite, and not while the last step
was a spike.
"""

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from llm import distributed
from llm.checkpoint import Checkpoints, State
from llm.errors import Diverged, Interrupted, Preempted
from llm.training import spikes, stragglers
from llm.training.goodput import Wall
from llm.training.local_checkpoint import LocalCheckpoints
from llm.training.metric_writer import Console, MetricWriter, StepTimer
from llm.training.preemption import Notices
from llm.training.profiling import Profiler
from llm.training.signals import StopRequest
from llm.training.train_step import Knobs
from llm.training.watchdog import Watchdog

_MEET_EVERY = 4  # steps after which several processes ask each other whether to stop


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
    locate: Callable[[Any, dict, int], str] | None = None,
    local: LocalCheckpoints | None = None,
    knobs: Knobs,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    console: Console,
    wall: Wall,
) -> tuple[State, dict[str, Any]]:
    """Trains from `state.step` to `knobs.steps` or until it stops early.

    Args:
      state: new or restored; its buffers are donated.
      loop: what the loop remembers across restarts; {} for a new run.
      step, validate: compiled forms of what `build_step` and `build_validate` return.
      batches: from a step to an iterator over the batches of that step and on.
      validation: the validation batches, always the same; empty turns validation off.
      documents: ids of the documents in the batch of a step, for the error message.
      locate: says of parameters, a batch and its step where numbers stop being finite;
        with it, each step is waited for.
      local: where this machine keeps its own parts, every `knobs.local_every` steps.
      wall: is told of each logged step, of the first moment and of the last.

    Raises:
      Preempted, Interrupted: asked to stop; the state is saved.
      Diverged: a loss or gradient norm is not finite; nothing of it is saved.
    """
    loop = {"events": [], "waited": 0, "stopped_early": False, **loop}
    loop = {"seconds": 0.0, "productive": 0.0, **loop}
    first = int(state.step)
    timer = StepTimer(knobs.steps, first)
    seconds_before = loop["seconds"]
    pending: tuple[int, dict] | None = None
    accounted = first  # the last step whose time is in `loop`
    stop, stopping = StopRequest(), ""
    watchdog = Watchdog(
        writer.workdir,
        times=knobs.watchdog,
        longest=knobs.watchdog_longest,
        step=first,
        process=jax.process_index(),
    )
    profiler = Profiler(writer.workdir, *knobs.profile, say=console.message)
    waits = stragglers.Waits()

    @contextlib.contextmanager
    def pause(at: int):
        """Leaves a validation or checkpoint out of the speed; a time to clean up."""
        with timer.pause(), watchdog.pause(at):
            gc.collect()
            yield
        wall.note()

    def account(at: int) -> None:
        """Ends a stretch of steps: what was learned in it counts as productive."""
        nonlocal accounted
        left_out = sum(accounted < step <= at for step in loop.get("skipped", ()))
        loop["productive"] += timer.worked() * (1 - left_out / max(at - accounted, 1))
        loop["seconds"] = seconds_before + timer.seconds
        accounted = at

    def settle(
        extra: dict[str, Any] | None = None, saving: bool = False
    ) -> dict[str, float]:
        """Reads the metrics of the last dispatched step, checks and logs them."""
        nonlocal pending
        at, device_metrics = pending
        pending = None
        metrics = {k: float(v) for k, v in jax.device_get(device_metrics).items()}
        watchdog.beat(at)
        wall.note()
        if metrics.pop("skipped", 0.0):
            where = ""
            if locate:
                with watchdog.pause():  # it is compiled there
                    where = locate(state.params, batch, at)
            if knobs.spike == "off":
                raise diverged(at, metrics, where)
            skipped(at, metrics, where)
        elif not all(math.isfinite(metrics[k]) for k in ("objective", "grad_norm")):
            raise diverged(at, metrics)
        elif knobs.spike != "off":
            spikes.note(loop, at, metrics)
        due = knobs.log_every and at % knobs.log_every == 0
        logged = due or extra or at == knobs.steps
        if logged or saving:
            account(at)
        if not logged:
            console.progress(at)
            return metrics
        lap = timer.lap(at, at * knobs.tokens_per_step)
        record = _record(at, metrics, lap, knobs, learning_rate) | (extra or {})
        record["seconds"] = loop["seconds"]
        record["wall_seconds"] = wall.seconds
        record["goodput"] = wall.share(loop["productive"])
        inputs = waits.of_each()
        record["input_s"] = max(inputs)
        late = stragglers.behind(inputs, 1 / max(lap.steps_per_s, 1e-9))
        if late is not None and late != loop.get("late"):
            event(at, "straggler", f"process {late} waits {inputs[late]:.2f} s a step "
                  "for its batch, and the others for it")  # fmt: skip
        loop["late"] = late
        writer.write(record)
        console.log(record)
        return metrics

    def diverged(at: int, metrics: dict[str, float], where: str = "") -> Diverged:
        with watchdog.pause():
            checkpoints.wait()
        good, batch = _good(at, checkpoints, loop), documents(at - 1)
        return _diverged(at, metrics, good, batch, loop, knobs.spike, where)

    def event(at: int, kind: str, message: str) -> None:
        loop["events"].append({"step": at, "event": kind, "message": message})
        console.message(f"step {at}: {message}")

    def skipped(at: int, metrics: dict[str, float], where: str) -> None:
        """What follows a spike, once: not where a step is skipped again."""
        if at in loop.get("skipped", ()):
            return
        spikes.skip(loop, at)
        if spikes.too_many(loop, at):
            raise diverged(at, metrics, where)
        event(
            at, "spike",
            f"loss {metrics['objective']:.4g} with gradient norm "
            f"{metrics['grad_norm']:.4g}: not learned from; {where}{'; ' * bool(where)}"
            f"documents in the batch: {_shown(documents(at - 1))}",
        )  # fmt: skip
        if knobs.spike != "rollback" or not loop.get("saved"):
            return
        with watchdog.pause():
            checkpoints.wait()  # also deletes, so that which there are does not vary
        ruined = spikes.suspect(loop, at)
        if not ruined:
            loop["return"] = at
        elif checkpoints.newest(ruined) >= 0:
            # What was learned again right before it is what two spikes have in common.
            spikes.skip(loop, ruined)
            event(ruined, "spike", f"left out too: after it all is a spike, up to {at}")
            loop["return"] = ruined

    def returned(state: State) -> State:
        """The state of the newest checkpoint before what is left out from now on."""
        nonlocal accounted
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        jax.tree.map(lambda x: x.delete(), state)  # there may be no room for two
        with watchdog.pause():
            state, then = checkpoints.restore(
                abstract, say=console.message, before=loop["return"]
            )
        at = accounted = int(state.step)
        now = {k: loop[k] for k in ("events", "skipped", "seconds")}
        loop.clear()
        loop.update(then | now)
        writer.rewind(at)
        timer.restart(at, at * knobs.tokens_per_step)
        event(at, "rollback", f"went back to step {at}")
        return state

    def save(at: int, loss: float | None, learned: bool) -> None:
        if learned:
            loop["saved"] = at
        else:
            event(
                at, "warning",
                "the run ends with a spike: its last checkpoint may be of bad weights; "
                f"last good checkpoint: {_good(at, checkpoints, loop)}",
            )  # fmt: skip
        with pause(at):
            checkpoints.save(state, loop, loss)

    def leave() -> None:
        profiler.close()
        with watchdog.pause():
            checkpoints.close()
        writer.close()
        console.close()
        at = int(state.step)
        raise Preempted(at) if stopping == "SIGTERM" else Interrupted(at)

    def notice(said: str) -> None:
        console.message(f"this machine will go: {said}")
        stop.ask()

    notices = Notices(knobs.notices, notice)
    with (
        stop, notices, watchdog, _garbage_in_pauses(), contextlib.closing(profiler),
        contextlib.closing(wall),
    ):  # fmt: skip
        if first < knobs.steps and not loop["stopped_early"]:
            wall.note()
        stream, at, owed = batches(first), first, False
        while at < knobs.steps and not loop["stopped_early"]:
            at += 1
            with waits:
                batch = next(stream)
            bounds = None
            if knobs.spike != "off":
                bounds = spikes.bounds(loop, at)
            elif locate:
                bounds = spikes.FINITE  # what is not leaves the parameters to look at
            profiler.before(at)
            new_state, metrics = step(state, batch, bounds)
            if pending is not None:
                settle()
            state, pending = new_state, (at, metrics)
            if "return" in loop:
                state, pending, owed = returned(state), None, False
                at = int(state.step)
                stream = batches(at)
                continue
            with watchdog.pause():
                profiler.after(at, metrics)
            if at == first + 1:
                jax.block_until_ready(metrics)  # compilation is not speed
                timer.restart(at, at * knobs.tokens_per_step)
                waits.restart()
                accounted = at
            last = at == knobs.steps
            validating = last or _due(at, knobs.validate_every)
            loss, extra = None, None
            if validating:
                jax.block_until_ready(metrics)
                with pause(at):
                    extra = _validate(validate, state, validation, watchdog.alive)
            # Asked once: a request that comes later in this step is for the next one.
            stopping = _asked_for(stop, at, last)
            saving = last or owed or _due(at, knobs.checkpoint_every) or bool(stopping)
            nearby = local and _due(at, knobs.local_every) and not saving
            if extra or saving or locate or nearby:
                train = settle(extra, bool(saving or nearby))
            if "return" in loop:
                state, pending, owed = returned(state), None, False
                at = int(state.step)
                stream = batches(at)
                continue
            if extra and not math.isfinite(extra["validation_loss"]):
                seen = {"objective": extra["validation_loss"], "grad_norm": math.nan}
                raise diverged(at, seen)
            if extra:
                loss = extra["validation_loss"]
                improved = _watch(at, train["loss"], loss, loop, knobs, event)
                saving |= loop["stopped_early"] or (improved and checkpoints.keeps_best)
            # Where it was a spike, the next step that is learned is saved instead.
            learned = at not in loop.get("skipped", ())
            ends = last or loop["stopped_early"]
            owed = saving and not learned
            if saving and (learned or ends):
                save(at, loss, learned)
            elif nearby and learned:
                with pause(at):
                    local.save(state, loop)
            if stopping and (learned or ends):
                leave()
        with watchdog.pause():
            checkpoints.wait()
        # During the last save: nothing is lost, but what would follow must not begin.
        stopping = distributed.agreed(stop.requested, StopRequest.KNOWN)
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


def _asked_for(stop: StopRequest, at: int, last: bool) -> str:
    """The signal that asks to stop, the same in all processes, which meet for it."""
    if jax.process_count() > 1 and not last and at % _MEET_EVERY:
        return ""
    return distributed.agreed(stop.requested, StopRequest.KNOWN)


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


def _validate(validate, state: State, validation, alive) -> dict[str, float]:
    """Means over the validation batches, of the average parameters where kept; `alive`
    is called after each."""
    params = state.params if state.ema is None else state.ema
    totals: dict[str, list[float]] = {}
    for batch in validation():
        for name, (value, weight) in jax.device_get(validate(params, batch)).items():
            held = totals.setdefault(name, [0.0, 0.0])
            held[0] += float(value)
            held[1] += float(weight)
        alive()
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


def _diverged(at, metrics, good, documents, loop, policy, where) -> Diverged:
    if spikes.too_many(loop, at):
        many = f"more than {spikes.MOST} of {spikes.WINDOW} steps are left out"
        where = f"{where}{'; ' * bool(where)}{many}"
    return Diverged(
        f"step {at}: loss {metrics['objective']} with gradient norm "
        f"{metrics['grad_norm']}; {where}{'; ' * bool(where)}"
        f"documents in the batch: {_shown(documents)}; "
        f"last good checkpoint: {good}; "
        "try a lower learning rate, longer warm-up or clipping"
        + (", or train.spike=skip" if policy == "off" else "")
        + ("" if where else "; train.find_nan=True says where it begins")
    )


def _good(at, checkpoints, loop) -> str:
    """The last good checkpoint: older than what may have ruined the weights."""
    good, ruined = loop.get("saved", 0), spikes.suspect(loop, at)
    if ruined and good >= ruined:
        checkpoints.wait()
        good = checkpoints.newest(ruined)
    return f"step {good}" if good > 0 else "none"


def _shown(documents: list[str]) -> str:
    return ", ".join(documents[:8]) + (" ..." if len(documents) > 8 else "")
