"""A small BERT that says which package a piece of code is from.

    python -m llm.main --config=configs/classify.py --workdir=runs/classify

or, token by token, what an editor would colour: keyword, name, string, comment, …

    python -m llm.main --config=configs/classify.py:what=tokens --workdir=runs/tokens

From nothing, in some minutes of two CPU cores: the standard library is cleaned and
labelled, a tokenizer and the network trained, and evaluate.json says what share of the
test split is right. Expected of packages: 75% of ten classes, in 3.5 minutes (Python
3.11, two cores; it overfits after 400 of its 600 steps, and the best checkpoint is the
one that is scored). `configs/classify.py:text=FOLDER` tells the subfolders of your own
FOLDER apart, one class each; `data=FILE` the labels of records `{"text": ...,
"label": ...}`; `:debug` is the smallest form. `model=MODEL` begins with a model that
there is, as in configs/sft.py, such as a BERT; of a decoder, which sees only what came
before, `ask=last` asks at the last token of a text.
"""

import pathlib

from llm import config, registry
from llm.errors import InputError

_PACKAGES = (
    "asyncio",
    "ctypes",
    "email",
    "idlelib",
    "importlib",
    "lib2to3",
    "multiprocessing",
    "tkinter",
    "unittest",
    "xml",
)


def get_config(arg=None):
    arg = config.parse_arg(
        arg, what="packages", text="", data="", model="", ask="first", debug=False
    )
    c = config.base("pipeline")
    if arg.data:
        config.records(c, arg.data, task="")
        classes = _classes(arg.data)
    else:
        c.data.source = config.source(arg.text)
        stage, knobs, classes = _labels(arg)
        c.data.stages = (*c.data.stages, stage)
        c.data.stage[stage] = registry.spec("stages", stage, **knobs)
        del c.data.stage[stage]["name"]
    c.data.update(validation_fraction=0.1, test_fraction=0.1)
    c.tokenizer.vocab_size = 2048
    c.model = registry.spec(
        "models", "bert", layers=4, width=128, heads=4, length=256, mlm_head=False,
        dropout=0.1,
    )  # fmt: skip
    c.init_from = arg.model
    ask = "every" if arg.what == "tokens" else arg.ask
    c.objective = registry.spec("objectives", "classify", classes=classes, ask=ask)
    if arg.data:
        c.objective.update(least=1, whole=True)
    c.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.01, b2=0.99)
    c.schedule.update(name="linear", warmup=0.1, final=0.0)
    c.train.update(steps=600, batch_size=16, seq_len=256, log_every=20)
    c.train.update(validate_every=200, checkpoint_every=200)
    c.evaluate.update(tasks=(), objective=True)
    c.generate.prompts = ()
    if arg.debug:
        c = config.debug(c)
        if arg.what == "packages":  # some of each
            c.data.source.max_documents = 0 if arg.text or arg.data else 400
    return c


def _classes(path):
    """The labels of a file of records."""
    source = registry.build("sources", registry.spec("sources", "records", path=path))
    found = {d.meta.get("label") for d in source(lambda reason, id: None)}
    if None in found or len(found) < 2:
        raise InputError(
            got=f"{path}, with labels {', '.join(map(str, sorted(map(str, found))))}",
            want='records of {"text": ..., "label": ...} with two labels or more',
        )
    return tuple(sorted(found))


def _labels(arg):
    """(stage, its knobs, classes)."""
    if arg.what == "tokens":
        return "python_tokens", {}, registry.module("stages", "python_tokens").NAMES
    if arg.what != "packages":
        raise InputError(got=f"what={arg.what}", want="packages or tokens")
    classes = _PACKAGES
    if arg.text:
        folder = pathlib.Path(arg.text)
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        classes = tuple(
            p.name for p in inside if p.is_dir() and not p.name.startswith(".")
        )
        if len(classes) < 2:
            raise InputError(
                got=f"{arg.text}, with {len(classes)} subfolders",
                want="a folder with a subfolder for each class, two or more",
            )
    return "label", {"field": "group", "names": classes}, classes
