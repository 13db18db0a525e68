"""From nothing to a small language model of Python, on two CPU cores.

python -m llm.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from llm import config, registry


def get_config(arg=None):
    arg = config.parse_arg(arg, text="", debug=False)
    c = config.base()
    c.workload = "pipeline"
    c.data.source = config.source(arg.text)
    c.model = registry.spec(
        "models",
        "llama",
        layers=4,
        width=256,
        heads=4,
        kv_heads=2,
        head_dim=64,
        mlp=704,
        how="unroll",
    )
    c.optimizer.update(
        name="muon", learning_rate=3e-3, muon_learning_rate=0.02, weight_decay=0.1
    )
    c.train.update(
        steps=400, batch_size=32, seq_len=256, validate_every=100, checkpoint_every=200
    )
    return config.debug(c) if arg.debug else c
