"""What a config would take to train on a named accelerator.

    python -m llm.main --workdir=runs/plan \\
        --config=configs/plan.py:model=1b,accelerator=v5e,chips=8

prints parameters, FLOPs a token, memory of a chip by kind and whether it fits, hours
and dollars, and writes plan.json, in seconds on any machine. `model` is any config of
this folder; `accelerator` a name of `llm.planning.flops.CHIPS` (v4 v5e v5p v6e tpu7x
a100-80gb h100 h200 b200 l4 rtx4090 ...); `price` dollars per chip-hour (0: that of the
table); `mfu` the share of peak FLOP/s to expect. Everything else is a flag, such as
`--config.train.accumulate=1` on more chips, or `--config.model.remat=full`.

    python -m llm.main --workdir=runs/plan_pod \\
        --config=configs/plan.py:model=1b,topology=v5e:16x16,rows=4

compiles the real step for that pod, too, which takes the TPU compiler (`pip install
.[tpu]`), no TPU, and some minutes: bytes that a chip needs, cycles, what goes between
chips, and from these the step time, MFU, hours and dollars. Topologies: v4:2x2x2,
v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x1, 2xv5e:16x16 (two slices) and their like.
`rows` is the sequences of a device; `search` tries rows, rematerialisations and meshes
and keeps the fastest plan that fits. With JAX_COMPILATION_CACHE_DIR=FOLDER, the
compiled step stays in FOLDER, under a key that another process here makes again.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="1b", accelerator="v5e", chips=8, price=0.0, mfu=0.4, debug=False,
        topology="", rows=0, search=False,
    )  # fmt: skip
    c = config.load(__file__, arg.model, "debug" if arg.debug else None)
    c.workload = "plan"
    c.plan.update(
        accelerator=arg.accelerator, chips=arg.chips, price=arg.price, mfu=arg.mfu,
        topology=arg.topology, rows=arg.rows, search=arg.search,
    )  # fmt: skip
    return c
