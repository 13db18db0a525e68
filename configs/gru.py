"""A GRU language model: as `configs/lstm.py`, with a cell of three gates for four.

    python -m llm.main --config=configs/gru.py:text=PATH --workdir=runs/gru

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python. `configs/gru.py:debug` is the smallest form.

Two layers of 650 units (18,223,400 parameters with 10,000 pieces) of the cell of
arXiv:1406.1078; everything else is as in `configs/lstm.py`, so that the two compare.

Expected: not run yet beyond its debug form, so there is no figure to compare with; it
is meant for a CPU or any one GPU.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 10_000
    c.model = registry.spec("models", "gru", layers=2, width=650, dropout=0.5)
    c.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.01)
    c.schedule.update(name="cosine", warmup=0.02, final=0.0)
    c.train.update(epochs=4.0, batch_size=32, seq_len=256, log_every=20)
    c.train.update(validate_every=250, checkpoint_every=500)
    return config.debug(c) if arg.debug else c
