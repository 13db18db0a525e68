"""Pretraining: tokens in, checkpoints, metrics and train.json out.

Run the same command again after a kill and it goes on where the newest checkpoint is,
bit for bit on a CPU.
"""

import contextlib
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import (
    distributed,
    files,
    models,
    registry,
    run_dir,
    sharding,
    tree,
    units,
)
from llm.checkpoint import Checkpoints, LoopState, State
from llm.data import loader, mixture, tokens
from llm.errors import InputError
from llm.knobs import Amount, Count, Positive, ShareBelow1, section
from llm.nn.attention import KERNELS
from llm.nn.low_precision import PRODUCTS
from llm.planning import compiler_options, flops
from llm.precision import Policy
from llm.tokenizers import sentencepiece_tokenizer as tokenizers
from llm.training import (
    find_nan,
    init_state,
    optim,
    out_of_memory,
    preemption,
    preview,
    profiling,
    rollouts,
    spikes,
    train_checks,
    train_loop,
    train_step,
)
from llm.training.assembly import Assembly, assemble
from llm.training.goodput import Wall
from llm.training.local_checkpoint import LocalCheckpoints
from llm.training.metric_writer import Console, MetricWriter
from llm.training.telemetry import Telemetry
from llm.training.train_checks import attention_of, length
from llm.training.watchdog import Watchdog
from llm.workloads import claim


@section("")
class Run:
    """How a training runs, and what is looked at."""

    # First and last step to trace for XProf and Perfetto; () traces none.
    profile_steps: tuple[int, ...] = ()
    # Rows to print before a training, with what is learned of them in colour; it then
    # stops. 0 trains.
    preview: Count = 0
    # Mesh axes and sizes as pairs, -1 fills; and the rules that map logical axes on it.
    mesh: tuple = (("data", -1),)
    rules: Literal[tuple(sharding.PRESETS)] = "fsdp"


@section("train")
class Train:
    """The run."""

    # Length of the run: exactly one of these three is not 0. Epochs may be 1.5.
    steps: Count = 0
    tokens: Count = 0
    epochs: Amount = 0.0
    # Sequences in a global batch, and tokens in a sequence.
    batch_size: Positive = 32
    seq_len: Positive = 256
    # Micro-batches that make up one update.
    accumulate: Positive = 1
    # Compute dtype of matrix products: float32 or bfloat16. Parameters are float32.
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    # How activations and kernels are multiplied: dtype (the one above), int8 or fp8
    # (eight bits, scaled as they come; logits and attention keep the dtype).
    products: Literal[PRODUCTS] = "dtype"
    # What carries attention out: auto (splash on TPUs, else xla), xla, splash, or cudnn
    # (NVIDIA). One that is named and cannot run ends the run; auto says what it took.
    attention: Literal[KERNELS] = "auto"
    # Decay of the exponential moving average of parameters; 0 keeps none.
    ema: ShareBelow1 = 0.0
    # Steps between log lines, between validations and between checkpoints; 0 is never
    # (a run always validates and saves at its end).
    log_every: Count = 10
    validate_every: Count = 0
    checkpoint_every: Count = 0
    # Steps between checkpoints of each machine on its own disk, for runs on many hosts:
    # a crash that leaves the machines loses no more; 0 keeps none. And where they lie.
    local_every: Count = 0
    local_dir: str = ""
    # Sequences in a validation; 0 takes the whole split.
    validation_sequences: Count = 256
    # Checkpoints kept: the newest ones, and the best ones by validation loss.
    keep_last: Positive = 2
    keep_best: Count = 1
    # Validations without a better loss after which to stop; 0 never stops early.
    patience: Count = 0
    # Gap between validation and training loss, in nats a token, that raises a warning.
    overfit_gap: Amount = 0.5
    # What to do with a step whose loss or gradient is far off or not finite: off (end
    # if it is not finite), skip (do not learn from it), or rollback (go back to the
    # newest checkpoint, too, and then skip it).
    spike: Literal[spikes.POLICIES] = "off"
    # Say where numbers stop being finite, if they do: each step is then waited for.
    find_nan: bool = False
    # Metadata server that announces maintenance and preemption, upon which the run is
    # saved and ends with exit code 75: an address, auto (Google's, on TPUs), or none.
    notices: str = "auto"
    # End with exit code 76 if a step takes so many times the median; 0 waits for ever.
    watchdog: Amount = 50.0
    # And where there is no median, in the first steps, a validation or a checkpoint,
    # after so many seconds without a sign of life; 0 waits for ever.
    watchdog_longest: Amount = 7200.0
    # Also log to Weights & Biases (needs the wandb package).
    wandb: bool = False


SECTIONS = (
    init_state.Begin, Run, mixture.Wanted, optim.Optimizer, optim.Schedule,
    rollouts.Config, Train,
)  # fmt: skip
SECTIONS_OF = ("train_tokenizer",)


def run(c: ConfigDict, workdir: str) -> None:
    """Trains `c.model` on the tokens of the run directory until `c.train` says stop."""
    with contextlib.ExitStack() as stack:
        if distributed.first():
            lock = files.lock(workdir, "trains", name=".train.lock")
            stack.enter_context(lock)
        _run(c, workdir)


def _run(c: ConfigDict, workdir: str) -> None:
    devices, host = jax.devices(), jax.local_devices(backend="cpu")[0]
    distributed.check_shared(workdir)
    with distributed.first_goes_first("begin"):
        c, source = init_state.resolved(c, workdir, host)
        check(c)
        claim(c, workdir)
    wall = Wall(workdir, silent=not distributed.first())
    t = c.train
    mesh = sharding.make_mesh(c.mesh, devices)
    kind = devices[0].device_kind
    policy = Policy(
        t.dtype, devices[0].platform, len(devices), kind, t.products, t.attention
    )
    say = functools.partial(print, flush=True) if distributed.first() else _silent

    tokenizer, train_split, validation_split = _open_data(workdir)
    network = models.build(
        c.model, c.objective, policy, tokenizer.vocab_size, tokenizer
    )
    data = _batches(c, network.objective, train_split, mesh)
    if c.preview:
        if distributed.first():
            preview.show(_rows(c, data), tokenizer, c.preview)
        return
    steps = length(t, data.rows_per_epoch)
    profiling.check(tuple(c.profile_steps), steps)
    wanted = mixture.Wanted(**c.data.mixture)
    mixture.check(wanted)
    if wanted.by:
        data = data.mixed(wanted, steps)
    whole = assemble(c, network, policy, mesh, steps=steps)
    knobs = _knobs(whole, data, steps, devices)
    options = compiler_options.options(policy)
    labels = optim.groups(c.optimizer.name, whole.parts.axes, freeze=c.optimizer.freeze)
    groups = _groups(labels, whole.state.params)
    for line in _opening(whole, knobs, groups, options, data, len(train_split.ids)):
        say(line)

    checkpoints = Checkpoints(
        workdir, whole.saved, keep_last=t.keep_last, keep_best=t.keep_best
    )
    local = LocalCheckpoints(t.local_dir, workdir, say=say) if t.local_every else None
    state, loop, frozen = _begin(whole, workdir, source, host, checkpoints, local, say)
    held_out = _held_out(c, network.objective, validation_split, mesh)
    collector = _collector(whole, tokenizer, frozen, workdir)
    if collector:
        state = collector.resume(state, loop)
    step, program = _program(whole, knobs, options, frozen, data, held_out, collector)
    say("compiling the step; the first line of the log comes after it")
    silent = not distributed.first()
    with (
        _forgotten(workdir, wall),
        sharding.laid_out(mesh, c.rules),  # of which the trace is, too
        out_of_memory.told(
            workdir,
            whole.state,
            lambda: step.trace(whole.state, whole.batch, frozen, None).jaxpr,
        ),
        MetricWriter(
            workdir, resume_step=int(state.step), wandb=t.wandb,
            run_config=c.to_dict(), silent=silent,
        ) as writer,
        Console(steps, silent=silent) as console,
    ):  # fmt: skip
        telemetry = Telemetry(
            knobs, loop, int(state.step), writer=writer, console=console, wall=wall
        )
        state, loop = train_loop.fit(
            program, state, loop, knobs=knobs, checkpoints=checkpoints,
            telemetry=telemetry, local=local,
        )  # fmt: skip
    checkpoints.close()
    if local:
        local.remove()
    if distributed.first():
        _write_result(workdir, whole, state, loop, wall, knobs, groups,
                      mixed(data, steps))  # fmt: skip


def _batches(c: ConfigDict, objective: Any, split: Any, mesh: Any) -> loader.Batches:
    return loader.batches(
        split,
        seq_len=c.train.seq_len,
        batch_size=c.train.batch_size,
        seed=c.seed,
        features=objective.features,
        room=objective.room,
        unpaired=objective.unpaired,
        hosts=sharding.row_part(mesh),
        copies=objective.online.group if objective.online else 0,
    )


def _held_out(c: ConfigDict, objective: Any, split: Any, mesh: Any) -> Any:
    return loader.eval_batches(
        split,
        seq_len=c.train.seq_len,
        batch_size=c.train.batch_size // c.train.accumulate,
        features=objective.features,
        room=objective.room,
        unpaired=objective.unpaired,
        limit=c.train.validation_sequences,
        hosts=sharding.row_part(mesh),
        copies=1 if objective.online else 0,
    )


def _rows(c: ConfigDict, data: loader.Batches) -> Iterator[dict[str, np.ndarray]]:
    """Rows of the first batches, none of them twice."""
    batches = (data[step] for step in range(c.preview))
    rows = (
        {name: x[r] for name, x in batch.items()}
        for batch in batches
        for r in range(len(batch["tokens"]))
    )
    return itertools.islice(rows, data.rows_per_epoch)


def _knobs(
    whole: Assembly, data: loader.Batches, steps: int, devices: Any
) -> train_step.Knobs:
    c, t = whole.c, whole.c.train
    same = (
        "accumulate", "ema", "log_every", "validate_every", "checkpoint_every",
        "local_every", "patience", "spike", "watchdog", "watchdog_longest",
        "overfit_gap",
    )  # fmt: skip
    return train_step.Knobs(
        steps=steps,
        tokens_per_step=t.batch_size * t.seq_len,
        clip_norm=c.optimizer.clip_norm,
        seed=c.seed,
        notices=_metadata(t.notices, devices[0].platform),
        profile=tuple(c.profile_steps) or (0, 0),
        flops_per_token=_flops_per_token(whole),
        peak_flops=flops.peak_flops(devices) or 0.0,
        tokens_per_epoch=data.rows_per_epoch * t.seq_len,
        **{name: t[name] for name in same},
    )


def _begin(
    whole: Assembly, workdir: str, source: str, host: jax.Device,
    checkpoints: Checkpoints, local: LocalCheckpoints | None, say: Any,
) -> tuple[State, LoopState, train_step.Frozen]:  # fmt: skip
    """The newest checkpoint, or the weights to begin with; and what stays."""
    c, objective = whole.c, whole.network.objective
    with (
        Watchdog(
            workdir, times=c.train.watchdog, longest=c.train.watchdog_longest,
            process=jax.process_index(),
        ) as watchdog,
        watchdog.pause(),
    ):  # fmt: skip
        restored = None
        if local:
            restored = local.restore(whole.saved, after=checkpoints.newest())
            if restored:
                say("the checkpoints of the machines themselves are newer")
        restored = restored or checkpoints.restore(whole.saved, say=say)
        if restored:
            state, loop = restored
            say(f"resuming after step {int(state.step)}")
            frozen = init_state.restore(workdir, whole.parts, objective.reference)
            return state, loop, frozen
        given = init_state.weights(source, host)
        with (
            out_of_memory.told(workdir, whole.state),
            sharding.laid_out(whole.mesh, c.rules),
        ):
            state, frozen = init_state.first(
                whole.network.init, whole.adapter, whole.tx, whole.state, whole.parts,
                seed=c.seed, given=given, reference=objective.reference, say=say,
            )  # fmt: skip
        init_state.save(workdir, frozen)
        return state, LoopState(), frozen


def _collector(
    whole: Assembly, tokenizer: Any, frozen: train_step.Frozen, workdir: str
) -> rollouts.Rollouts | None:
    """What makes answers to learn from, where the objective does."""
    if not whole.network.objective.online:
        return None

    def show(at: int, answers: list[dict[str, Any]]) -> None:
        every = whole.c.train.log_every
        if answers and distributed.first() and (at == 1 or (every and at % every == 0)):
            run_dir.write(workdir, f"rollouts/{at}.json", {"answers": answers})

    return rollouts.build(whole, tokenizer, frozen.own, show)


def _program(whole, knobs, options, frozen, data, held_out, collector):
    """(the compiled step, what the loop runs)."""
    c, on_devices = whole.c, functools.partial(sharding.placed, mesh=whole.mesh)
    step, validate = whole.jit_step(knobs, options), whole.jit_validate()
    locate, peak = None, _peak_rate(c)
    if c.train.find_nan:
        model, objective, _ = whole.network
        found = find_nan.build_locate(
            model, objective, whole.policy, knobs, whole.adapter.join
        )
        locate = functools.partial(found, frozen=frozen)
    if collector:
        sources = {
            "batches": lambda start: data.iterate(collector.first_batch(start)),
            "validation": lambda: held_out,
            "validate": collector.validate,
            "rollouts": collector,
        }
    else:
        sources = {
            "batches": lambda start: map(on_devices, data.iterate(start)),
            "validation": lambda: map(on_devices, held_out),
            "validate": lambda params, batch: validate(params, batch, frozen),
        }
    program = train_loop.Program(
        step=lambda state, batch, bounds: step(state, batch, frozen, bounds),
        documents=data.document_ids,
        learning_rate=lambda at: peak * float(whole.factor(np.int32(at))),
        locate=locate,
        **sources,
    )
    return step, program


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be trained, before anything is read."""
    train_checks.check(c, jax.devices())


@contextlib.contextmanager
def _forgotten(workdir: str, wall: Wall) -> Iterator[None]:
    """What cannot begin, as memory is too small, leaves its data to another config.

    Not if there was another process: it may be at work, and be why there is no memory.
    """
    try:
        yield
    except InputError:
        if distributed.first() and wall.alone:
            run_dir.forget_beginning(workdir)
        raise


def mixed(data: loader.Batches, steps: int) -> dict[str, dict[str, float]]:
    """{name: its share of the run's rows, rows, and epochs}; {} without a mixture."""
    if not data.mixture:
        return {}
    rows, whole = data.mixture.rows[steps], steps * data.records_per_batch
    return {
        line.name: {
            "share": float(count / whole),
            "rows": int(count),
            "epochs": float(count / line.layout.rows_per_epoch),
        }
        for line, count in zip(data.lines, rows, strict=True)
    }


def _part(of: dict[str, float]) -> str:
    return f"{of['share']:.1%} of the rows, {of['epochs']:.2f} epochs"


def _metadata(notices: str, platform: str) -> str:
    """The address to ask for notices about this machine, or ''."""
    if notices == "auto":
        return preemption.GOOGLE if platform == "tpu" else ""
    return "" if notices == "none" else notices


def _silent(line: str) -> None:
    """What process 0 says for all."""


def _flops_per_token(whole: Assembly) -> float:
    """FLOPs of training, for each of the `seq_len` tokens that a row is made of.

    A pass forward, one back to the activations, and one to the weights, as far as these
    are trained; and one forward through the reference, where there is one.
    """
    model, objective, _ = whole.network
    params, trained_names = whole.parts.whole, whole.parts.axes
    kind = registry.module("models", whole.c.model.name).KIND
    row = flops.flops_of_rows(model.cfg, params, kind, whole.shapes)
    leaves = tree.named_leaves(params).items()
    trained = sum(tree.count(leaf) for name, leaf in leaves if name in trained_names)
    passes = flops.TRAINING - 1 + trained / tree.count(params) + objective.reference
    return passes * row / whole.c.train.seq_len


def _open_data(workdir: str):
    root = epath.Path(workdir)
    tokenizer = tokenizers.load(root / "tokenizer")
    opened = [
        tokens.open_split(root / "tokens", name, tokenizer.fingerprint)
        for name in ("train", "validation")
    ]
    return tokenizer, *opened


def _peak_rate(c: ConfigDict) -> float:
    """The learning rate that the log shows: Muon's own where Muon trains."""
    muon = c.optimizer.name == "muon"
    return c.optimizer.muon_learning_rate if muon else c.optimizer.learning_rate


def _groups(labels: dict[str, str], params: Any) -> list[dict[str, Any]]:
    leaves = tree.named_leaves(params)
    made = []
    for group in sorted(set(labels.values())):
        names = [name for name, label in labels.items() if label == group]
        parameters = tree.count([leaves[name] for name in names])
        made.append({"optimizer": group, "names": names, "leaves": len(names),
                     "parameters": parameters})  # fmt: skip
    return made


def _opening(
    whole: Assembly, knobs: train_step.Knobs, groups: list[dict[str, Any]],
    options: dict[str, str], data: loader.Batches, records: int,
) -> Iterator[str]:  # fmt: skip
    """What a run says before its first step."""
    c, mesh, policy, parts = whole.c, whole.mesh, whole.policy, whole.parts
    trained, every = tree.count(whole.state.params), tree.count(parts.whole)
    which = f", {units.count(trained)} of them trained" if parts.own != () else ""
    devices = mesh.devices.size
    products = policy.dtype if policy.products == "dtype" else policy.products
    kind = mesh.devices.flat[0].device_kind
    yield (
        f"{c.model.name}: {units.count(every)} parameters{which}, "
        f"{products} products on {devices} x {kind}, mesh {dict(mesh.shape)}, "
        f"rules {c.rules}, attention: {attention_of(c, policy, mesh)}"
    )
    for group in groups:
        names = group["names"]
        shown = ", ".join(names[:4]) + (
            f" and {len(names) - 4} more" if names[4:] else ""
        )
        yield f"{group['optimizer']}: {units.count(group['parameters'])} in {shown}"
    placed = jax.tree.map(lambda leaf: leaf.sharding, whole.state.params)
    uncut = sharding.left_whole(parts.axes, tree.named_leaves(placed), c.rules)
    if uncut:
        names = ", ".join(uncut)
        yield f"whole on every device, as the mesh does not divide them: {names}"
    tokens_in_all = knobs.steps * knobs.tokens_per_step
    yield (
        f"{knobs.steps} steps of {knobs.tokens_per_step} tokens: "
        f"{units.count(tokens_in_all)} tokens, "
        f"{tokens_in_all / knobs.tokens_per_epoch:.2f} epochs"
    )
    if options:
        yield f"compiler options: {compiler_options.shown(options)}"
    if unknown := compiler_options.left_out(policy, options):
        yield f"unknown to this compiler, left out: {', '.join(unknown)}"
    for name, of in mixed(data, knobs.steps).items():
        yield f"mixture: {name or 'none'}, {_part(of)}"
    if data.left_out:
        yield (
            f"{data.left_out} of {records} records ({data.left_out / records:.0%}) are "
            f"longer than train.seq_len {c.train.seq_len} and dropped"
        )


def _write_result(workdir, whole, state, loop, wall, knobs, groups, mixed) -> None:
    at = int(state.step)
    done = at * knobs.tokens_per_step
    logged = epath.Path(workdir) / "metrics.jsonl"
    records = map(json.loads, logged.read_text("utf-8").splitlines())
    rates = [r["tokens_per_s"] for r in records if r["tokens_per_s"]]
    rate = float(np.median(rates)) if rates else None
    flops_per_s = rate * knobs.flops_per_token if rate else None
    result = {
        "steps": at,
        "tokens": done,
        "epochs": done / knobs.tokens_per_epoch,
        "parameters": tree.count(whole.parts.whole),
        "trained_parameters": tree.count(state.params),
        "seconds": loop.seconds,
        "wall_seconds": wall.seconds,
        "down_seconds": wall.down,
        "goodput": wall.share(loop.productive),
        "validation_loss": loop.validation_loss,
        "best_validation_loss": loop.best_validation_loss,
        "best_step": loop.best_step,
        "stopped_early": loop.stopped_early,
        "tokens_per_s": rate,
        "mfu": flops_per_s / knobs.peak_flops if rate and knobs.peak_flops else None,
        "optimizer_groups": groups,
        "mixture": mixed,
        "events": loop.events,
    }
    run_dir.write(workdir, "train.json", result)
