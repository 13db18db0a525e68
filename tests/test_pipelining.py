"""One training, laid out in many ways: the same losses, and what each layout is for.

Dropout is on, rows hold documents of unequal lengths, and one mesh accumulates. Each
layout must have, in the compiled step, the communication that it exists for, and hold
on a device the fraction of the parameters that it promises.
"""

import functools
import re

import jax
import numpy as np
import optax
import pytest
import tiny

from llm import objectives, registry, sharding, tree
from llm.errors import InputError
from llm.nn import pipelining
from llm.nn.contract import with_head
from llm.precision import Policy
from llm.training import train_step

pytestmark = pytest.mark.long

STEPS, ROWS, T = 20, 16, 16
KNOBS = {
    "vocab_size": 64, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2,
    "head_dim": 8, "mlp": 64, "dropout": 0.1, "residual_scale": 1.0, "embed_scale": 1.0,
}  # fmt: skip
MOE = {"experts": 4, "top_k": 2, "capacity": 1.25, "balance": 0.0}


def batch(at):
    """Two to four documents a row, of other lengths in each, and some padding."""
    rng = np.random.default_rng(at)
    texts = []
    for _ in range(ROWS):
        cuts = np.sort(rng.choice(np.arange(1, T), rng.integers(1, 4), replace=False))
        sizes = np.diff(np.array([0, *cuts, T - rng.integers(0, 2)]))
        texts.append([rng.integers(0, 64, n).tolist() for n in sizes if n > 0])
    inputs = tiny.packed(texts, T)
    return {
        "tokens": inputs.tokens_BT,
        "targets": (inputs.tokens_BT * 5 + 1) % 64,
        "positions": inputs.positions_BT,
        "segments": inputs.segments_BT,
        "weights": (inputs.segments_BT > 0).astype(np.int32),
    }


def trained(model, axes, rules, devices, accumulate=1):
    """(losses, text of the compiled step, bytes of parameters on a device)."""
    mesh = sharding.make_mesh(axes, devices)
    policy = Policy("float32", "cpu", len(devices))
    more = MOE if model == "moe" else {}
    made = registry.module("models", model).make(policy=policy, **KNOBS, **more)
    objective = objectives.build({"name": "causal_lm"}, 64)
    init = functools.partial(tiny.init, made)
    tx = optax.sgd(0.1)
    abstract = train_step.abstract_state(init, tx, mesh, rules)
    knobs = train_step.Knobs(
        steps=STEPS, tokens_per_step=ROWS * T, accumulate=accumulate
    )
    step = train_step.build_step(with_head(made), objective, tx, knobs, policy)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    losses = []
    with sharding.laid_out(mesh, rules):
        state = train_step.init_state(init, tx, abstract, 0)
        at_once = sum(
            leaf.addressable_shards[0].data.nbytes
            for leaf in jax.tree.leaves(state.params)
        )
        compiled = (
            jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
            .lower(state, sharding.placed(batch(0), mesh))
            .compile()
        )
        for at in range(STEPS):
            state, metrics = compiled(state, sharding.placed(batch(at), mesh))
            losses.append(float(metrics["loss"]))
    return np.array(losses), compiled.as_text(), at_once


@functools.cache
def alone(model):
    """The losses of one device, and the bytes of all parameters."""
    losses, text, size = trained(model, (("data", 1),), "fsdp", jax.devices()[:1])
    assert not communication(text)
    assert losses[-1] < losses[0] - 0.2  # it learns, or nothing is compared
    return losses, size


def communication(text):
    kinds = (
        "all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all"
    )  # fmt: skip
    return {k for k in kinds if re.search(rf" {k}(?:-start)?\(", text)}


REDUCE = {"all-reduce"}
# model, mesh, rules, accumulate, communication, part of the parameters on a device
CASES = {
    "data": ("llama", (("data", 8),), "replicated", 1, REDUCE, 1.0),
    "fsdp": ("llama", (("fsdp", 8),), "fsdp", 1, {"all-gather"} | REDUCE, 1 / 8),
    "tensor": (
        "llama", (("data", 4), ("tensor", 2)), "tensor", 1,
        {"all-gather"} | REDUCE, 1 / 2,
    ),
    "context": (
        "llama", (("data", 2), ("context", 4)), "replicated", 1,
        {"collective-permute"} | REDUCE, 1.0,
    ),
    "expert": (
        "moe", (("data", 2), ("expert", 4)), "fsdp", 1, {"all-to-all"} | REDUCE, 1 / 8
    ),
    "pipeline": (
        "llama", (("stage", 2), ("data", 4)), "replicated", 1,
        {"collective-permute"} | REDUCE, 0.6,
    ),
    "mixed": (
        "llama", (("stage", 2), ("context", 2), ("tensor", 2)), "fsdp", 2,
        {"collective-permute", "all-gather"} | REDUCE, 1 / 6,
    ),
    "hybrid": (
        "llama", (("data", 2), ("fsdp", 2), ("tensor", 2)), "hybrid", 2,
        {"all-gather"} | REDUCE, 1 / 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_layout_trains_the_same(devices, case):
    model, axes, rules, accumulate, wanted, part = CASES[case]
    losses, whole = alone(model)
    got, text, size = trained(model, axes, rules, devices, accumulate)
    np.testing.assert_allclose(got, losses, rtol=2e-5)
    assert wanted <= communication(text)
    # Scales of norms, which no axis cuts, are 2 % of these small networks.
    assert size / whole <= part + 0.03
    assert part == 1.0 or size / whole < 0.7
    if case == "tensor":
        # Norms, too, are of half the length on each device of a pair.
        norms = rf"f32\[{ROWS // 4},(\d+),1\]\S* rsqrt\(.*(?:mlp|attention)_norm/"
        assert {int(length) for length in re.findall(norms, text)} == {T // 2}


def test_micro_batches():
    """As many as fill the stages, each of as many rows as there are batch devices."""
    table = {(16, 4, 2): 4, (16, 2, 2): 8, (64, 1, 2): 8, (6, 1, 2): 6, (3, 2, 4): 1}
    for (rows, batch_ways, stages), want in table.items():
        assert pipelining.micro_batches(rows, batch_ways, stages) == want


def test_layers_that_stages_do_not_divide():
    with pytest.raises(InputError, match="a multiple of 4 layers"):
        pipelining.check_stages(6, "scan", 4)
    with pytest.raises(InputError, match="scan or unroll"):
        pipelining.check_stages(8, "loop", 4)
    pipelining.check_stages(5, "loop", 1)


def test_parameters_are_those_of_one_device(devices):
    """A pipeline has the leaves of a scanned stack: a checkpoint moves between."""
    made = tiny.model()
    init = functools.partial(tiny.init, made)
    names = [
        tree.named_leaves(
            train_step.abstract_state(
                init, optax.sgd(1.0), sharding.make_mesh(axes, devices), "fsdp"
            ).params
        )
        for axes in ((("data", 8),), (("stage", 2), ("data", 4)))
    ]
    assert {n: x.shape for n, x in names[0].items()} == {
        n: x.shape for n, x in names[1].items()
    }
