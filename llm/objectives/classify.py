"""Classification: which class a text, or each of its tokens, belongs to.

A classifier of the hidden states, a kernel and a bias, is trained with the model, from
the labels that `stages/label.py` and its like give to documents. Where it is asked
decides what it is: a text is asked about once, at its first token (for a model that
sees both ways) or its last (for one that sees the past), and `every` asks at every
token that has a label. Rows may hold several documents: each is asked about on its own.
Long ones are cut anywhere and asked about in every row that holds enough of them; with
`whole` each stands whole in one row, or its beginning where it is longer than that.

`B batch, T tokens, D width, C classes`
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm.errors import InputError
from llm.knobs import Positive
from llm.losses import Head, batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective
from llm.precision import matmul

TINY = {"classes": ("code", "prose"), "least": 1}
ASK = ("first", "last", "every")


def make(
    *,
    classes: tuple[str, ...] = (),
    ask: Literal[ASK] = "last",
    least: Positive = 8,
    whole: bool = False,
    vocab_size: int,
    tokenizer: Any = None,
) -> Objective:
    """Classification.

    Args:
      classes: labels to tell apart; texts and tokens with others are not asked about.
      ask: where: at the 'first' or 'last' token of a text, or at 'every' one.
      least: tokens of a text that a row must hold to be asked about it, as rows are cut
        anywhere; 'every' asks in any case.
      whole: whether texts stay whole, for short ones, and long ones are cut off.

    Raises:
      InputError: fewer than two classes, or no such place.
    """
    del vocab_size, tokenizer
    if len(set(classes)) < max(len(classes), 2):
        raise InputError(
            got=f"objective.classes {tuple(classes)}", want="two different ones or more"
        )
    number = {name: i for i, name in enumerate(classes)}

    def features(record, rng):
        tokens, segments = record["tokens"][:-1], record["segments"][:-1]
        targets = _classes(record, number)[:-1]
        asked = (segments > 0) & (targets >= 0)
        if ask != "every":
            asked &= _ends(segments, ask == "first") & (_sizes(segments) >= least)
        return {
            "tokens": tokens,
            "targets": np.maximum(targets, 0),
            "positions": record["positions"][:-1],
            "segments": segments,
            "weights": asked.astype(np.int32),
        }

    def extend(key, params, width):
        kernel_DC = jax.random.normal(key, (width, len(classes))) * width**-0.5
        own = {
            "kernel": nn.LogicallyPartitioned(kernel_DC, names=("embed", "classes")),
            "bias": nn.LogicallyPartitioned(
                jnp.zeros(len(classes)), names=("classes",)
            ),
        }
        return {**params, "classifier": own}

    def loss(apply, params, batch, *, rngs=None, policy):
        inputs = inputs_of(batch)
        output, _ = apply(params, inputs, train=rngs is not None, rngs=rngs)
        own = params["classifier"]
        head = Head(output.hidden_BTD, own["kernel"], own["bias"])
        return batch_loss(head, output.sums, batch, z_loss=0.0, chunk=0, policy=policy)

    def predict(apply, params, inputs, policy):
        own = params["classifier"]
        hidden_BTD = apply({"params": params}, inputs).hidden_BTD
        lengths_B = (inputs.segments_BT > 0).sum(axis=1)
        place_B = lengths_B - 1 if ask == "last" else jnp.zeros_like(lengths_B)
        asked_BD = hidden_BTD[jnp.arange(len(place_B)), place_B]
        return matmul(asked_BD, own["kernel"], policy) + own["bias"][None]

    return Objective(
        kinds=("causal", "masked"),
        features=features,
        loss=loss,
        predicts_tokens=False,
        extend=extend,
        room=(lambda seq_len: (((), seq_len),)) if whole else None,
        classes=tuple(classes),
        predict=None if ask == "every" else predict,
        reads_end=ask == "last",
    )


def _classes(record: dict[str, Any], number: dict[str, int]) -> np.ndarray:
    """The class of each token of a record, -1 where it has none of ours."""
    if "labels" not in record:
        raise InputError(
            got="objective 'classify' with texts that have no labels",
            want="a stage in data.stages that gives them, such as label",
        )
    names = record.get("label_names", ())
    if names and not number.keys() & set(names):
        raise InputError(
            got=f"objective.classes {', '.join(number)}",
            want=f"labels of these texts: {', '.join(names)}",
        )
    # The last one stands for -1, no label.
    table = np.array([*(number.get(name, -1) for name in names), -1], np.int32)
    return table[record["labels"]]


def _sizes(segments: np.ndarray) -> np.ndarray:
    """The number of tokens of each token's segment."""
    return np.bincount(segments)[segments]


def _ends(segments: np.ndarray, first: bool) -> np.ndarray:
    """Where the segments of a row begin, or where they end."""
    changes = segments[1:] != segments[:-1]
    return np.concatenate([[True], changes] if first else [changes, [True]])
