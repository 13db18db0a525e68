"""Continued pretraining: a model learns a domain, and what it forgets is measured.

    python -m llm.main --config=configs/domain.py:model=runs/quickstart,text=PATH \
        --workdir=runs/domain

`model` is what to begin with, as in `configs/sft.py`; `text` a folder of text files, or
one file, of the domain, which is cleaned, split and tokenized by that model's
tokenizer. evaluate.json holds bits per byte of the held-out part of the domain after
training and, under `before`, of the model that it began with; and of both, as
`eval_text`, on what the model knew before: the held-out part of the corpus that it was
trained on, or the text that `--config.eval_text=PATH` names.
"""

import pathlib

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(
        arg, model="quickstart", text="", adapter="full", debug=False
    )
    c = config.base("pipeline")
    config.begin_with(c, __file__, arg.model)
    c.data.source = config.source(arg.text)
    c.objective = registry.spec("objectives", "causal_lm")
    c.adapter = registry.spec("adapters", arg.adapter)
    c.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.1)
    if arg.adapter == "lora":
        c.optimizer.learning_rate = 3e-4
    c.schedule.update(name="cosine", warmup=0.05, final=0.1)
    c.train.update(epochs=1.0, batch_size=8, seq_len=512, log_every=10)
    c.train.update(validate_every=100, checkpoint_every=100)
    c.evaluate.update(tasks=("perplexity",), before=True)
    if (pathlib.Path(arg.model) / "corpus" / "manifest.json").exists():
        c.eval_text = arg.model
    return config.debug(c) if arg.debug else c
