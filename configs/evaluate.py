"""Scores a trained run on its held-out split, and on any text of your own.

    python -m llm.main --config=configs/evaluate.py --workdir=runs/evaluate \\
        --config.evaluate.model_dir=runs/quickstart --config.eval_text=README.md

Writes evaluate.json: bits per byte, perplexity and accuracy of the test split, the
share of sampled functions that are valid Python, and the first three for the text. A
training run already scored itself; this is for another split
(`--config.evaluate.split=validation`), other tasks
(`--config.evaluate.tasks="('perplexity',)"`) and other text. Under a minute for the
quickstart's model on two CPU cores.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("evaluate")
    c.evaluate.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
