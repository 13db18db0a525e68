"""A decoder of 126M parameters, the size of the smallest GPT-2, trained with Muon.

    python -m llm.main --config=configs/125m.py:text=PATH --workdir=runs/125m

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/125m.py:debug` runs the
same steps in their smallest form.

Planned by `configs/plan.py`, not measured: 125,849,856 parameters, 2.5 billion tokens
(20 a parameter) at 40 % MFU and list prices:

    8 x v5e (one TPU VM)   44 minutes   $7      8.2 of 16 GiB a chip
    1 x h100               1h09m        $3.50   65 of 80 GiB
    1 x rtx4090            7 hours      $4.80   10 of 24 GiB, train.accumulate=32

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
        layers=12,
        width=768,
        heads=12,
        kv_heads=4,
        head_dim=64,
        mlp=2048,
        how="scan",
        remat="minimal",
    )
    c.objective.chunk = 512
    c.optimizer.update(
        name="muon", learning_rate=3e-3, muon_learning_rate=0.02, weight_decay=0.1
    )
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    # 20 tokens a parameter, in batches of half a million tokens.
    c.train.update(tokens=2_500_000_000, batch_size=512, seq_len=1024, accumulate=4)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    c.mesh = (("fsdp", -1),)
    return config.debug(c) if arg.debug else c
