"""Checkpoints with orbax: asynchronous, whole or not there, on any mesh.

`checkpoints/STEP/` holds `params`, `opt_state`, `ema` where there is one, and `loop`:
the step, what the training loop remembers, and a digest of the arrays, so that a
checkpoint that reads but is not what was written is noticed. Nothing is pickled.

Restoring takes the newest checkpoint; one that cannot be read is said, moved to
`unreadable/` and passed over for the one before. If none can be read we stop and leave
them where they are: starting over would write over a run.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from llm import distributed, files, tree
from llm.errors import InputError

FOLDER = "checkpoints"
_IN_FLIGHT = 1 << 27  # bytes that are read or written at once, if no array is larger
# What orbax, tensorstore and JSON raise for files that are not what they should be.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError, RuntimeError)


class State(NamedTuple):
    """What training changes.

    Attributes:
      ema: None where no average is kept.
      rollouts: answers of the model that are still learned from; None where there are
        none.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt_state: Any
    rollouts: Any = None


@dataclasses.dataclass
class LoopState:
    """What the training loop remembers; it is saved with every checkpoint.

    Attributes:
      seconds: in the loop, over all processes of the run; productive: of these, in
        steps that were learned from.
      events: what happened, {"step", "event", "message"} each.
      skipped: steps that are not learned from.
      recent: [step, loss, gradient norm] of the last steps that were learned from.
      saved: the newest checkpoint of a step that was learned from; 0 is none.
      best: [validation loss, step] of the best checkpoints.
      waited: validations since the best one.
      late: the process that the others waited for when it was last measured.
      collected: figures of the newest answers of the model, if it learns from these.
    """

    seconds: float = 0.0
    productive: float = 0.0
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped: list[int] = dataclasses.field(default_factory=list)
    recent: list[list[float]] = dataclasses.field(default_factory=list)
    saved: int = 0
    best: list[list[float]] = dataclasses.field(default_factory=list)
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    best_step: int | None = None
    waited: int = 0
    stopped_early: bool = False
    late: int | None = None
    collected: dict[str, float] = dataclasses.field(default_factory=dict)

    VERSION: ClassVar[int] = 1  # of the record; raise it with a field that matters

    def record(self) -> dict[str, Any]:
        """A copy in JSON's types."""
        return {**dataclasses.asdict(self), "version": self.VERSION}

    def go_back(self, then: "LoopState") -> None:
        """To an earlier state, but for what happened, what is skipped and the time."""
        for name, value in vars(then).items():
            if name not in ("events", "skipped", "seconds"):
                setattr(self, name, value)

    @classmethod
    def of(cls, record: dict[str, Any]) -> "LoopState":
        """From a record, of this version or an older one.

        Raises:
          InputError: a newer version wrote it.
          TypeError: it is damaged.
        """
        fields = dict(record)
        if fields.pop("version", 1) > cls.VERSION:
            raise InputError(
                got="a checkpoint that a newer version of this program wrote",
                want="one of this version or an older one",
                do="use the version that wrote it",
            )
        return cls(**fields)


class Checkpoints:
    """The checkpoints of a run; writes in the background.

    Args:
      like: arrays, or abstract ones, as those to be kept: the largest says how much
        memory is taken beside them.
      keep_last: how many of the newest to keep.
      keep_best: how many of those with the lowest validation loss to keep besides.
    """

    def __init__(
        self, workdir: str, like: Any, *, keep_last: int = 2, keep_best: int = 1
    ):
        self._root = epath.Path(workdir).absolute() / FOLDER
        self._keep_last, self._keep_best = max(keep_last, 1), keep_best
        self._manager = _manager(self._root, like)
        self._stay: set[int] | None = None  # not known before a save or restore

    @property
    def keeps_best(self) -> bool:
        """Whether a new best validation loss is worth a checkpoint of its own."""
        return self._keep_best > 0

    def save(
        self,
        state: State,
        loop: LoopState,
        loss: float | None,
        *,
        donated: bool = True,
    ) -> None:
        """Starts to write.

        Args:
          loss: the validation loss of this step, if there is one.
          donated: whether the arrays may change as soon as this returns.
        """
        step = int(state.step)
        self.wait()
        best = [tuple(entry) for entry in loop.best]
        if loss is not None:
            best = sorted({*best, (loss, step)})[: self._keep_best]
        loop.best = [list(entry) for entry in best]
        self._stay = _to_keep(loop)
        held = {k: v for k, v in state._asdict().items() if v is not None}
        del held["step"]
        digests = {name: digest(value) for name, value in held.items()}
        # A copy: orbax writes it while the loop continues and adds to its lists.
        record = {**loop.record(), "step": step, "digests": digests}
        if donated:
            held = jax.tree.map(_own, held)
        items = {k: ocp.args.StandardSave(v) for k, v in held.items()}
        with _writing(self._root):
            self._manager.save(
                step, args=ocp.args.Composite(loop=ocp.args.JsonSave(record), **items)
            )

    def restore(
        self, abstract: State, say: Any = print, *, before: int | None = None
    ) -> tuple[State, LoopState] | None:
        """The newest readable state and its loop; None where there is no checkpoint.

        Args:
          abstract: shapes, dtypes and shardings to restore to; the mesh may differ from
            the one that wrote.
          before: a step; the checkpoint must be older, and once it is read, those that
            are not are deleted.

        Raises:
          InputError: there are checkpoints and none can be read, or a newer version
            wrote the newest.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        bad = [] if before is None else [step for step in steps if step >= before]
        steps = steps[len(bad) :]
        for number, step in enumerate(steps):
            try:
                found = _read(self._manager, step, abstract)
            except InputError:  # whole, but a newer version wrote it
                raise
            except _UNREADABLE as error:
                say(f"checkpoint {step} cannot be read ({_reason(error)})")
                continue
            for broken in steps[:number]:
                self._set_aside(broken)
            for step in bad:
                self._manager.delete(step)
            self._stay = _to_keep(found[1])
            return found
        if steps:
            raise InputError(
                got=f"checkpoints {steps} in {self._root}, none readable",
                want="one that fits the config",
                do="restore one from a backup, or use another --workdir",
            )
        return None

    def newest(self, before: float = math.inf) -> int:
        """The step of the newest checkpoint, readable or not; -1 without one.

        Args:
          before: a step; only older ones count.
        """
        steps = (step for step in self._manager.all_steps() if step < before)
        return max(steps, default=-1)

    def _set_aside(self, step: int) -> None:
        aside = self._root.parent / "unreadable"
        aside.mkdir(parents=True, exist_ok=True)
        target, number = aside / str(step), 1
        while target.exists():
            target, number = aside / f"{step}.{number}", number + 1
        with distributed.first_goes_first(f"set aside {step}"):
            if distributed.first():
                (self._root / str(step)).rename(target)
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything is written, and deletes what need not be kept.

        Only then: a checkpoint goes when those that replace it are committed.

        Raises:
          InputError: the disk is full, or cannot be written.
        """
        with _writing(self._root):
            self._manager.wait_until_finished()
        if self._stay is None:
            return
        for step in sorted(self._manager.all_steps())[: -self._keep_last]:
            if step not in self._stay:
                self._manager.delete(step)

    def close(self) -> None:
        """Returns when everything is written; nothing can be saved after it."""
        self.wait()
        self._manager.close()


def restore_params(
    model_dir: str, abstract_params: Any, *, which: str = "best"
) -> tuple[Any, int]:
    """Parameters to use, and their step: the average where one was kept.

    Args:
      which: 'best' by validation loss where that is known, else 'last'.

    Raises:
      InputError: no checkpoint, or none that fits.
    """
    root = epath.Path(model_dir).absolute() / FOLDER
    manager = None
    if root.exists():
        manager = _manager(root, abstract_params, read_only=True)
    steps = manager.all_steps() if manager else []
    if not steps:
        raise InputError(
            got=f"{model_dir}, which has no checkpoint",
            want="the directory of a training run",
            do="train first, or correct the path",
        )
    newest = max(steps)
    try:
        loop = _loop(manager, newest)
        best = [step for _, step in loop.get("best", []) if step in steps]
        step = best[0] if best and which == "best" else newest
        item = "ema" if (root / str(step) / "ema").exists() else "params"
        _check_shapes(manager.item_metadata(step)[item], abstract_params, model_dir)
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract_params)})
        params = manager.restore(step, args=args)[item]
        _check_digest(params, _loop(manager, step)["digests"][item])
        return params, step
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            got=f"a checkpoint in {model_dir} that cannot be read ({_reason(error)})",
            want="a checkpoint of the model in its config.json",
        ) from error


def _to_keep(loop: LoopState) -> set[int]:
    """Checkpoints that stay, new or not: the best, and the last that is surely good."""
    return {step for _, step in loop.best} | {loop.saved}


def _check_shapes(written: Any, wanted: Any, model_dir: str) -> None:
    """Before anything is read: orbax leaves what it has begun to read behind."""
    held = {n: x.shape for n, x in tree.named_leaves(written.tree).items()}
    for name, leaf in tree.named_leaves(wanted).items():
        if name in held and held[name] != leaf.shape:
            raise InputError(
                got=f"{name} of {held[name]} in the checkpoint of {model_dir}, where "
                f"its config.json and tokenizer make {leaf.shape}",
                want="the tokenizer and the config that it was trained with",
            )


def digest(arrays: Any) -> str:
    """A checksum of all arrays: the same on every mesh, other for another bit."""
    # One program after the other: of many that wait for each other's devices, those of
    # one process may each hold what the next needs. Not all arrays in one: a CPU copies
    # what it reads as integers.
    sums = itertools.chain.from_iterable(
        map(int, _sums_of_words(some)) for some in _together(jax.tree.leaves(arrays))
    )
    total = sum((2 * number + 1) * x for number, x in enumerate(sums, start=1))
    return f"{total % 2**32:08x}"


def _check_digest(arrays: Any, written: str) -> None:
    found = digest(arrays)
    if found != written:
        raise ValueError(f"its digest is {found}, it was written as {written}")


def _together(leaves: list[Any]) -> Iterator[list[Any]]:
    """The arrays, as many at a time as `_IN_FLIGHT` holds, or one."""
    some, held = [], 0
    for leaf in leaves:
        if some and held + _bytes(leaf) > _IN_FLIGHT:
            yield some
            some, held = [], 0
        some.append(leaf)
        held += _bytes(leaf)
    if some:
        yield some


@jax.jit
def _sums_of_words(leaves):
    words = (
        jax.lax.bitcast_convert_type(x.astype(_word(x)), jnp.uint32) for x in leaves
    )
    return [jnp.sum(some, dtype=jnp.uint32) for some in words]


def _word(leaf):
    return jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.uint32


def _reason(error: Exception) -> str:
    """The first line of an error, which may be empty and may be long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _own(leaf: jax.Array) -> jax.Array:
    """A copy on a CPU, where the writer would read the memory that is donated next."""
    on_cpu = next(iter(leaf.devices())).platform == "cpu"
    return jnp.copy(leaf) if on_cpu else leaf


@contextlib.contextmanager
def _writing(path: epath.Path) -> Iterator[None]:
    """As `files.writing`, also for what tensorstore says of a disk."""
    with files.writing(path):
        try:
            yield
        except (ValueError, RuntimeError) as error:
            found = re.search(r"os_error_code='(\d+)'", str(error))
            if not found:
                raise
            number = int(found[1])
            raise OSError(number, os.strerror(number), os.fspath(path)) from error


def _manager(
    root: epath.Path, like: Any, read_only: bool = False
) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        create=not read_only, cleanup_tmp_directories=not read_only, read_only=read_only
    )
    # Orbax refuses an array that is not smaller than what may be in flight.
    largest = max((_bytes(leaf) for leaf in jax.tree.leaves(like)), default=0)
    share = max(_IN_FLIGHT, largest + largest // 8) / 1e9
    handlers = {
        name: ocp.StandardCheckpointHandler(
            save_concurrent_gb=share, restore_concurrent_gb=share
        )
        for name in ("params", "ema", "opt_state", "rollouts")
    }
    handlers["loop"] = ocp.JsonCheckpointHandler()
    return ocp.CheckpointManager(root, options=options, item_handlers=handlers)


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize


def _loop(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    args = ocp.args.Composite(loop=ocp.args.JsonRestore())
    return dict(manager.restore(step, args=args)["loop"])


def _read(manager, step: int, abstract: State) -> tuple[State, LoopState]:
    wanted = abstract._asdict()
    del wanted["step"]
    items = {k: ocp.args.StandardRestore(v) for k, v in wanted.items() if v is not None}
    args = ocp.args.Composite(loop=ocp.args.JsonRestore(), **items)
    found = manager.restore(step, args=args)
    loop = dict(found["loop"])
    sharding = abstract.step.sharding
    state = State(
        step=jax.device_put(jnp.int32(loop.pop("step")), sharding),
        params=found["params"],
        ema=found["ema"] if abstract.ema is not None else None,
        opt_state=found["opt_state"],
        rollouts=found["rollouts"] if abstract.rollouts is not None else None,
    )
    digests = loop.pop("digests")
    for name in items:
        _check_digest(found[name], digests[name])
    return state, LoopState.of(loop)
