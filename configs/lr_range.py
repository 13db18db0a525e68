"""Which learning rate? One short run in which it grows until nothing is learned.

    python -m llm.main --config=configs/lr_range.py --workdir=runs/lr_range

The quickstart's model, 300 steps, from a thousandth of its learning rate to thirty
times it; lr_range.html shows the loss by rate, and the last line says which peak to
try. `of=NAME` tests another config, around its own rate; `--config.schedule.first` is
the lowest rate as a share of the highest. A rate for 300 steps may be too large for
100,000: it is where to begin a sweep. `:debug` is the smallest form.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, of="quickstart", debug=False)
    c = config.load(__file__, arg.of, "debug" if arg.debug else None)
    c.workload = "lr_range"
    for name in ("learning_rate", "muon_learning_rate"):
        c.optimizer[name] = float(f"{30 * c.optimizer[name]:.6g}")
    c.schedule.update(name="range", first=1e-3 / 30)
    c.train.update(tokens=0, epochs=0.0, steps=20 if arg.debug else 300)
    c.train.update(log_every=1, validate_every=0, checkpoint_every=0, spike="off")
    return c
