"""Plans against formulas worked out by hand, and memory against XLA's own figures."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from llm import config, models, registry
from llm.errors import InputError
from llm.nn.contract import plain_inputs, with_head
from llm.planning import aot, budget, flops
from llm.precision import Policy
from llm.training import live_memory
from llm.workloads import plan as workload

GiB = 2**30
# Llama 3 8B, but for its norms of queries and keys.
V, D, L, N, K, H, F = 128_256, 4096, 32, 32, 8, 128, 14_336
LAYER = 2 * D * N * H + 2 * D * K * H + 3 * D * F
SMALL = L * (2 * D + 2 * H) + D


def eight_billion(**knobs):
    c = config.base()
    c.model = registry.spec(
        "models", "llama", layers=L, width=D, heads=N, kv_heads=K, head_dim=H, mlp=F,
        remat="full", **knobs,
    )  # fmt: skip
    c.tokenizer.vocab_size = V
    c.train.update(tokens=160_000_000_000, batch_size=256, seq_len=2048)
    c.optimizer.name = "adamw"
    c.plan.update(accelerator="v5e", chips=256, price=1.2, mfu=0.4)
    return c


def test_8b_does_not_fit_on_one_chip():
    c = eight_billion()
    c.plan.chips, c.train.batch_size = 1, 1
    p = workload.make_plan(c)
    parameters = 2 * V * D + L * LAYER + SMALL
    assert p["parameters"] == parameters
    assert p["matmul_parameters"] == V * D + L * LAYER
    need = p["memory_per_device"]
    assert need["parameters"] == need["gradients"] == 4 * parameters
    assert need["optimizer"] == pytest.approx(8 * parameters, rel=1e-6)
    # Full rematerialisation keeps the stream before each layer, in bfloat16; the loss
    # keeps the gradient of the output projection, in float32.
    kept = L * 2048 * D * 2 + 4 * V * D
    assert kept <= need["activations"] < 1.05 * kept
    assert need["total"] == sum(need[kind] for kind in budget.Memory._fields)
    assert not p["fits"]
    lacking = need["total"] - 0.95 * 16 * GiB
    assert p["spare_bytes"] == -lacking
    assert lacking > 100 * GiB
    assert f"does not fit: {lacking / GiB:.0f} GiB more than the 16 GiB" in p["verdict"]
    assert p["verdict"] in workload.table(p)


def test_8b_on_256_chips_by_hand():
    p = workload.make_plan(eight_billion())
    parameters = p["parameters"]
    need = p["memory_per_device"]
    # Every kernel is cut in 256 along its embedding axis; the small norms are whole.
    cut = 4 * (parameters - SMALL) / 256
    assert cut <= need["parameters"] <= cut + 4 * SMALL
    assert need["optimizer"] == pytest.approx(2 * need["parameters"], rel=1e-3)
    assert p["rows_per_device"] == 1
    per_token = 6 * (V * D + L * LAYER) + 12 * L * N * H * (2048 + 1) / 2
    assert p["train_flops_per_token"] == pytest.approx(per_token, rel=1e-12)
    seconds = 160e9 * per_token / (256 * 197e12 * 0.4)
    assert p["cost"]["hours"] == pytest.approx(seconds / 3600, rel=1e-9)
    assert p["cost"]["dollars"] == pytest.approx(seconds / 3600 * 256 * 1.2, rel=1e-9)
    assert p["compute_optimal"]["tokens_at_20_per_parameter"] == 20 * parameters


def test_optimizers_and_choices_change_memory():
    def need(name="adamw", **changes):
        c = eight_billion()
        c.optimizer.name = name
        c.update(changes)
        return workload.make_plan(c)["memory_per_device"]

    adamw = need()
    # Muon keeps one moment of the layers' matrices, AdamW two of everything.
    muon = 4 * (L * LAYER + 2 * 2 * V * D) / 256
    assert need("muon")["optimizer"] == pytest.approx(muon, rel=0.02)
    assert need("adafactor")["optimizer"] < adamw["optimizer"] / 2
    assert need(train={"ema": 0.999})["parameters"] == 2 * adamw["parameters"]
    two = need(train={"accumulate": 2, "batch_size": 512})
    assert two["gradients"] == 2 * adamw["gradients"]
    whole = need(rules="replicated")
    assert whole["parameters"] == 4 * (2 * V * D + L * LAYER + SMALL)
    tensor = need(mesh=(("data", -1), ("tensor", 4)), train={"batch_size": 64})
    assert tensor["parameters"] == pytest.approx(adamw["parameters"], rel=0.05)
    assert tensor["temporaries"] == pytest.approx(adamw["temporaries"] / 4, rel=0.01)


def test_rematerialisation_is_seen():
    found = {}
    for remat in ("none", "minimal", "full"):
        c = eight_billion()
        c.model.remat = remat
        found[remat] = workload.make_plan(c)["memory_per_device"]["activations"]
    # Beside the 2 GiB that the loss keeps whatever the layers do.
    none, minimal, full = (found[r] - 4 * V * D for r in ("none", "minimal", "full"))
    assert none > 2 * minimal > 4 * full


@pytest.mark.parametrize("remat", ["none", "full"])
def test_memory_is_near_what_xla_takes(remat):
    policy = Policy("bfloat16", "cpu")
    model = registry.build(
        "models", {"name": "llama", "layers": 3, "width": 128, "heads": 4,
                   "kv_heads": 2, "head_dim": 32, "mlp": 352, "remat": remat},
        vocab_size=1024, policy=policy,
    )  # fmt: skip
    objective = registry.build("objectives", "causal_lm")
    apply = with_head(model)
    shape = jax.ShapeDtypeStruct((8, 256), jnp.int32)
    names = ("tokens", "positions", "segments", "targets", "weights")
    batch = dict.fromkeys(names, shape) | {"index": jax.ShapeDtypeStruct((8,), "int32")}

    def init(key):
        return model.init(key, plain_inputs(np.zeros((1, 2), np.int32)))["params"]

    params = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0)))

    def loss(params, batch):
        return objective.loss(apply, params, batch, policy=policy)[0]

    compiled = (
        jax.jit(jax.grad(loss))
        .lower(params, batch)
        .compile(compiler_options={"xla_backend_optimization_level": 0})
    )
    theirs = compiled.memory_analysis().temp_size_in_bytes
    ours = live_memory.working_bytes(jax.grad(loss), params, batch)
    assert 0.8 * theirs < ours < 1.6 * theirs
    assert live_memory.saved_bytes(loss, params, batch) < ours


def test_the_largest_arrays_by_hand():
    """Four layers of (sine of a product): what the loop keeps comes first."""
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    w = jax.ShapeDtypeStruct((4, 32, 32), jnp.float32)

    def loss(w, x):
        def layer(x, w):
            with jax.named_scope("mlp"):
                return jnp.sin(x @ w), None

        with jax.named_scope("stack"):
            x, _ = jax.lax.scan(layer, x, w)
        with jax.named_scope("head"):
            return (x @ x.T).sum()

    found = live_memory.largest(jax.jit(jax.grad(loss)).trace(w, x).jaxpr)
    kept = 4 * 64 * 32 * 4
    first = live_memory.Array("forward stack", "float32[4,64,32]", kept, 2)
    assert found[0] == first  # the cosines, and the inputs of the layers
    assert str(first) == "2 x float32[4,64,32] of forward stack, 32 KiB each"
    products = {(x.name, x.shape) for x in found}
    assert ("forward stack/mlp", "float32[64,32]") in products
    assert ("forward head", "float32[64,64]") in products
    assert ("backward head", "float32[64,32]") in products
    assert [x.bytes for x in found] == sorted((x.bytes for x in found), reverse=True)


def test_live_bytes_by_hand():
    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    w = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    # A chain of elementwise operations works in one buffer; the result is not counted.
    assert live_memory.working_bytes(lambda x: jnp.sin(jnp.cos(jnp.tanh(x))), x) == 4000
    # A product needs its operand and its own room, whichever follows.
    assert live_memory.working_bytes(lambda x, w: ((x + 1) @ w) @ w, x, w) == 8000

    # What is needed later stays.
    def late(x, w):
        a = jnp.cos(x)
        return (a @ w) @ w + a

    assert live_memory.working_bytes(late, x, w) == 12000
    # An optimizer's update is one pass.
    assert live_memory.working_bytes(late, x, w, fused=True) == 8000

    # The backward pass waits for the three cosines; `x` is there anyway.
    def chain(w, x):
        return jnp.sum(jnp.sin(jnp.sin(jnp.sin(x * w))))

    assert live_memory.saved_bytes(chain, x, x) == 12000
    looped = lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), c), x, length=50)[1].sum()  # noqa: E731
    assert live_memory.working_bytes(looped, x) >= 50 * 4000


def test_cost_by_hand():
    # 1 exaFLOP/s at 50 %: 1e12 tokens of 6e9 FLOPs take 12 000 s on 1000 chips.
    chip = flops.Chip("x", 1e15, 1, 1, None, "none")
    cost = budget.cost(1e12, 6e9, chip, chips=1000, mfu=0.5, price=3.6)
    assert cost.tokens_per_s == pytest.approx(1e18 * 0.5 / 6e9)
    assert cost.hours == pytest.approx(12000 / 3600)
    assert cost.dollars == pytest.approx(12000)


def tiny(**plans):
    c = config.base("plan")
    c.train.update(steps=100, batch_size=8, seq_len=64)
    c.plan.update(chips=4, **plans)
    return config.debug(c)


def test_parameters_are_those_that_the_trainer_makes():
    c = tiny()
    p = workload.make_plan(c)
    made = models.build(c.model, c.objective, Policy(), c.tokenizer.vocab_size)
    params = jax.eval_shape(made.init, jax.random.key(0))
    assert p["parameters"] == sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def test_run_writes_and_prints(tmp_path, capsys):
    workload.run(tiny(), str(tmp_path))
    printed = capsys.readouterr().out
    p = json.loads((tmp_path / "plan.json").read_text())
    assert p["tokens"] == 3 * 8 * 64 and p["fits"]
    for shown in (
        "training FLOPs a token", "optimizer", "activations", "fits, with", "MFU",
        "compute-optimal, parametric fit", "a chip-hour",
    ):  # fmt: skip
        assert shown in printed


def test_epochs_need_the_corpus(tmp_path):
    c = tiny()
    c.train.update(steps=0, epochs=1.5)
    p = workload.make_plan(c, str(tmp_path))
    assert p["tokens"] is None and "not prepared yet" in workload.table(p)
    (tmp_path / "train_tokenizer.json").write_text('{"tokens": {"train": 1000}}')
    assert workload.make_plan(c, str(tmp_path))["tokens"] == 1500


def test_prices_and_devices():
    c = tiny(accelerator="h100", price=0.0)
    assert workload.make_plan(c)["accelerator"]["dollars_per_chip_hour"] == 2.99
    # A chip of TPU 7x is two devices with half of its memory each.
    p = workload.make_plan(tiny(accelerator="tpu7x", price=9.0))
    assert p["mesh"] == [["data", 8]]
    assert p["spare_bytes"] + p["memory_per_device"]["total"] == 0.95 * 96 * GiB


def test_without_a_price():
    p = workload.make_plan(tiny(accelerator="tpu7x", price=0.0))
    assert p["cost"]["dollars"] is None and p["cost"]["hours"] > 0
    assert "no list price" in workload.table(p)


@pytest.mark.parametrize(
    "accelerator", ["v5e", pytest.param("h100", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", registry.choices("models"))
def test_the_step_of_every_model_can_be_traced_for_it(name, accelerator):
    """In bfloat16: what is float32 on a CPU alone is met here."""
    c = tiny(accelerator=accelerator, price=1.0)
    module = registry.module("models", name)
    c.model = registry.spec("models", name, **module.TINY)
    objective = {"masked": "masked_lm", "encdec": "span_corruption"}
    c.objective = registry.spec("objectives", objective.get(module.KIND, "causal_lm"))
    assert workload.make_plan(c)["memory_per_device"]["activations"] > 0


def fake_step(tried):
    """In place of the compiler: speeds by rows, which it notes."""

    def compiled(c, pod):
        ways = int(np.prod(list(pod.mesh(c.mesh).shape.values())))
        rows = c.train.batch_size // ways
        tried.append((c.model.remat, rows))
        speeds = {"none": 100, "full": 80}
        return {
            "mesh": [list(axis) for axis in pod.mesh(c.mesh).shape.items()],
            "remat": c.model.remat, "rows_per_device": rows, "fits": rows < 64,
            "tokens_per_s": speeds[c.model.remat] * rows / (rows + 1),
        }  # fmt: skip

    return compiled


class FakePod:
    def mesh(self, axes):
        return budget.planned_mesh(axes, 4)


@pytest.mark.parametrize(
    "knobs, said",
    [
        ({"rows": 4}, "without plan.topology"),
        ({"search": True}, "without plan.topology"),
        ({"search": True, "rows": 2, "topology": "v5e:2x2"}, "both choose rows"),
    ],
)
def test_what_is_not_looked_at_is_refused(tmp_path, knobs, said):
    configs = __file__.replace("tests/test_plan", "configs/x")
    c = config.load(configs, "plan", "model=1b")
    c.plan.update(knobs)
    with pytest.raises(InputError, match=said):
        workload.run(c, tmp_path)


def test_a_search_ends_and_goes_on(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(aot, "compiled", fake_step(tried))
    c = tiny()
    c.model.remat = "none"
    c.plan.update(search_remat=("none", "full"), search_mesh=((("fsdp", -1),),))
    found = workload._tries(c, FakePod(), epath.Path(tmp_path))
    # Faster by a hundredth or more up to 32 rows, 64 do not fit.
    assert tried == [(r, n) for r in ("none", "full") for n in (1, 2, 4, 8, 16, 32, 64)]
    assert aot.best(found)["rows_per_device"] == 32
    kept = json.loads((tmp_path / "plan_tries.json").read_text())
    assert kept["tries"] == found
    kept["tries"] = kept["tries"][:9]  # of a search that was ended there
    (tmp_path / "plan_tries.json").write_text(json.dumps(kept))
    del tried[:]
    assert workload._tries(c, FakePod(), epath.Path(tmp_path)) == found
    assert tried == [("full", n) for n in (4, 8, 16, 32, 64)]
    c.train.seq_len *= 2  # another search
    del tried[:]
    workload._tries(c, FakePod(), epath.Path(tmp_path))
    assert len(tried) == 14


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"accelerator": "v5x"}, "did you mean 'v5"),
        ({"rows": -1}, "plan.rows -1; want 0 or more"),
        ({"price": -0.1}, "plan.price -0.1; want 0 or more"),
        ({"dtype": "float17"}, "train.dtype 'float17'; want one of float32, bfloat16"),
        ({"products": "int9"}, "train.products 'int9'"),
        ({"attention": "flash9"}, "train.attention 'flash9'"),
        ({"chips": 0}, "plan.chips 0; want 1 or more"),
        ({"mfu": 60.0}, "plan.mfu 60.0; want above 0 and at most 1"),
        ({"chips": 3}, "train.batch_size 8"),
    ],
)
def test_bad_input(changes, message):
    c = tiny()
    for name, value in changes.items():
        (c.plan if name in c.plan else c.train)[name] = value
    with pytest.raises(InputError, match=message):
        config.check(c)
        workload.make_plan(c)


def test_mesh_must_divide():
    c = tiny()
    c.mesh = (("data", 3), ("tensor", -1))
    with pytest.raises(InputError, match="on 4 devices"):
        workload.make_plan(c)


def test_config_picks_any_model(tmp_path):
    found = config.load(__file__.replace("tests/test_plan", "configs/x"), "plan",
                        "model=125m,accelerator=h100,chips=8")  # fmt: skip
    assert (found.workload, found.plan.accelerator, found.plan.chips) == (
        "plan", "h100", 8,
    )  # fmt: skip
    assert found.model.width == 768
    workload.run(found, str(tmp_path))
    with pytest.raises(InputError, match="one of"):
        config.load(__file__.replace("tests/test_plan", "configs/x"), "plan", "model=x")
