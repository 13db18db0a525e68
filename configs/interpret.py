"""A look inside a trained run: attention maps, the logit lens, near words.

    python -m llm.main --config=configs/interpret.py --workdir=runs/interpret \\
        --config.interpret.model_dir=runs/quickstart \\
        --config.interpret.prompt="def read_lines(path):"

Prints what each layer would say after the prompt, and writes interpret.json and
interpret.html with a heat map for every head. `interpret.words="('self',)"` lists the
nearest embeddings of words that are one token each, `interpret.analogies` what is to
the third word as the second is to the first. A few seconds on a laptop.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("interpret")
    c.interpret.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
