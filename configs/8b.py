"""The shape of Llama 3 8B: 32 layers of 4096, a vocabulary of 128,256.

    python -m llm.main --config=configs/8b.py:text=PATH --workdir=runs/8b

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/8b.py:debug` runs the same
steps in their smallest form.

Planned by `configs/plan.py`, not measured: 8,030,269,440 parameters (Llama's own
8,030,261,248, and norms of queries and keys), 161 billion tokens (20 a parameter) at
40 % MFU and list prices:

    8 x h200 (one machine)   30 days   $22,000   50 of 140 GiB a chip
    64 x v5p                 8 days    $53,000   15 of 95 GiB, train.accumulate=8

Expected: none of this has run yet, and the recipe is not tuned at this size. How the
processes of a pod start: docs/tpu.md, "Several machines".
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 128_256
    c.model = registry.spec(
        "models",
        "llama",
        layers=32,
        width=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        mlp=14_336,
        rope_base=500_000.0,
        how="scan",
        remat="full",
    )
    c.objective.chunk = 512
    c.optimizer.update(name="adamw", learning_rate=3e-4, weight_decay=0.1)
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    # 20 tokens a parameter, in batches of four million tokens.
    c.train.update(tokens=161_000_000_000, batch_size=512, seq_len=8192, accumulate=64)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    c.mesh = (("fsdp", -1),)
    return config.debug(c) if arg.debug else c
