"""Training steps of the sizes, compiled for pods: memory, and a record of the costs.

A record is bytes and cycles of the pinned jax and libtpu; `python tests/test_aot.py`
writes tests/golden/aot.json anew, in minutes for each.
"""

import json
import pathlib
import sys

import pytest

from llm import aot, config, topology

GOLDEN = pathlib.Path(__file__).parent / "golden" / "aot.json"
CONFIGS = str(pathlib.Path(__file__).parent.parent / "configs" / "plan.py")
KEPT = ("cycles", "product_cycles", "temporary_bytes")
# Sequences of a device: size, topology, rows, changes of the config.
CASES = {
    "reference v5e:16x16": ("1b", "v5e:16x16", 4),
    "1b v5e:16x16": ("1b", "v5e:16x16", 2),
    "1b v6e:16x16": ("1b", "v6e:16x16", 2),
    "8b v5p:4x4x4": ("8b", "v5p:4x4x4", 1),
}


def measured(case):
    size, name, rows = CASES[case]
    c = config.load(CONFIGS, size)
    if case.startswith("reference"):
        c.model.update(qk_norm=False, remat="attention_k,context,gate,up,norm")
        c.objective.z_loss = 0.0
    pod = topology.find(name)
    return aot.compiled(aot.placed(c, pod, rows), pod)


@pytest.mark.aot
@pytest.mark.skipif(not topology.available(), reason="libtpu: pip install .[tpu]")
@pytest.mark.parametrize("case", CASES)
def test_sizes_fit_and_cost_what_they_did(case):
    found = measured(case)
    assert found["fits"], found
    assert found["attention"] == "splash (Pallas)"
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if case not in golden:
        pytest.skip(f"no record of {case}: python tests/test_aot.py")
    for name in KEPT:
        assert found[name] == pytest.approx(golden[case][name], rel=0.03), name


if __name__ == "__main__":
    records = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for case in sys.argv[1:] or CASES:
        found = measured(case)
        records[case] = {name: found.get(name) for name in KEPT}
        print(case, records[case], flush=True)
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n")
