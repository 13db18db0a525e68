"""The reader of compiled programs, on programs written out by hand."""

import pytest

from llm.errors import InputError
from llm.planning import hlo

LOOP = """HloModule m, is_scheduled=true

%cond (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] constant(12)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %step = s32[] constant(STEP)
  %next = s32[] add(%i, %step)
  %x = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  %product = f32[8]{0} fusion(%x), kind=kOutput, calls=%f, backend_config={"estimated_cycles":"100"}
  %sum = f32[8]{0} fusion(%product), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"7"}
  %all = f32[64]{0:T(128)} all-gather(%sum), channel_id=1, replica_groups=[2,8]<=[16], dimensions={0}
  ROOT %t = (s32[], f32[8]{0}) tuple(%next, %sum)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %first = (s32[], f32[8]{0}) tuple(%zero, %x)
  %w = (s32[], f32[8]{0}) while(%first), condition=%cond, body=%body
  %odd = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %y = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"5"}
}
"""  # noqa: E501


@pytest.mark.parametrize("step, trips", [(1, 12), (5, 3)])
def test_loops_are_multiplied_by_their_trips(step, trips):
    found = hlo.read(LOOP.replace("STEP", str(step)))
    assert found.cycles == trips * 107 + 5
    assert found.products == trips * 100
    (gather,) = found.collectives
    assert gather == ("all-gather", tuple(range(8)), trips * 64 * 4, trips)


def test_a_known_trip_count_wins():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    found = hlo.read(LOOP.replace("STEP", "1").replace("body=%body", known))
    assert found.cycles == 3 * 107 + 5


BRANCHES = """HloModule m
%cheap (p: f32[]) -> f32[] {
  ROOT %c = f32[] copy(%p), backend_config={"estimated_cycles":"10"}
}
%dear (p: f32[]) -> f32[] {
  ROOT %d = f32[] copy(%p), backend_config={"estimated_cycles":"30"}
}
ENTRY %main (x: f32[]) -> f32[] {
  ROOT %y = f32[] conditional(%k, %x, %x), branch_computations={%cheap, %dear}
}
"""


def test_a_conditional_costs_as_its_dearer_branch():
    assert hlo.read(BRANCHES).cycles == 30


CHAIN = """HloModule m
%part (p: bf16[4,8]) -> bf16[8,8] {
  ROOT %g = bf16[8,8]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'a'}, dimensions={0}, frontend_attributes={chain_id="3"}
}
%all-reduce-scatter (p: f32[16]) -> f32[8] {
  %r = f32[16]{0} all-reduce(%p), channel_id=8, replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %s = f32[8]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={8}
}
ENTRY %main (x: bf16[4,8]) -> bf16[8,8] {
  %one = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%part
  %two = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%part
  ROOT %three = f32[8]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""  # noqa: E501


def test_a_chain_is_one_collective_and_a_scatter_is_seen():
    gather, scatter = hlo.read(CHAIN).collectives
    assert gather == ("all-gather", (0, 4), 8 * 8 * 2, 1)
    assert scatter == ("reduce-scatter", (0, 1), 16 * 4, 1)


def test_chains_of_unrolled_layers_share_a_channel():
    """Each chain is a collective of its own."""
    second = CHAIN[CHAIN.index("%part ") : CHAIN.index("%all-reduce-scatter ")]
    second = second.replace("%part ", "%other ").replace('chain_id="3"', 'chain_id="4"')
    text = CHAIN.replace("ENTRY", second + "ENTRY")
    text = text.replace("calls=%part", "calls=%other", 1)
    gather, _ = hlo.read(text).collectives
    assert gather == ("all-gather", (0, 4), 2 * 8 * 8 * 2, 2)


@pytest.mark.parametrize(
    "written, devices",
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[4,2]<=[8]", (0, 1)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", (0, 1, 4, 5)),
        ("source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,4}}", (0, 1, 2, 3)),
        ("source_target_pairs={{0,4},{4,0},{1,5},{5,1}}", (0, 4)),
        ("source_target_pairs={{0,2},{2,4}}", (0, 2, 4)),  # the last hands on to none
        ("", ()),
    ],
)
def test_devices_of_a_collective(written, devices):
    kind = "collective-permute" if "pairs" in written else "all-gather"
    text = "HloModule m\nENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %g = f32[8]{0} "
    (found,) = hlo.read(f"{text}{kind}(%x), channel_id=1, {written}\n}}\n").collectives
    assert found.devices == devices


KERNEL = """HloModule m
ENTRY %main (x: bf16[2,4,256,128]) -> bf16[2,4,256,128] {
  %splash_mha_fwd.3 = bf16[2,4,256,128]{3,2,1,0} custom-call(%q, %k, %v), custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[2,4,256,128]{3,2,1,0}, bf16[2,2,256,128]{3,2,1,0}, bf16[2,2,256,128]{3,2,1,0}}
  ROOT %mine.1 = f32[1000]{0} custom-call(%x), custom_call_target="tpu_custom_call", operand_layout_constraints={f32[1000]{0}}, backend_config={"cost_estimate":{"flops":"500"}}
}
"""  # noqa: E501


def test_kernels_by_their_shapes():
    mine, attention = hlo.read(KERNEL).kernels
    # Two products over half of the square of 256, for two rows and four heads.
    assert attention.flops == 2 * 2 * (2 * 4) * 256 * 256 * 128 / 2
    assert attention.bytes == 2 * (2 * 2 * 4 + 2 * 2 * 2) * 256 * 128
    assert attention.attention and not mine.attention
    assert (mine.flops, mine.bytes, mine.count) == (500, 8000, 1)
    # The longer of 500 FLOPs at 100 a second and 8000 bytes at 4000.
    assert hlo.kernel_cycles([mine], 100, 4000, clock=10) == 50


def test_other_text_is_refused():
    with pytest.raises(InputError, match="want optimised HLO text"):
        hlo.read("module @jit_step {}")
