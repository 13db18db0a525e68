"""A decoder of 350M parameters, the size of GPT-2 medium, trained with Muon.

    python -m llm.main --config=configs/350m.py:text=PATH --workdir=runs/350m

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/350m.py:debug` runs the
same steps in their smallest form.

Planned by `configs/plan.py`, not measured: 350,280,704 parameters, 7 billion tokens (20
a parameter) at 40 % MFU and list prices:

    8 x v5e (one TPU VM)   6h47m    $65   9.6 of 16 GiB a chip
    1 x h100               10h49m   $32   41 of 80 GiB, train.accumulate=16

Expected: runs on any of these; the recipe is not tuned at this size and has no figure
to compare with yet.
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
        layers=24,
        width=1024,
        heads=8,
        kv_heads=4,
        head_dim=128,
        mlp=2816,
        how="scan",
        remat="minimal",
    )
    c.objective.chunk = 512
    c.optimizer.update(
        name="muon", learning_rate=2e-3, muon_learning_rate=0.02, weight_decay=0.1
    )
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    # 20 tokens a parameter, in batches of half a million tokens.
    c.train.update(tokens=7_000_000_000, batch_size=256, seq_len=2048, accumulate=8)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    c.mesh = (("fsdp", -1),)
    return config.debug(c) if arg.debug else c
