"""The config of a run, once more: to repeat it, or to train longer what a sweep found.

    python -m llm.main --config=configs/again.py:run=runs/quickstart \\
        --workdir=runs/again --config.seed=1

`run=` is a run directory, or its config.json; `run=...,debug` is the smallest form. The
result is that of the run, as far as the fields that follow allow: here one sees how
much of it is the seed.
"""

from llm import config
from llm.errors import InputError


def get_config(arg=None):
    text = arg or ""
    path = text.removeprefix("debug,").removesuffix(",debug")
    if not path.startswith("run="):
        raise InputError(got=f"argument {text!r}", want="run=DIR, a run directory")
    c = config.of_run(path.removeprefix("run="))
    return config.debug(c) if path != text else c
