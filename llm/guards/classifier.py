"""Finds texts that a classifier of yours gives a label: objective `classify`.

`B batch, T tokens, D width, C classes`

A text is looked at as a whole, what was said of it before included, every so many
characters; so of an answer, a stretch may pass that only its end makes bad.
"""

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
    from llm.inference.class_probabilities import classes_of
    from llm.inference.prompt_rows import inputs_of

    loaded = load_model.load(model_dir, device)
    model, objective = loaded.model, loaded.objective
    classes = classes_of(loaded)
    if label not in classes:
        raise InputError(
            got=f"label {label!r} of {model_dir}, a run of "
            f"{loaded.config.objective.name!r}",
            want=f"one of {', '.join(classes) or 'the classes of a classifier'}",
        )
    most, number = loaded.config.train.seq_len, classes.index(label)

    @jax.jit
    def share(params, inputs):
        logits_BC = objective.predict(model.apply, params, inputs, model.policy)
        return jax.nn.softmax(logits_BC[0].astype(jnp.float32))[number]

    def find(text):
        # As in training: what begins a text, and the end of one that is too long.
        tokenizer = loaded.tokenizer
        start = tokenizer.start()
        ids = [*start, *tokenizer.encode(text)[-(most - len(start)) :]]
        if not ids or not text.strip():
            return []
        inputs = inputs_of([ids], multiple=_STEP)
        found = float(np.asarray(share(loaded.params, inputs)))
        return [(0, len(text))] if found >= threshold else []

    return find, 0, every
