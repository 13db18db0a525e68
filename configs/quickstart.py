"""From nothing to a small language model of Python, on two CPU cores.

    python -m llm.main --config=configs/quickstart.py --workdir=runs/quickstart

Expected on Python 3.12: 1.9M parameters see 4.1M tokens (1.5 epochs of the standard
library) and reach about 1.54 bits per byte on packages that they never saw; 13 to 24 %
of the functions that it writes count as valid Python, depending on the machine. The
fields below were tuned for the lowest validation loss in this time; LOG.md says how.
`configs/quickstart.py:text=PATH` takes your own text, `:debug` is the smallest form.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 2048
    c.model = registry.spec(
        "models",
        "llama",
        layers=4,
        width=160,
        heads=2,
        kv_heads=2,
        head_dim=80,
        mlp=432,
        embed_scale=1.0,
        how="unroll",
    )
    c.optimizer.update(
        name="muon", learning_rate=0.01, muon_learning_rate=0.02, weight_decay=0.1
    )
    c.schedule.update(name="linear", warmup=0.02, final=0.0)
    c.train.update(steps=2000, batch_size=4, seq_len=512, log_every=20)
    c.train.update(
        validate_every=250, validation_sequences=64, checkpoint_every=500, keep_best=0
    )
    c.evaluate.batch_size = 32
    c.generate.prompts = (
        "def read_lines(path):",
        "class Queue:",
        "import os",
        "def main():",
        "The following",
    )
    c.generate.temperature = 0.7
    return config.debug(c) if arg.debug else c
