"""Asks a trained classifier about texts of your own.

    python -m llm.main --config=configs/predict.py --workdir=runs/predict \\
        --config.predict.texts="('import asyncio', 'root = Tk()')"

`--config.predict.path=FILE` takes a file with a text a line. Prints the most likely
class of each, and writes predict.json with the probabilities of all. The classifier is
that of `configs/classify.py`; `--config.predict.model_dir=RUN` names another. Seconds.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("predict")
    c.predict.model_dir = "runs/classify"
    return config.debug(c) if arg.debug else c
