"""A look inside a model: who attends to whom, what each layer would say, near words.

`look` asks any model of ours for its attention and its stream, through the one
`capture` of the contract; the logit lens (nostalgebraist 2020) reads the stream after
every layer as if it were the last. Neighbours and analogies are of the embedding.

`L layers, N heads, T tokens, D width, V vocab`
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from llm.nn.contract import Inputs
from llm.precision import dense


class Look(NamedTuple):
    """What one text does to a model.

    Attributes:
      attention: {name: LNTS}, shares that each query gives; an encoder-decoder has
        three kinds; empty for recurrent models.
      top_ids, top_shares: the most likely tokens after every layer, LTK, and how likely
        they are.
    """

    attention: dict[str, np.ndarray]
    top_ids: np.ndarray
    top_shares: np.ndarray


def look(model: Any, params: Any, inputs: Inputs, *, top: int = 5) -> Look:
    """Runs one row of `inputs` through a model.

    Args:
      top: how many tokens the logit lens lists.
    """

    def inside(m):
        seen = m(inputs, capture=("attention", "residual")).seen
        lens = m.head(m.last_norm(seen["residual"][:, 0]))
        shares_LTV = jax.nn.softmax(lens.logits(model.policy), axis=-1)
        return seen, jax.lax.top_k(shares_LTV, top)

    seen, (shares_LTK, ids_LTK) = jax.jit(
        lambda p: model.apply({"params": p}, method=inside)
    )(params)
    attention = {
        name: np.asarray(value[:, 0])
        for name, value in seen.items()
        if name.endswith("attention")
    }
    return Look(attention, np.asarray(ids_LTK), np.asarray(shares_LTK))


def neighbours(
    embedding_VD: np.ndarray, vector_D: np.ndarray, count: int, without: tuple = ()
) -> list[tuple[int, float]]:
    """(id, cosine) of the embeddings nearest in direction, best first.

    Args:
      without: ids that do not count.
    """
    lengths_V = np.linalg.norm(embedding_VD, axis=1) * np.linalg.norm(vector_D)
    cosine_V = embedding_VD @ vector_D / np.maximum(lengths_V, 1e-12)
    cosine_V[list(without)] = -np.inf
    best = np.argsort(-cosine_V, kind="stable")[:count]
    return [(int(i), float(cosine_V[i])) for i in best]


def analogy(
    embedding_VD: np.ndarray, a: int, b: int, c: int, count: int
) -> list[tuple[int, float]]:
    """What is to `c` as `b` is to `a` (Mikolov et al. 2013): near b - a + c."""
    unit_VD = embedding_VD / np.maximum(
        np.linalg.norm(embedding_VD, axis=1, keepdims=True), 1e-12
    )
    target_D = unit_VD[b] - unit_VD[a] + unit_VD[c]
    return neighbours(embedding_VD, target_D, count, without=(a, b, c))


def embedding_of(params: Any) -> np.ndarray:
    """The token embedding, [V, D]."""
    return np.asarray(dense(params["embed"]["embedding"]), np.float32)
