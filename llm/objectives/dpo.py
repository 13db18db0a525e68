"""Direct preference optimisation (arXiv:2305.18290): preferred answers become likelier.

Of a question with a chosen and a rejected answer, `ratio` is how much likelier than
under the reference, the model that training began with, the model finds the chosen
answer than the rejected one, in nats:

    ratio = (chosen - chosen_reference) - (rejected - rejected_reference)
    z     = beta * ratio - margin

    sigmoid   -(1 - smoothing) * log sigmoid(z) - smoothing * log sigmoid(-z)
    hinge     max(0, 1 - z)                                  (SLiC, arXiv:2305.10425)
    ipo       (ratio - 1 / (2 * beta))**2                         (arXiv:2310.12036)

`length` says whether the likelihood of an answer is the sum over its tokens, its end
among them, or their mean. With `mean`, a `margin` and without a reference it is SimPO
(arXiv:2405.14734), which needs no second forward pass:

    configs/dpo.py:beta=2.0 --config.objective.length=mean \\
        --config.objective.margin=1.0 --config.objective.reference=False

Of IPO, the paper has the sum; its authors took the mean, says TRL, and so does
`configs/dpo.py:form=ipo`. Smoothing, the share of labels that are wrong, is that of
conservative DPO. Robust DPO (arXiv:2403.00409) subtracts the second term instead of
adding it, and divides by 1 - 2 * smoothing.

The mean is over pairs. A row holds whole pairs, each answer with its own copy of the
question (`llm/data/preference_rows.py`).

`B batch, P pairs of a row`
"""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from llm.data import preference_rows
from llm.errors import InputError
from llm.knobs import Above0, Amount, Range
from llm.losses import answer_logprobs
from llm.nn.contract import inputs_of
from llm.objectives import Objective

TINY = {}
FORMS, LENGTHS = ("sigmoid", "ipo", "hinge"), ("sum", "mean")


def make(
    *,
    beta: Above0 = 0.1,
    form: Literal[FORMS] = "sigmoid",
    length: Literal[LENGTHS] = "sum",
    margin: Amount = 0.0,
    smoothing: Annotated[float, Range(0, 0.5, below=True)] = 0.0,
    reference: bool = True,
    **given: Any,
) -> Objective:
    """Direct preference optimisation.

    Args:
      beta: how dear it is to leave the reference.
      form: the loss of a pair: sigmoid (DPO), ipo or hinge.
      length: whether the likelihood of an answer is the sum or the mean of its tokens'.
      margin: by how much beta * ratio should be above 0 at least.
      smoothing: share of preferences that are taken to be the wrong way round.
      reference: whether likelihoods are relative to those of the first parameters.

    Raises:
      InputError: a margin or a smoothing that the form has no place for.
    """
    del given
    _check_form(form, margin, smoothing)
    loss_of = {
        "sigmoid": lambda ratio: _sigmoid_loss(beta * ratio - margin, smoothing),
        "hinge": lambda ratio: jax.nn.relu(1 - beta * ratio + margin),
        "ipo": lambda ratio: jnp.square(ratio - 1 / (2 * beta)),
    }[form]

    def loss(apply, params, batch, *, reference=None, rngs=None, policy):
        inputs = inputs_of(batch)

        def likelihoods(params, rngs):
            _, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
            logprob_BP2, tokens_BP2 = answer_logprobs(head, batch, policy=policy)
            if length == "mean":
                logprob_BP2 = logprob_BP2 / jnp.maximum(tokens_BP2, 1.0)
            return logprob_BP2, tokens_BP2

        score_BP2, tokens_BP2 = likelihoods(params, rngs)
        if reference is not None:
            score_BP2 -= jax.lax.stop_gradient(likelihoods(reference, None)[0])
        ratio_BP = score_BP2[..., 0] - score_BP2[..., 1]
        pair_BP = (tokens_BP2.min(axis=-1) > 0).astype(jnp.float32)
        weight = pair_BP.sum()
        over_pairs = lambda x_BP: (jnp.sum(pair_BP * x_BP), weight)  # noqa: E731
        metrics = {
            "loss": over_pairs(loss_of(ratio_BP)),
            "accuracy": over_pairs(ratio_BP > 0),
            "margin": over_pairs(beta * ratio_BP),
            "chosen_reward": over_pairs(beta * score_BP2[..., 0]),
            "rejected_reward": over_pairs(beta * score_BP2[..., 1]),
        }
        return metrics["loss"][0], weight, metrics

    return Objective(
        kinds=("causal",),
        features=preference_rows.features,
        loss=loss,
        room=lambda seq_len: ((preference_rows.PARTS, seq_len + 1),),
        reference=reference,
    )


def _sigmoid_loss(z_BP: jax.Array, smoothing: float) -> jax.Array:
    right_BP, wrong_BP = jax.nn.log_sigmoid(z_BP), jax.nn.log_sigmoid(-z_BP)
    return -(1 - smoothing) * right_BP - smoothing * wrong_BP


def _check_form(form: str, margin: float, smoothing: float) -> None:
    """Raises InputError for a knob that the form of the loss does not have."""
    if form == "ipo" and margin:
        raise InputError(
            got=f"objective.margin {margin} with objective.form 'ipo'",
            want="0: its margin is 1 / (2 * objective.beta)",
        )
    if form != "sigmoid" and smoothing:
        raise InputError(
            got=f"objective.smoothing {smoothing} with objective.form {form!r}",
            want="0, or objective.form 'sigmoid'",
        )
