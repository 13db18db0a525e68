"""GPT-2, the smallest one: 124M parameters, for comparison with what is built on it.

    python -m llm.main --config=configs/gpt2_124m.py:text=PATH --workdir=runs/gpt2_124m

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/gpt2_124m.py:debug` runs
the same steps in their smallest form.

The network and its dropout are those of Radford et al. 2019 with a vocabulary of 50,257
pieces of your own text (124,475,904 parameters: the vocabulary is padded to 50,304).
The paper names no optimizer; this is AdamW as commonly used to train it again, in
batches of half a million tokens. `configs/125m.py` is a newer design of this size.

Expected: not run yet beyond its debug form, so there is no figure to compare with; one
GPU of 80 GiB or a TPU VM of 8 chips is meant.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 50_257
    c.model = registry.spec(
        "models",
        "gpt",
        layers=12,
        width=768,
        heads=12,
        length=1024,
        dropout=0.1,
        remat="minimal",
    )
    c.objective.update(z_loss=0.0, chunk=512)
    c.optimizer.update(name="adamw", learning_rate=6e-4, weight_decay=0.1)
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    c.train.update(tokens=2_500_000_000, batch_size=512, seq_len=1024, accumulate=4)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    return config.debug(c) if arg.debug else c
