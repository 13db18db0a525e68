"""BERT base: an encoder of 109M parameters that fills in masked tokens.

    python -m llm.main --config=configs/bert_base.py:text=PATH --workdir=runs/bert_base

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/bert_base.py:debug` is the
smallest form. The held-out figures are those of masked tokens; an encoder does not
generate.

Network, masking, batches, optimizer and schedule are those of arXiv:1810.04805
(109,568,128 parameters), but all rows have 512 tokens, documents are packed, there is
no next-sentence task, and the pieces are BPE of your own text.
`--config.objective.whole_words=True` masks words.

Expected: not run yet beyond its debug form, so there is no figure to compare with. The
authors trained for 4 days on 16 TPU chips.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 30_522
    c.model = registry.spec(
        "models",
        "bert",
        layers=12,
        width=768,
        heads=12,
        mlp=3072,
        length=512,
        dropout=0.1,
        remat="minimal",
    )
    c.objective = registry.spec("objectives", "masked_lm", chunk=512)
    c.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.01)
    c.optimizer.update(b1=0.9, b2=0.999, epsilon=1e-6)
    # 10,000 steps of warm-up.
    c.schedule.update(name="linear", warmup=0.01, final=0.0)
    c.train.update(steps=1_000_000, batch_size=256, seq_len=512, accumulate=2)
    c.train.update(log_every=100, validate_every=5000, checkpoint_every=5000)
    c.evaluate.update(tasks=(), objective=True)
    c.generate.prompts = ()
    return config.debug(c) if arg.debug else c
