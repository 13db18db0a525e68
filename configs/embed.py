"""Texts as vectors, of any model: those near each other mean something alike.

    python -m llm.main --config=configs/embed.py --workdir=runs/embed \\
        --config.embed.texts="('def add(a, b):', 'def plus(x, y):', 'import os')"

`--config.embed.path=FILE` takes a file with a text a line. Writes embeddings.npy (a row
a text, float32) and embed.json, and prints the pairs that are most alike. An encoder
that was trained for it does far better than a language model as it is:
`--config.embed.model_dir=FOLDER` also takes a Hugging Face folder. How its tokens make
one vector is a property of the model: `embed.pooling` is mean, first (BERT's [CLS]) or
last.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("embed")
    c.embed.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
