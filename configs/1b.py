"""A modern decoder of 1.14B parameters that keeps a TPU's matrix unit full.

    python -m llm.main --config=configs/1b.py:text=PATH --workdir=runs/1b

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/1b.py:debug` runs the same
steps in their smallest form.

Heads of 128, every dimension a multiple of 128, 16 heads on 8 of keys and values, an
untied output over a vocabulary of 32,768, layers scanned and rematerialised, logits in
pieces of 512 positions.

Planned by `configs/plan.py`, not measured: 1,140,922,368 parameters, 22.8 billion
tokens (20 a parameter) at 40 % MFU and list prices:

    8 x v5e (one TPU VM)   2d20h    $660    7.2 of 16 GiB a chip
    8 x v6e (one TPU VM)   14h45m   $319   11.2 of 32 GiB, train.accumulate=16
    256 x v5e              2h08m    $660    4.6 of 16 GiB, train.accumulate=1

Expected: none of this has run on a TPU yet, and the recipe is not tuned at this size.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 32_768
    c.model = registry.spec(
        "models",
        "llama",
        layers=16,
        width=2048,
        heads=16,
        kv_heads=8,
        head_dim=128,
        mlp=8192,
        how="scan",
        remat="selective",
    )
    c.objective.chunk = 512
    c.optimizer.update(name="adamw", learning_rate=6e-4, weight_decay=0.1)
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    # 20 tokens a parameter, in batches of a million tokens.
    c.train.update(tokens=22_800_000_000, batch_size=512, seq_len=2048, accumulate=32)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    c.mesh = (("fsdp", -1),)
    return config.debug(c) if arg.debug else c
