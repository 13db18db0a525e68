"""Continues prompts with a trained run.

    python -m llm.main --config=configs/generate.py --workdir=runs/generate \\
        --config.generate.model_dir=runs/quickstart \\
        --config.generate.prompts="('def fib(n):', 'import os')"

Prints the samples and writes samples.txt and generate.json; a workdir belongs to one
set of prompts and knobs, so give another to each. `prompts` is a tuple: a single one
ends in a comma, `"('def fib(n):',)"`. Temperature, top_k, top_p, min_p,
repetition_penalty, max_tokens, samples and stop texts are flags of the same kind
(`--config.generate.temperature=0` is greedy), `--config.seed=1` samples anew.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("generate")
    c.generate.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
