"""T5 base: an encoder and a decoder of 223M parameters that restore cut-out spans.

    python -m llm.main --config=configs/t5_base.py:text=PATH --workdir=runs/t5_base

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/t5_base.py:debug` is the
smallest form. The held-out figures are those of spans that were cut out; what it has
learned is to fill them in, so no texts are sampled.

Network, objective, batches, optimizer and schedule are those of arXiv:1910.10683, the
first version (222,903,552 parameters): 568 tokens make a source of 512 and a target of
114. The 32,000 unigram pieces are those of your own text, with 100 sentinels after
them. Unlike there, packed documents do not see each other, and our Adafactor takes
steps that do not grow with the parameters, so its rate is a tenth of theirs.

Expected: not run yet beyond its debug form, so there is no figure to compare with.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.update(vocab_size=32_000, kind="unigram")
    c.model = registry.spec(
        "models",
        "t5",
        layers=12,
        width=768,
        heads=12,
        head_dim=64,
        mlp=3072,
        gated=False,
        tied=True,
        scaled=True,
        dropout=0.1,
        remat="minimal",
    )
    c.objective = registry.spec("objectives", "span_corruption")
    c.optimizer.update(name="adafactor", learning_rate=1e-3, weight_decay=0.0)
    # Constant for 10,000 steps, then 1/sqrt(step); there is a short warm-up here.
    c.schedule.update(name="rsqrt", warmup=10_000 / 2**19)
    c.train.update(steps=2**19, batch_size=128, seq_len=568, accumulate=2)
    c.train.update(log_every=100, validate_every=5000, checkpoint_every=5000)
    c.evaluate.update(tasks=(), objective=True)
    c.generate.prompts = ()
    return config.debug(c) if arg.debug else c
