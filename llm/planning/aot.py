"""The real training step, compiled for a pod that is not here, and what it costs.

The TPU compiler runs on any machine. It lays the step of a config out on the named
topology as it would there, or says by how much memory it fails to; from the program we
read bytes, cycles and what goes between chips (`llm/planning/hlo.py`).

The step time is an estimate: the compiler's cycles plus those of attention's kernels at
peak or at the memory's full speed, whichever is longer, against what the chips' links
take for the collectives at theirs. Which of them overlap is not known before it runs:
`step_s` is the longer of the two, `serial_s` their sum.
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from llm import models, registry, sharding
from llm.errors import InputError
from llm.nn.attention import kernel
from llm.planning import compiler_options, flops, hlo
from llm.planning.topology import Pod
from llm.precision import Policy
from llm.training import live_memory, train_step
from llm.training.assembly import assemble

# Of one chip to another slice, bytes a second: 25 Gbit/s, half of a v5e host's share.
BETWEEN_SLICES = 3.1e9


def placed(c: ConfigDict, pod: Pod, rows: int = 0) -> ConfigDict:
    """A config with its batch brought to the pod.

    Args:
      rows: of a micro-batch on a device; the batch is then one such. 0 keeps the batch
        of the config, in as many of its micro-batches as the devices divide.

    Raises:
      InputError: the devices do not divide the batch.
    """
    c = ConfigDict(c.to_dict())
    ways = sharding.batch_ways(pod.mesh(c.mesh))
    if rows:
        c.train.update(batch_size=rows * ways, accumulate=1)
    elif c.train.batch_size % ways:
        raise InputError(
            got=f"train.batch_size {c.train.batch_size} on {ways} batch devices",
            want=f"a multiple of {ways}",
            do="set --config.plan.rows, the sequences of a device",
        )
    else:
        each = c.train.batch_size // ways
        c.train.accumulate = math.gcd(each, max(c.train.accumulate, 1))
    return c


def compiled(c: ConfigDict, pod: Pod) -> dict[str, Any]:
    """What the compiler says of a step of the config on the pod, as plain values."""
    mesh = pod.mesh(c.mesh)
    policy = Policy(
        c.train.dtype,
        "tpu",
        len(pod.devices),
        pod.kind,
        c.train.products,
        c.train.attention,
    )
    network = models.build(c.model, c.objective, policy, c.tokenizer.vocab_size)
    whole = assemble(c, network, policy, mesh, steps=1000)
    cfg, state, batch = network.model.cfg, whole.state, whole.batch
    knobs = train_step.Knobs(
        steps=1000, tokens_per_step=0, accumulate=c.train.accumulate,
        clip_norm=c.optimizer.clip_norm, ema=c.train.ema,
    )  # fmt: skip
    options = compiler_options.options(policy, pod.devices[0])
    step = whole.jit_step(knobs, options)
    began = time.monotonic()
    found = {
        "topology": pod.name,
        "devices": len(pod.devices),
        "mesh": [list(axis) for axis in mesh.shape.items()],
        "rows_per_device": c.train.batch_size
        // (sharding.batch_ways(mesh) * c.train.accumulate),
        "accumulate": c.train.accumulate,
        "remat": c.model.get("remat", "none"),
        "products": c.train.products,
        "attention": kernel(
            policy, whole.shapes["tokens"].shape[0], cfg.head_dim, cfg.windows,
            mesh.shape.get("context", 1),
        ),
        "compiler_options": options,
        "left_out": compiler_options.left_out(policy, options),
    }  # fmt: skip
    with sharding.laid_out(mesh, c.rules):
        traced = step.trace(state, batch, *whole.abstract_frozen())
        lowered = traced.lower()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        arguments = live_memory.device_bytes((state, batch))
        arrays = [x._asdict() for x in live_memory.largest(traced.jaxpr)]
        return found | _too_large(str(error), arguments, pod) | {"largest": arrays}
    found["compile_seconds"] = time.monotonic() - began
    found |= _memory(program.memory_analysis(), pod)
    tokens = c.train.batch_size * c.train.seq_len
    kind = registry.module("models", c.model.name).KIND
    row = flops.flops_of_rows(cfg, whole.parts.whole, kind, whole.shapes)
    per_token = flops.TRAINING * row
    found["model_flops_per_device"] = per_token * c.train.batch_size / len(pod.devices)
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError:
        return found | {"cycles": None, "why": "its compiler shows no program"}
    return found | _costs(hlo.read(text), found, mesh, pod, tokens)


def search(
    c: ConfigDict,
    pod: Pod,
    *,
    remats: Sequence[str],
    meshes: Sequence[tuple],
    known: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Compiles every mesh and rematerialisation with 1, 2, 4 ... rows.

    What does not fit with some rows does not with more, and what is not by a hundredth
    faster than with half of them gets no faster, so either ends the climb. A plan
    without a step time, or that does not fit, is given too, as a try.

    Args:
      known: tries of an earlier search of the same, which are not compiled again.
    """
    held = {(str(x["mesh"]), x["remat"], x["rows_per_device"]): x for x in known}
    for mesh in meshes:
        for remat in remats:
            rows, speed = 1, 0.0
            while True:
                tried = ConfigDict(c.to_dict())
                tried.mesh, tried.model.remat = mesh, remat
                whole = [list(axis) for axis in pod.mesh(mesh).shape.items()]
                found = held.get((str(whole), remat, rows))
                found = found or compiled(placed(tried, pod, rows), pod)
                yield found
                if not found["fits"] or found.get("tokens_per_s", 0.0) < 1.01 * speed:
                    break
                rows, speed = 2 * rows, found.get("tokens_per_s", 0.0)


def best(tries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The plan that fits with the most tokens a second; None where none does."""
    fitting = [x for x in tries if x["fits"] and x.get("tokens_per_s")]
    return max(fitting, key=lambda x: x["tokens_per_s"], default=None)


def _memory(analysis: Any, pod: Pod) -> dict[str, Any]:
    own = pod.chip.hbm_bytes / pod.chip.devices
    argument, temporary = (
        analysis.argument_size_in_bytes, analysis.temp_size_in_bytes,
    )  # fmt: skip
    result = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    peak = analysis.peak_memory_in_bytes
    total = max(argument + temporary + result, peak)
    return {
        "argument_bytes": argument,
        "temporary_bytes": temporary,
        "peak_bytes": peak,
        "total_bytes": total,
        "hbm_bytes": own,
        "spare_bytes": own - total,
        "fits": total <= own,
    }


def _too_large(message: str, arguments: int, pod: Pod) -> dict[str, Any]:
    """What the compiler says where a program does not fit.

    It tells by how much, or, before it has placed anything, what the temporaries alone
    would need: `arguments` then come on top.
    """
    scale = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

    def bytes_of(pattern: str) -> float | None:
        said = re.search(pattern.replace("SIZE", r"([\d.]+)([KMGT])"), message)
        return float(said[1]) * scale[said[2]] if said else None

    own = pod.chip.hbm_bytes / pod.chip.devices
    lacking = bytes_of(r"[Ee]xceeded \w+ capacity by SIZE")
    temporary = bytes_of(r"required for HLO temporaries \(SIZE\)")
    if lacking is None and temporary is not None:
        available = bytes_of(r"exceeds available HBM \(SIZE\)") or own
        lacking = temporary + arguments - available
    return {
        "fits": False,
        "hbm_bytes": own,
        "spare_bytes": -lacking if lacking is not None else None,
        "why": message.splitlines()[0][:200],
    }


def _costs(program: hlo.Program, found, mesh, pod: Pod, tokens: int) -> dict[str, Any]:
    chip = pod.chip
    peak = chip.peak_flops / chip.devices
    bandwidth = chip.hbm_bandwidth / chip.devices
    attention = [k for k in program.kernels if k.attention]
    others = [k for k in program.kernels if not k.attention]
    in_kernels = hlo.kernel_cycles(others, peak, bandwidth, chip.clock)
    in_attention = hlo.kernel_cycles(attention, peak, bandwidth, chip.clock)
    cycles = program.cycles + in_kernels
    compute = (cycles + in_attention) / chip.clock
    sent = _sent(program.collectives, mesh, pod)
    linked = sum(x["seconds"] for x in sent)
    step = max(compute, linked)
    return {
        "cycles": cycles,
        "product_cycles": program.products,
        "attention_cycles": in_attention,
        "total_cycles": cycles + in_attention,
        "ideal_cycles": found["model_flops_per_device"] / peak * chip.clock,
        "kernels": [k._asdict() for k in program.kernels],
        "collectives": sent,
        "compute_s": compute,
        "collective_s": linked,
        "step_s": step,
        "serial_s": compute + linked,
        "tokens_per_s": tokens / step,
        "mfu": found["model_flops_per_device"] / step / peak,
    }


def _sent(found: list[hlo.Collective], mesh, pod: Pod) -> list[dict[str, Any]]:
    """Collectives by kind and mesh axis, and what the links take for them."""
    own = pod.chip.ici_bandwidth / pod.chip.devices
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for x in found:
        axis, across = _along(x.devices, mesh)
        # A ring sends what is reduced twice: as parts, then as sums.
        payload = x.bytes * (2 if x.kind == "all-reduce" else 1)
        nothing = {"kind": x.kind, "axis": axis, "bytes": 0, "count": 0, "seconds": 0}
        held = sums.setdefault((x.kind, axis), nothing)
        held["bytes"] += x.bytes
        held["count"] += x.count
        held["seconds"] += payload / (BETWEEN_SLICES if across else own)
    return list(sums.values())


def _along(devices: Sequence[int], mesh) -> tuple[str, bool]:
    """(the mesh axes that devices differ in, whether they are of several slices)."""
    devices = devices or range(mesh.size)
    places = np.unravel_index(list(devices), tuple(mesh.shape.values()))
    names = [
        name
        for name, place in zip(mesh.shape, places, strict=True)
        if len(set(place.tolist())) > 1
    ]
    flat = mesh.devices.reshape(-1)
    slices = {getattr(flat[n], "slice_index", 0) for n in devices}
    large = [name for name, size in mesh.shape.items() if size > 1]
    whole = len(names) > 1 and names == large
    return "all" if whole else ", ".join(names) or "none", len(slices) > 1
