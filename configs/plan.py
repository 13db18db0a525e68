"""What a config would take to train on a named accelerator.

    python -m llm.main --workdir=runs/plan \\
        --config=configs/plan.py:model=1b,accelerator=v5e,chips=8

prints parameters, FLOPs a token, memory of a chip by kind and whether it fits, hours
and dollars, and writes plan.json, in seconds on any machine. `model` is any config of
this folder; `accelerator` a name of `llm.flops.CHIPS` (v4 v5e v5p v6e tpu7x a100-80gb
h100 h200 b200 l4 rtx4090 ...); `price` dollars per chip-hour (0: that of the table);
`mfu` the share of peak FLOP/s to expect. Everything else is a flag, such as
`--config.train.accumulate=1` on more chips, or `--config.model.remat=full`.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="1b", accelerator="v5e", chips=8, price=0.0, mfu=0.4, debug=False
    )
    c = config.load(__file__, arg.model, "debug" if arg.debug else None)
    c.workload = "plan"
    c.plan.update(
        accelerator=arg.accelerator, chips=arg.chips, price=arg.price, mfu=arg.mfu
    )
    return c
