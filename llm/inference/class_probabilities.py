"""A trained classifier asked about texts: the probability of each class.

A text stands in a row as in training: what texts begin with, its tokens, and the end;
the classifier reads the hidden state of its first or of its last token, as it was
trained to.

`B texts, T tokens, D width, C classes`
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm.errors import InputError
from llm.inference.load_model import Loaded
from llm.inference.prompt_rows import inputs_of
from llm.inference.requests import Predicted

_STEP = 32  # tokens: few shapes, few compilations


def classes_of(loaded: Loaded) -> tuple[str, ...]:
    """The classes of a classifier of texts; none of any other model."""
    objective = loaded.objective
    return objective.classes if objective.predict else ()


def classifier(
    loaded: Loaded, *, batch_size: int = 32
) -> Callable[..., list[Predicted]]:
    """A function from texts to what the model says of them, in order.

    Of a text longer than training rows, the first tokens are read (the last ones, if it
    is at the last token that the classifier was trained).

    Raises:
      InputError: a model that is no classifier of texts.
    """
    names, objective = classes_of(loaded), loaded.objective
    if not names:
        raise InputError(
            got=f"a model trained by {loaded.config.objective.name}, to classify texts",
            want="one of an objective that predicts classes of texts, such as classify "
            "at the first or last token",
            do="train one: configs/classify.py",
        )
    model, most = loaded.model, loaded.config.train.seq_len
    tokenizer = loaded.tokenizer

    @jax.jit
    def compiled(params, inputs):
        logits_BC = objective.predict(model.apply, params, inputs, model.policy)
        return jax.nn.softmax(logits_BC.astype(jnp.float32), axis=-1)

    def row(ids):
        whole = [*tokenizer.start(), *ids, *tokenizer.ends[:1]]
        return whole[-most:] if objective.reads_end else whole[:most]

    def run(
        texts: Sequence[str], done: Callable[[int], None] = lambda count: None
    ) -> list[Predicted]:
        rows = [row(ids) for ids in tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda n: -len(rows[n]))
        found: list[Any] = [None] * len(rows)
        for first in range(0, len(rows), batch_size):
            part = order[first : first + batch_size]
            # The last batch is filled up, to be of the same shape.
            filled = [rows[n] for n in [*part, *part[:1] * (batch_size - len(part))]]
            made_BC = np.asarray(
                compiled(loaded.params, inputs_of(filled, multiple=_STEP))
            )
            for number, p_C in zip(part, made_BC, strict=False):
                found[number] = Predicted(
                    dict(zip(names, map(float, p_C), strict=True))
                )
            done(len(part))
        return found

    return run
