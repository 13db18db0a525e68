"""Finds texts that a classifier of yours gives a label: objective `classify`.

`B batch, T tokens, D width, C classes`

A text is looked at as a whole, what was said of it before included, every so many
characters; so of an answer, a stretch may pass that only its end makes bad.
"""

import functools
from collections.abc import Callable
from typing import Any

from llm.errors import InputError
from llm.knobs import Positive, ShareAbove0

TINY = {"model_dir": "runs/classify", "label": "code"}
_STEP = 32  # tokens: few shapes, few compilations

Found = Callable[[str], list[tuple[int, int]]]


def make(
    *,
    model_dir: str = "",
    label: str = "",
    threshold: ShareAbove0 = 0.5,
    every: Positive = 200,
    device: Any,
) -> tuple[Found, int, int]:
    """(find, reach, every) of a check.

    Args:
      model_dir: a run of the objective `classify`.
      label: the class that is not wanted.
      threshold: the least probability of it that counts.
      every: characters of an answer between two looks.

    Raises:
      InputError: no such run or label, or a threshold that is no probability.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from llm.inference import load_model
    from llm.inference.prompt_rows import inputs_of

    loaded = load_model.load(model_dir, device)
    objective = loaded.config.objective
    classes = tuple(objective.get("classes", ()))
    if objective.name != "classify" or label not in classes:
        raise InputError(
            got=f"label {label!r} of {model_dir}, a run of {objective.name!r}",
            want=f"one of {', '.join(classes) or 'the classes of a classifier'}",
        )
    own, most = loaded.params["classifier"], loaded.config.train.seq_len
    number, at_first = classes.index(label), objective.ask == "first"

    @functools.partial(jax.jit, static_argnums=0)
    def share(model, params, inputs):
        hidden_BTD = model.apply({"params": params}, inputs).hidden_BTD
        last = 0 if at_first else inputs.segments_BT.sum() - 1
        logits_C = hidden_BTD[0, last].astype(jnp.float32) @ own["kernel"] + own["bias"]
        return jax.nn.softmax(logits_C)[number]

    def find(text):
        # As in training: what begins a text, and the end of one that is too long.
        tokenizer = loaded.tokenizer
        start = tokenizer.start()
        ids = [*start, *tokenizer.encode(text)[-(most - len(start)) :]]
        if not ids or not text.strip():
            return []
        params = {k: v for k, v in loaded.params.items() if k != "classifier"}
        inputs = inputs_of([ids], multiple=_STEP)
        found = float(np.asarray(share(loaded.model, params, inputs)))
        return [(0, len(text))] if found >= threshold else []

    return find, 0, every
