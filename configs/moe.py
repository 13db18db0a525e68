"""A mixture of experts: 270M parameters, of which the products of a token take 55M.

    python -m llm.main --config=configs/moe.py:text=PATH --workdir=runs/moe

PATH is a folder of text files, or one file; without `text=`, the standard library of
this Python, which is far too little for this size. `configs/moe.py:debug` runs the same
steps in their smallest form.

The layout of Qwen 3 MoE (arXiv:2505.09388): every layer has 16 experts of which each
token takes 2, no token is dropped, and the auxiliary losses for an even load and small
router logits are those of arXiv:2101.03961 and 2202.08906. `expert_load_max` in the log
is the busiest expert's share of the tokens, 1/16 where the load is even. On a mesh with
an axis `expert`, experts lie on different devices:
`--config.mesh="(('data', 2), ('expert', 4))"`.

Expected: not run yet beyond its debug form, so there is no figure to compare with; a
TPU VM of 8 chips is meant.
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base("pipeline")
    c.data.source = config.source(arg.text)
    c.tokenizer.vocab_size = 32_768
    c.model = registry.spec(
        "models",
        "moe",
        layers=12,
        width=512,
        heads=8,
        kv_heads=4,
        head_dim=64,
        mlp=768,
        experts=16,
        top_k=2,
        remat="minimal",
    )
    c.objective.chunk = 512
    c.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.1)
    c.schedule.update(name="cosine", warmup=0.02, final=0.1)
    c.train.update(tokens=2_500_000_000, batch_size=512, seq_len=1024, accumulate=4)
    c.train.update(log_every=10, validate_every=500, checkpoint_every=500)
    c.mesh = (("fsdp", -1),)
    return config.debug(c) if arg.debug else c
