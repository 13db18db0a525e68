"""Parameters, FLOPs, memory, hours and money of a config, before a cent is spent.

Prints a table and writes plan.json; needs no accelerator, no data and no memory to
speak of. Works on any training config, also by `--config.workload=plan`.
"""

import functools
import json
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import files, models, registry, sharding, tree, units
from llm.errors import InputError
from llm.knobs import Amount, Count, Positive, ShareAbove0, section
from llm.nn.contract import with_head
from llm.planning import aot, budget, flops, topology
from llm.precision import Policy
from llm.sweeps.scaling_law import CHINCHILLA
from llm.training import live_memory
from llm.training.assembly import Assembly, assemble


@section("plan")
class Plan:
    """What a run needs."""

    # Chip to plan for (a name of llm/planning/flops.py), how many, and dollars per
    # chip-hour; 0 is the chip's list price (llm/planning/flops.py).
    accelerator: Literal[tuple(flops.CHIPS)] = "v5e"
    chips: Positive = 8
    price: Amount = 0.0
    # Share of peak FLOP/s to expect.
    mfu: ShareAbove0 = 0.4
    # A pod to compile the step for, such as v5e:16x16 or 2xv5e:16x16, instead of
    # accelerator and chips; and sequences of a device at once, 0 is train.batch_size.
    topology: str = ""
    rows: Count = 0
    # Whether to look for the best rows, model.remat and mesh: every one of these names,
    # and every one of these meshes.
    search: bool = False
    search_remat: tuple[str, ...] = ("selective", "minimal", "full")
    search_mesh: tuple = ((("fsdp", -1),), (("fsdp", -1), ("tensor", 2)))


SECTIONS = (Plan,)
SECTIONS_OF = ("train",)


def run(c: ConfigDict, workdir: str) -> None:
    """Writes plan.json into `workdir` and prints it as a table."""
    _check(c)
    if c.plan.topology:
        pod = topology.find(c.plan.topology)
        tries = _tries(c, pod, epath.Path(workdir)) if c.plan.search else []
        c = _on(c, pod, aot.best(tries))
    result = make_plan(c, corpus_dir=c.data.corpus_dir or workdir)
    if c.plan.topology:
        found = aot.best(tries) or aot.compiled(c, pod)
        result |= _compiled(result, found, tries)
    print(table(result))
    path = epath.Path(workdir) / "plan.json"
    files.write_text(path, json.dumps(result, indent=1) + "\n")


def _on(c: ConfigDict, pod: topology.Pod, best: dict[str, Any] | None) -> ConfigDict:
    """The config on a pod, with what a search found best."""
    c = ConfigDict(c.to_dict())
    c.plan.update(accelerator=pod.accelerator, chips=pod.chips)
    if best:
        c.mesh, c.model.remat = tuple(map(tuple, best["mesh"])), best["remat"]
        c.plan.rows = best["rows_per_device"]
    elif pod.slices > 1 and "data" not in dict(c.mesh):
        c.mesh = (("data", pod.slices), *c.mesh)
    return aot.placed(c, pod, c.plan.rows)


def _check(c: ConfigDict) -> None:
    """Raises InputError for what no plan is made of, before minutes of compiling."""
    p = c.plan
    if not p.topology and (p.rows or p.search):
        raise InputError(
            got=f"plan.rows={p.rows}, plan.search={p.search} without plan.topology",
            want="a topology, such as v5e:16x16, for which the step is compiled",
        )
    if p.search and p.rows:
        raise InputError(
            got=f"plan.rows={p.rows} with plan.search",
            want="one of them, as both choose rows",
        )


def _tries(c: ConfigDict, pod: topology.Pod, workdir) -> list[dict[str, Any]]:
    """All plans of a search, each printed and kept as soon as it is known."""
    path = workdir / "plan_tries.json"
    asked = json.loads(json.dumps({"config": c.to_dict(), "jax": jax.__version__}))
    held = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known = held["tries"] if held.get("asked") == asked else []
    found = []
    for x in aot.search(
        c, pod, remats=c.plan.search_remat, meshes=c.plan.search_mesh, known=known
    ):  # fmt: skip
        found.append(x)
        if x not in known:
            kept = {"asked": asked, "tries": [*known, x]}
            known = kept["tries"]
            files.write_text(path, json.dumps(kept, indent=1) + "\n")
        mesh = " x ".join(f"{name} {size}" for name, size in x["mesh"])
        speed = x.get("tokens_per_s")
        result = f"{units.count(speed)} tok/s" if speed else "does not fit"
        rows = x["rows_per_device"]
        print(f"{mesh}, remat {x['remat']}, {rows} rows: {result}", flush=True)
    return found


def _compiled(result: dict[str, Any], found: dict[str, Any], tries: list):
    """What the compiler adds to a plan, hours and money by its step time included."""
    added = {"compiled": found, "fits": found["fits"], "tries": tries}
    if found.get("step_s") and result["tokens"]:
        a = result["accelerator"]
        hours = result["tokens"] / found["tokens_per_s"] / 3600
        added["compiled_cost"] = {
            "hours": hours,
            "dollars": budget.dollars(hours * a["chips"], a["dollars_per_chip_hour"]),
        }
    return added


def make_plan(c: ConfigDict, corpus_dir: str = "") -> dict[str, Any]:
    """What the config needs, as plain values: the content of plan.json."""
    _check(c)
    name, chips = c.plan.accelerator, c.plan.chips
    chip = flops.CHIPS[name]
    price = c.plan.price or chip.price
    platform = "tpu" if chip.kinds.startswith("tpu") else "gpu"
    # cuDNN's kernel cannot be traced without a GPU: products in the open take more.
    policy = Policy(
        c.train.dtype, platform, products=c.train.products,
        attention="xla" if platform == "gpu" else "auto",
    )  # fmt: skip
    network = models.build(c.model, c.objective, policy, c.tokenizer.vocab_size)
    mesh = budget.planned_mesh(c.mesh, chips * chip.devices)
    # A plan is of a full training, whatever the adapter.
    plain = ConfigDict(c.to_dict() | {"adapter": registry.spec("adapters", "full")})
    whole = assemble(plain, network, policy, mesh, steps=1000)
    model, state, shapes = network.model, whole.state, whole.shapes
    need = _memory(whole)

    seq_len = c.train.seq_len
    kind = registry.module("models", c.model.name).KIND
    counted = functools.partial(
        flops.flops_of_rows, model.cfg, state.params, kind, shapes
    )
    per_token = flops.TRAINING * counted() / seq_len
    full = flops.TRAINING * counted(full=True) / seq_len
    context = shapes["tokens"].shape[0]
    parameters = tree.count(state.params)
    costs = functools.partial(
        budget.cost, flops_per_token=per_token, chip=chip, chips=chips, mfu=c.plan.mfu,
        price=price,
    )  # fmt: skip
    tokens = _tokens(c, corpus_dir)
    fitted = CHINCHILLA.tokens(parameters)
    result = {
        "model": c.model.name,
        "parameters": parameters,
        "matmul_parameters": flops.matmul_params(state.params, top_k=model.cfg.top_k),
        "train_flops_per_token": per_token,
        "train_flops_per_token_full_attention": full,
        "decode_context": context,
        "decode_flops_per_token": flops.next_token_flops(
            model.cfg, state.params, kind, context=context,
            source_length=flops.source_length(kind, shapes),
        ),
        "mesh": [list(axis) for axis in mesh.shape.items()],
        "rules": c.rules,
        "remat": c.model.get("remat", "none"),
        "optimizer": c.optimizer.name,
        "rows_per_device": _rows(c, mesh),
        "seq_len": seq_len,
        "accelerator": {
            "name": name, "chips": chips, "devices_per_chip": chip.devices,
            "dollars_per_chip_hour": price, "expected_mfu": c.plan.mfu,
            "peak_flops": chip.peak_flops, "hbm_bytes": chip.hbm_bytes,
            "source": chip.source,
        },
        "memory_per_device": {**need._asdict(), "total": sum(need)},
        "fits": budget.spare_bytes(need, chip) >= 0,
        "spare_bytes": budget.spare_bytes(need, chip),
        "verdict": budget.verdict(need, chip),
        "tokens": tokens,
        "compute_optimal": {
            "tokens_at_20_per_parameter": budget.TOKENS_PER_PARAMETER * parameters,
            "tokens_by_parametric_fit": fitted,
        },
        "cost": costs(tokens)._asdict() if tokens else None,
        "cost_compute_optimal": costs(fitted)._asdict(),
    }  # fmt: skip
    if tokens:
        # The size that would make the most of the same number of FLOPs.
        best = CHINCHILLA.parameters(6 * parameters * tokens)
        result["compute_optimal"] |= {
            "parameters_for_this_compute": best,
            "loss_by_parametric_fit": CHINCHILLA.loss(parameters, tokens),
        }
    return result


def _memory(whole: Assembly) -> Any:
    """Memory of a step, as the trainer would take it."""
    c, mesh, policy, state = whole.c, whole.mesh, whole.policy, whole.state
    model, objective, _ = whole.network
    apply = with_head(model)
    rows = _rows(c, mesh)
    batch = {
        name: jax.ShapeDtypeStruct((rows, *row.shape), row.dtype)
        for name, row in whole.shapes.items()
    }
    batch["index"] = jax.ShapeDtypeStruct((rows,), np.int32)

    def loss(params, batch):
        rngs = {"dropout": jax.random.key(0)}
        return objective.loss(apply, params, batch, rngs=rngs, policy=policy)[0]

    return budget.step_memory(
        state.params, state.opt_state, batch, loss=loss, update=whole.tx.update,
        accumulate=c.train.accumulate, ema=c.train.ema > 0,
        tensor_ways=1 if c.rules == "replicated" else mesh.shape.get("tensor", 1),
    )  # fmt: skip


def _rows(c: ConfigDict, mesh: Any) -> int:
    """Rows of a micro-batch on one device."""
    ways = sharding.batch_ways(mesh) * max(c.train.accumulate, 1)
    if c.train.accumulate < 1 or c.train.batch_size % ways:
        raise InputError(
            got=f"train.batch_size {c.train.batch_size} in {c.train.accumulate} "
            f"micro-batches on {sharding.batch_ways(mesh)} batch devices",
            want=f"a multiple of {ways}",
            do="set --config.plan.chips, train.batch_size or train.accumulate",
        )
    return c.train.batch_size // ways


def _tokens(c: ConfigDict, corpus_dir: str) -> float | None:
    """Tokens of the run; None where it counts epochs of a corpus not yet prepared."""
    t = c.train
    if t.epochs:
        path = epath.Path(corpus_dir) / "train_tokenizer.json"
        if not path.exists():
            return None
        return t.epochs * json.loads(path.read_text("utf-8"))["tokens"]["train"]
    return t.tokens or t.steps * t.batch_size * t.seq_len or None


def table(p: dict[str, Any]) -> str:
    """A plan as a person reads it."""
    a, need, best = p["accelerator"], p["memory_per_device"], p["compute_optimal"]
    mesh = " x ".join(f"{name} {size}" for name, size in p["mesh"])
    rows_each = p["rows_per_device"]
    cost, optimal = p["cost"], p["cost_compute_optimal"]
    devices = "chip" if a["devices_per_chip"] == 1 else "device (half a chip)"
    rows = [
        ("Model", None),
        ("parameters", f"{units.count(p['parameters'])} ({p['parameters']:,})"),
        ("of these in products", units.count(p["matmul_parameters"])),
        ("training FLOPs a token", units.quantity(p["train_flops_per_token"], "FLOP")),
        (
            "  attention counted in full",
            units.quantity(p["train_flops_per_token_full_attention"], "FLOP"),
        ),
        *_decode_rows(p),
        (f"Memory of a {devices}, {rows_each} x {p['seq_len']} tokens", None),
        *((kind, units.size(need[kind])) for kind in budget.Memory._fields),
        ("total", units.size(need["total"])),
        (f"{a['name']} ({units.size(a['hbm_bytes'])} a chip)", p["verdict"]),
        ("layout", f"{mesh}, rules {p['rules']}, remat {p['remat']}"),
        (f"Training on {a['chips']} x {a['name']}", None),
        ("expected MFU", f"{a['expected_mfu']:.0%}"),
        ("speed", f"{units.count(optimal['tokens_per_s'])} tok/s"),
        *_cost_rows("this config", p["tokens"], cost, a),
        *_cost_rows(
            "compute-optimal, parametric fit",
            best["tokens_by_parametric_fit"], optimal, a,
        ),
        (
            "compute-optimal, 20 a parameter",
            f"{units.count(best['tokens_at_20_per_parameter'])} tokens",
        ),
    ]  # fmt: skip
    if "parameters_for_this_compute" in best:
        size = units.count(best["parameters_for_this_compute"])
        rows.append(("best size for this compute", f"{size} parameters"))
        loss = best["loss_by_parametric_fit"]
        rows.append(("loss on the fit's own data", f"{loss:.2f} nats a token"))
    if "compiled" in p:
        rows += _compiled_rows(p)
    lines = []
    for label, value in rows:
        lines.append(f"  {label:<36} {value}" if value is not None else f"\n{label}")
    return "\n".join(lines).lstrip("\n")


def _compiled_rows(p: dict[str, Any]):
    """What the compiler says, for `table`."""
    x, size, count = p["compiled"], units.size, units.count
    yield f"Compiled for {x['topology']}, {x['rows_per_device']} rows a device", None
    yield "attention", x["attention"]
    yield "remat", x["remat"]
    yield "compiler options", " ".join(x["compiler_options"]) or "none"
    if x["left_out"]:
        yield "unknown to it, left out", " ".join(x["left_out"])
    if "peak_bytes" in x:
        yield "arguments", size(x["argument_bytes"])
        yield "temporaries", size(x["temporary_bytes"])
        yield "peak", size(x["peak_bytes"])
    if x["fits"]:
        left = f"{size(x['spare_bytes'])} of {size(x['hbm_bytes'])} to spare"
        yield "memory", f"fits, with {left}"
    else:
        by = f"about {size(-x['spare_bytes'])}" if x["spare_bytes"] else "some"
        yield "memory", f"does not fit: {by} more than {size(x['hbm_bytes'])}"
        for n, array in enumerate(x.get("largest", ())[:5]):
            name = "largest arrays of all devices" if n == 0 else ""
            yield name, str(live_memory.Array(**array))
    if not x.get("cycles"):
        yield "the compiler says", x.get("why", "nothing")
        return
    yield (
        "cycles of a step",
        f"{count(x['total_cycles'])}, {count(x['cycles'])} less attention",
    )
    yield "  around products", count(x["product_cycles"])
    yield "  of products at peak", count(x["ideal_cycles"])
    for s in x["collectives"]:
        yield (
            f"{s['kind']} along {s['axis']}",
            f"{size(s['bytes'])}, {1e3 * s['seconds']:.1f} ms",
        )
    yield (
        "step",
        (f"{1e3 * x['step_s']:.0f} ms, {1e3 * x['serial_s']:.0f} if nothing overlaps"),
    )
    yield "speed", f"{count(x['tokens_per_s'])} tok/s, {x['mfu']:.1%} MFU"
    if "compiled_cost" in p:
        cost, a = p["compiled_cost"], p["accelerator"]
        yield "this config", _cost(p["tokens"], cost, a)


def _decode_rows(p: dict[str, Any]):
    if p["decode_flops_per_token"] is not None:  # else it only encodes
        yield (
            f"decoding, {p['decode_context']} tokens of context",
            units.quantity(p["decode_flops_per_token"], "FLOP"),
        )


def _cost_rows(label: str, tokens: float | None, cost: dict | None, a: dict):
    if not tokens or not cost:
        yield label, "epochs of a corpus that is not prepared yet: tokens unknown"
        return
    yield label, _cost(tokens, cost, a)


def _cost(tokens: float, cost: dict, a: dict) -> str:
    time = f"{units.count(tokens)} tokens, {units.duration(cost['hours'] * 3600)}"
    if cost["dollars"] is None:
        return f"{time}; no list price, see plan.price"
    dollars = f"${cost['dollars']:,.2f}" if cost["dollars"] >= 0.01 else "under $0.01"
    return f"{time}, {dollars} at ${a['dollars_per_chip_hour']:.2f} a chip-hour"
