"""The form of cuDNN's attention, carried out by XLA, and where it is chosen."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from test_splash import equals_the_products, given

from llm.errors import InputError
from llm.nn.attention import attention, choice, kernel
from llm.nn.context import Context, Reach
from llm.nn.cudnn import cudnn_attention
from llm.precision import Policy

GPU = Policy("bfloat16", "gpu", 8, "NVIDIA A100-SXM4-80GB", attention="cudnn")
H100 = Policy("bfloat16", "gpu", 8, "NVIDIA H100 80GB HBM3", attention="cudnn")


@pytest.mark.parametrize(
    "causal, window",
    [(True, 70), (False, 0), pytest.param(True, 0, marks=pytest.mark.long)],
)
def test_equals_the_products(causal, window):
    def fused(q, k, v, reach):
        mask = reach.mask_BTS(causal, window)
        return cudnn_attention(q, k, v, mask, ordered=causal, implementation="xla")

    equals_the_products(fused, causal, window)


def test_where_it_runs_and_what_is_said():
    assert choice(GPU, 2048, 128) == choice(H100, 2048, 256) == "cudnn"
    assert choice(GPU, 2048, 64, window=jnp.int32(9)) == "cudnn"
    assert choice(GPU, 2048, 128, past=True) == "xla"
    assert kernel(GPU, 2048, 128) == "cuDNN's flash attention"
    auto = dataclasses.replace(GPU, attention="auto")
    assert choice(auto, 2048, 128) == "xla"
    assert "cuDNN's was not asked for" in kernel(auto, 2048, 128)
    for policy, rows, head_dim, why in (
        (Policy("float32", "gpu"), 2048, 128, "bfloat16, not float32"),
        (auto, 2048, 256, "up to 128, not 256"),
        (auto, 2048, 36, "multiple of 8"),
        (auto, 2047, 128, "even length, not 2047"),
    ):
        assert choice(policy, rows, head_dim) == "xla"
        assert why in kernel(policy, rows, head_dim)


def named(name, platform, dtype="bfloat16"):
    return Policy(dtype, platform, attention=name)


def test_one_that_is_named_is_taken_or_refused():
    assert choice(named("xla", "gpu"), 2048, 128) == "xla"
    assert kernel(named("xla", "tpu"), 2048, 128).endswith("as asked for")
    assert choice(named("cudnn", "gpu"), 2048, 128) == "cudnn"
    assert choice(named("splash", "tpu"), 2048, 128) == "splash"
    for policy, why in (
        (named("cudnn", "tpu"), "runs on NVIDIA GPUs, not on a tpu"),
        (named("cudnn", "gpu", "float32"), "takes bfloat16, not float32"),
        (named("splash", "cpu"), "runs on TPUs, not on a cpu"),
        (named("flash", "gpu"), "want one of auto, xla, splash, cudnn"),
    ):
        with pytest.raises(InputError, match=why):
            kernel(policy, 2048, 128)


def test_the_program_of_a_gpu_calls_it(monkeypatch):
    calls = []

    def through_xla(*given, **knobs):
        calls.append(knobs)
        return cudnn_attention(*given, **knobs, implementation="xla")

    monkeypatch.setattr("llm.nn.attention.cudnn_attention", through_xla)
    q, k, v, positions, segments = (jnp.asarray(x) for x in given())
    reach = Reach(positions, segments, positions, segments)
    context = Context((k,), (v,), reach, ordered=True)
    own = attention(q, context, policy=GPU)
    want = attention(q, context, policy=Policy())
    assert calls == [{"ordered": True}] and own.dtype == jnp.bfloat16
    np.testing.assert_allclose(own.astype(jnp.float32), want, atol=0.03)


def test_a_ring_is_said_and_no_named_kernel_is_replaced_by_it():
    """Rows that the mesh does not cut go around no ring."""
    for policy in (Policy("float32", "cpu"), named("xla", "tpu"), named("auto", "tpu")):
        assert kernel(policy, 2048, 128, around=4).endswith("a ring of 4")
    assert "ring" not in kernel(named("xla", "tpu"), 2046, 128, around=4)
    for name in ("splash", "cudnn"):
        with pytest.raises(InputError, match=f"'{name}' on a mesh with context 4"):
            kernel(named(name, "tpu"), 2048, 128, around=4)
