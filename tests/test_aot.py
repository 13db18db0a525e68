"""Training steps of the sizes, compiled for pods: memory, and a record of the costs.

A record is bytes and cycles of the pinned jax and libtpu; `python tests/test_aot.py`
writes tests/golden/aot.json anew, in minutes for each.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from llm import config
from llm.planning import aot, topology

GOLDEN = pathlib.Path(__file__).parent / "golden" / "aot.json"
CONFIGS = str(pathlib.Path(__file__).parent.parent / "configs" / "plan.py")
KEPT = (
    "cycles", "product_cycles", "temporary_bytes", "argument_bytes", "peak_bytes",
)  # fmt: skip
PODS = ("v5e:16x16", "v5p:4x4x4", "v6e:16x16")
ROWS = {"reference": 4, "1b": 4, "8b": 1, "medium": 4}  # sequences of a device
# What the sizes' docstrings name, with the batches of the configs themselves.
NAMED = ("125m v5e:2x4", "350m v5e:2x4", "1b v5e:2x4", "1b v6e:2x4", "8b v5p:4x4x4")
CASES = [f"{size} {pod}" for size in ROWS for pod in PODS]
CASES += ["1b 2xv5e:16x16", "1b tpu7x:2x2x1"]
CASES += [f"{case}, its own batch" for case in NAMED]
# Copies of activations cost nothing in the small ones, and a fifth of the medium one.
SMALL = ("small v5e:2x2", "small v6e:2x2")
MEDIUM = "medium v6e:2x2"


def measured(case):
    case, own = case.removesuffix(", its own batch"), "own" in case
    size, name = case.split()
    c = config.load(CONFIGS, "1b" if size in ("reference", "small", "medium") else size)
    if size == "reference":
        c.model.update(qk_norm=False, remat="selective")
        c.objective.z_loss = 0.0
    if size == "small":
        c.model.update(width=256, heads=4, kv_heads=2, head_dim=64, mlp=512)
    if size == "medium":
        c.model.update(width=512, heads=4, kv_heads=4, head_dim=128, mlp=2048)
    if size in ("small", "medium"):
        c.model.layers = 2
        c.tokenizer.vocab_size = 1024
        c.objective.chunk = 128
        c.train.seq_len = 256 if size == "small" else 1024
    pod = topology.find(name)
    return aot.compiled(aot.placed(c, pod, 0 if own else ROWS.get(size, 2)), pod)


@pytest.mark.aot
@pytest.mark.skipif(not topology.available(), reason="libtpu: pip install .[tpu]")
@pytest.mark.parametrize("case", CASES)
def test_sizes_fit_and_cost_what_they_did(case):
    check(case)


@pytest.mark.skipif(not topology.available(), reason="libtpu: pip install .[tpu]")
@pytest.mark.parametrize("case", [*SMALL, pytest.param(MEDIUM, marks=pytest.mark.long)])
def test_a_small_step_costs_what_it_did(case):
    check(case)


def check(case):
    found = measured(case)
    assert found["fits"], found
    assert found["attention"] == "splash (Pallas)"
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if case not in golden:
        pytest.fail(f"no record of {case}: python tests/test_aot.py")
    for name, value in record(found).items():
        assert value == pytest.approx(golden[case][name], rel=0.03), name


def record(found):
    """What is kept of a plan; `sent_bytes` go between chips."""
    sent = sum(x["bytes"] for x in found["collectives"])
    return {name: found[name] for name in KEPT} | {"sent_bytes": sent}


@pytest.mark.aot
@pytest.mark.skipif(not topology.available(), reason="libtpu: pip install .[tpu]")
def test_processes_agree_on_the_key_of_a_compiled_step(tmp_path):
    code = "import test_aot; test_aot.measured('small v5e:2x2')"
    here = pathlib.Path(__file__).parent
    kept = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        told = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
        subprocess.run(
            [sys.executable, "-c", code], cwd=here, env=os.environ | told, check=True
        )
        kept.append({path.name for path in folder.glob("jit_step-*")})
    assert kept[0] and kept[0] == kept[1]


if __name__ == "__main__":
    records = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for case in sys.argv[1:] or (*SMALL, MEDIUM, *CASES):
        records[case] = record(measured(case))
        print(case, records[case], flush=True)
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n")
