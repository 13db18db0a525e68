"""How the loss falls with parameters and tokens: a ladder of small models and its law.

    python -m llm.main --config=configs/scaling.py --workdir=runs/scaling

Sixteen runs of the quickstart's model, four widths by four lengths, two at a time: some
twenty minutes on two cores. The law L(N, D) = E + A/N^a + B/D^b is fitted to them;
scaling.html shows how well it predicts the widest model from the others (within 3 %
here: runs as short as these are not yet where the law is one), and the next rung with
an interval. The learning rate is that of the width 160 for all of them
(`optimizer.base_width`). Other rungs are `--config.sweep.space`. `:debug` is the
smallest form.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("scaling")
    c.trial = config.load(__file__, "quickstart", "debug" if arg.debug else None)
    c.trial.workload = "train"
    c.trial.optimizer.base_width = 160
    c.trial.train.update(steps=0, epochs=0.0, tokens=1_000_000, checkpoint_every=0)
    c.trial.train.update(keep_last=1, keep_best=0, validate_every=0)
    c.trial.train.validation_sequences = 0
    c.sweep.processes = 2
    c.sweep.space = (
        ("model.width+model.mlp+model.heads+model.kv_heads+model.head_dim", "values",
         (32, 88, 1, 1, 32), (64, 176, 2, 2, 32), (96, 264, 3, 3, 32),
         (160, 432, 5, 5, 32)),
        ("train.tokens", "values", 262_144, 524_288, 1_048_576, 2_097_152),
    )  # fmt: skip
    if arg.debug:
        c.trial.train.update(tokens=0, steps=3, validation_sequences=8)
        c.sweep.space = (
            ("model.width", "values", 32, 64),
            ("train.steps", "values", 2, 3, 5),
        )
    return c
