"""Which learning rate, and how wide? A sweep of a run's config fields.

    python -m llm.main --config=configs/sweep.py --workdir=runs/sweep

Twelve trials of the quickstart's model, cut to 300 steps, two at a time, over both
learning rates and weight decay: some twelve minutes on two cores. sweep.html shows the
validation loss against each field. `of=NAME` sweeps another config, with that config's
own fields under `--config.trial`; what varies is `--config.sweep.space`, how
`--config.sweep.search` (grid, random or bayes), and `--config.sweep.halving=3` gives
up early on two of three. The same command goes on where it was stopped. `:debug` is the
smallest form.

    python -m llm.main --config=configs/sweep.py:of=gru --workdir=runs/sweep_gru \\
        --config.sweep.space="(('optimizer.learning_rate', 'log', 1e-3, 1e-1),)" \\
        --config.sweep.search=grid --config.sweep.points=4
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, of="quickstart", debug=False)
    c = config.base("sweep")
    c.trial = config.load(__file__, arg.of, "debug" if arg.debug else None)
    c.trial.workload = "train"
    c.trial.train.update(tokens=0, epochs=0.0, steps=300, validate_every=100)
    c.trial.train.update(checkpoint_every=100, keep_last=1, keep_best=0)
    c.trial.schedule.final = 0.0
    c.sweep.update(trials=12, processes=2)
    c.sweep.space = (
        ("optimizer.learning_rate", "log", 1e-3, 1e-1),
        ("optimizer.muon_learning_rate", "log", 3e-3, 1e-1),
        ("optimizer.weight_decay", "values", 0.0, 0.1, 0.3),
    )
    if arg.debug:
        c.trial.train.update(steps=3, validate_every=1, checkpoint_every=2)
        c.sweep.trials = 2
        return config.debug(c)
    return c
