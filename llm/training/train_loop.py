"""The one training loop: any model, objective and optimizer; no `if objective ==`.

The host never stalls the device: metrics of step s are read after step s + 1 is
dispatched, except where something that is due at s needs them. A checkpoint is written
only after the loss and gradient norm of its step are known to be finite, and not while
the last step was a spike.

    state, loop = fit(program, state, loop, knobs=knobs, checkpoints=checkpoints,
                      telemetry=telemetry)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax

from llm.checkpoint import Checkpoints, LoopState, State
from llm.errors import Diverged, Interrupted, Preempted
from llm.training import spikes
from llm.training.local_checkpoint import LocalCheckpoints
from llm.training.rollouts import Rollouts
from llm.training.spikes import Verdict
from llm.training.telemetry import Telemetry
from llm.training.train_step import Knobs


class Program(NamedTuple):
    """What is trained, in compiled functions, and on what.

    Attributes:
      step, validate: compiled forms of what `build_step` and `build_validate` return.
      batches: from a step to an iterator over the batches of that step and on; of
        prompts, with `rollouts`.
      validation: the validation batches, always the same; empty turns validation off.
      documents: ids of the documents in the batch of a step, for the error message.
      learning_rate: of a step, for the log.
      locate: says of parameters, a batch and its step where numbers stop being finite;
        with it, the loop waits for each step.
      rollouts: of an objective that learns from answers of the model.
    """

    step: Callable
    validate: Callable
    batches: Callable[[int], Iterator[dict]]
    validation: Callable[[], Iterable[dict]]
    documents: Callable[[int], list[str]]
    learning_rate: Callable[[int], float]
    locate: Callable[[Any, dict, int], str] | None = None
    rollouts: Rollouts | None = None


def fit(
    program: Program,
    state: State,
    loop: LoopState,
    *,
    knobs: Knobs,
    checkpoints: Checkpoints,
    telemetry: Telemetry,
    local: LocalCheckpoints | None = None,
) -> tuple[State, LoopState]:
    """Trains from `state.step` to `knobs.steps` or until it stops early.

    Args:
      state: new or restored; its buffers are donated.
      loop: what the loop remembers across restarts; it is changed.
      local: where this machine keeps its own parts, every `knobs.local_every` steps.

    Raises:
      Preempted, Interrupted: asked to stop; the state is saved.
      Diverged: a loss or gradient norm is not finite; nothing of it is saved.
    """
    trainer = _Trainer(program, loop, knobs, checkpoints, telemetry, local)
    with telemetry:
        state = trainer.run(state)
        with telemetry.unwatched():
            checkpoints.wait()
        # During the last save: nothing is lost, but what would follow must not begin.
        if stop := telemetry.stop_requested(int(state.step), last=True):
            trainer.stop(int(state.step), stop)
    return state, loop


class _Pending(NamedTuple):
    """A step that is dispatched, and whose metrics are not read yet."""

    at: int
    metrics: dict[str, jax.Array]
    batch: dict
    collected: dict[str, float]


class _Settled(NamedTuple):
    """A step whose metrics are read.

    Attributes:
      rollback: the step before which the run continues from a checkpoint; 0 is none.
    """

    metrics: dict[str, float]
    rollback: int = 0


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The loop, and what it does at a step."""

    program: Program
    loop: LoopState
    knobs: Knobs
    checkpoints: Checkpoints
    telemetry: Telemetry
    local: LocalCheckpoints | None

    def run(self, state: State) -> State:
        """The loop itself."""
        knobs, loop, telemetry = self.knobs, self.loop, self.telemetry
        at = int(state.step)
        stream, pending, save_pending = self.program.batches(at), None, False
        while at < knobs.steps and not loop.stopped_early:
            at += 1
            batch = self.next_batch(stream, state, at)
            telemetry.before_step(at)
            new_state, metrics = self.program.step(state, batch, self.limits(at))
            # One step late, so that the device never waits for the host.
            settled = self.settle(pending) if pending else _Settled({})
            state, pending = new_state, _Pending(at, metrics, batch, loop.collected)

            if not settled.rollback:
                telemetry.after_step(at, metrics)
                last = at == knobs.steps
                validation = {}
                if last or _due(at, knobs.validate_every):
                    validation = self.validate(at, state, metrics)
                # Asked once: a request that comes later is for the next step.
                stop = telemetry.stop_requested(at, last)
                saving = last or save_pending or _due(at, knobs.checkpoint_every)
                saving |= bool(stop)
                nearby = self.local and _due(at, knobs.local_every) and not saving
                if validation or saving or nearby or self.program.locate:
                    settled = self.settle(
                        pending, validation, state.params, bool(saving or nearby)
                    )
                    pending = None
            if settled.rollback:
                state = self.roll_back(state, settled.rollback)
                at = int(state.step)
                stream, pending, save_pending = self.program.batches(at), None, False
                continue

            if validation:
                saving |= self.watch(at, settled.metrics["loss"], validation)
            # Where it was a spike, the next step that is learned is saved instead.
            learned = at not in loop.skipped
            ends = last or loop.stopped_early
            save_pending = saving and not learned
            if saving and (learned or ends):
                self.save(at, state, validation.get("validation_loss"), learned)
            elif nearby and learned:
                with telemetry.pause(at):
                    self.local.save(self.whole(state), loop)
            if stop and (learned or ends):
                self.stop(at, stop)
        return state

    def next_batch(self, stream: Iterator[dict], state: State, at: int) -> dict:
        """What a step learns from: of the loader, or made by the model itself."""
        rollouts, take = self.program.rollouts, self.telemetry.next_batch
        if rollouts is None:
            return take(stream)
        batch = rollouts.next_batch(lambda: take(stream), state.params, at)
        self.loop.collected = rollouts.figures
        self.telemetry.alive()
        return batch

    def limits(self, at: int) -> spikes.Bounds | None:
        """What a step may learn from."""
        if self.knobs.spike == "off" and self.program.locate:
            return spikes.FINITE  # what is not leaves the parameters to look at
        return spikes.limits(self.loop, at, self.knobs.spike)

    def settle(
        self,
        pending: _Pending,
        extra: dict[str, float] | None = None,
        params: Any = None,
        account: bool = False,
    ) -> _Settled:
        """Reads the metrics of a dispatched step, judges and logs them."""
        at, knobs, telemetry = pending.at, self.knobs, self.telemetry
        metrics = {k: float(v) for k, v in jax.device_get(pending.metrics).items()}
        telemetry.beat(at)
        verdict, where = spikes.judge(self.loop, at, metrics), ""
        if metrics.pop("skipped", 0.0) and self.program.locate:
            with telemetry.unwatched():  # it is compiled there
                where = self.program.locate(params, pending.batch, at)
        metrics |= pending.collected
        rollback = self.act_on(verdict, at, metrics, where)
        due = _due(at, knobs.log_every) or extra or at == knobs.steps
        if due or account:
            telemetry.account(at)
        if due:
            telemetry.log(at, metrics, extra or {}, self.program.learning_rate)
        else:
            telemetry.progress(at)
        return _Settled(metrics, rollback)

    def act_on(self, verdict: Verdict, at: int, metrics: dict, where: str) -> int:
        """What follows a verdict; the step before which to go back, or 0."""
        skipped = verdict in (Verdict.SPIKE, Verdict.REPEATED)
        if verdict == Verdict.NOT_FINITE or (skipped and self.knobs.spike == "off"):
            raise self.diverged(at, metrics, where)
        if verdict == Verdict.LEARNED and self.knobs.spike != "off":
            spikes.note(self.loop, at, metrics)
        if verdict != Verdict.SPIKE:
            return 0
        spikes.skip(self.loop, at)
        if spikes.too_many(self.loop, at):
            raise self.diverged(at, metrics, where)
        self.telemetry.event(
            at, "spike",
            f"loss {metrics['objective']:.4g} with gradient norm "
            f"{metrics['grad_norm']:.4g}: not learned from; {where}{'; ' * bool(where)}"
            f"documents in the batch: {_shown(self.program.documents(at - 1))}",
        )  # fmt: skip
        if self.knobs.spike != "rollback" or not self.loop.saved:
            return 0
        with self.telemetry.unwatched():
            self.checkpoints.wait()  # also deletes, so that their number does not vary
        ruined = spikes.suspect(self.loop, at)
        if not ruined:
            return at
        if self.checkpoints.newest(ruined) < 0:
            return 0
        # What was learned again right before it is what two spikes have in common.
        spikes.skip(self.loop, ruined)
        self.telemetry.event(
            ruined, "spike", f"left out too: after it all is a spike, up to {at}"
        )
        return ruined

    def roll_back(self, state: State, before: int) -> State:
        """The state of the newest checkpoint before a step."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            self.whole(state),
        )
        jax.tree.map(lambda x: x.delete(), state)  # there may be no room for two
        with self.telemetry.unwatched():
            state, then = self.checkpoints.restore(
                abstract, say=self.telemetry.message, before=before
            )
        at = int(state.step)
        if self.program.rollouts:
            state = self.program.rollouts.resume(state, then)
        self.loop.go_back(then)
        self.telemetry.rewind(at)
        self.telemetry.event(at, "rollback", f"went back to step {at}")
        return state

    def validate(self, at: int, state: State, metrics: dict) -> dict[str, float]:
        """Means over the validation batches, of the average parameters where kept."""
        jax.block_until_ready(metrics)
        params = state.params if state.ema is None else state.ema
        totals: dict[str, list[float]] = {}
        with self.telemetry.pause(at):
            for batch in self.program.validation():
                sums = jax.device_get(self.program.validate(params, batch))
                for name, (value, weight) in sums.items():
                    total = totals.setdefault(name, [0.0, 0.0])
                    total[0] += float(value)
                    total[1] += float(weight)
                self.telemetry.alive()
        return {f"validation_{k}": v / max(w, 1.0) for k, (v, w) in totals.items()}

    def watch(self, at: int, train_loss: float, validation: dict[str, float]) -> bool:
        """Notes the best validation loss, overfitting and lost patience; whether the
        step is to be saved."""
        loop, knobs, loss = self.loop, self.knobs, validation["validation_loss"]
        if not math.isfinite(loss):
            raise self.diverged(at, {"objective": loss, "grad_norm": math.nan})
        best = loop.best_validation_loss
        improved = best is None or loss < best
        if improved:
            loop.best_validation_loss, loop.best_step, loop.waited = loss, at, 0
        else:
            loop.waited += 1
        loop.validation_loss = loss
        warned = any(e["event"] == "overfitting" for e in loop.events)
        if loss - train_loss > knobs.overfit_gap and not improved and not warned:
            self.telemetry.event(
                at,
                "overfitting",
                f"overfitting: validation loss {loss:.3f} is {loss - train_loss:.3f} "
                f"above the training loss {train_loss:.3f} and no longer falls; want "
                "more data, fewer epochs, dropout or train.patience",
            )
        if knobs.patience and loop.waited >= knobs.patience:
            loop.stopped_early = True
            self.telemetry.event(
                at,
                "early stop",
                f"stopped early: {loop.waited} validations without a loss below "
                f"{loop.best_validation_loss:.4f} (step {loop.best_step})",
            )
        return loop.stopped_early or (improved and self.checkpoints.keeps_best)

    def save(self, at: int, state: State, loss: float | None, learned: bool) -> None:
        """Starts to write a checkpoint."""
        if learned:
            self.loop.saved = at
        else:
            self.telemetry.event(
                at, "warning",
                "the run ends with a spike: its last checkpoint may be of bad weights; "
                f"last good checkpoint: {self.last_good(at)}",
            )  # fmt: skip
        with self.telemetry.pause(at):
            self.checkpoints.save(self.whole(state), self.loop, loss)

    def whole(self, state: State) -> State:
        """The state with the answers that are still to be learned from."""
        rollouts = self.program.rollouts
        return state._replace(rollouts=rollouts.kept) if rollouts else state

    def stop(self, at: int, signal: str) -> None:
        """Ends a run that was asked to stop, and is saved."""
        with self.telemetry.unwatched():
            self.checkpoints.close()
        self.telemetry.close()
        raise Preempted(at) if signal == "SIGTERM" else Interrupted(at)

    def diverged(self, at: int, metrics: dict[str, float], where: str = "") -> Diverged:
        """The error that ends a run which cannot continue."""
        with self.telemetry.unwatched():
            self.checkpoints.wait()
        hint = "" if where else "; train.find_nan=True says where it begins"
        if spikes.too_many(self.loop, at):
            many = f"more than {spikes.MOST} of {spikes.WINDOW} steps are left out"
            where, hint = f"{where}{'; ' * bool(where)}{many}", ""
        return Diverged(
            f"step {at}: loss {metrics['objective']} with gradient norm "
            f"{metrics['grad_norm']}; {where}{'; ' * bool(where)}"
            f"documents in the batch: {_shown(self.program.documents(at - 1))}; "
            f"last good checkpoint: {self.last_good(at)}; "
            "try a lower learning rate, longer warm-up or clipping"
            + (", or train.spike=skip" if self.knobs.spike == "off" else "")
            + hint
        )

    def last_good(self, at: int) -> str:
        """The last good checkpoint: older than what may have ruined the weights."""
        good, ruined = self.loop.saved, spikes.suspect(self.loop, at)
        if ruined and good >= ruined:
            self.checkpoints.wait()
            good = self.checkpoints.newest(ruined)
        return f"step {good}" if good > 0 else "none"


def _due(at: int, every: int) -> bool:
    return bool(every) and at % every == 0


def _shown(documents: list[str]) -> str:
    return ", ".join(documents[:8]) + (" ..." if len(documents) > 8 else "")
