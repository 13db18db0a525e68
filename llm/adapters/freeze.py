"""Some parameters are trained, the others stay: no gradient, no moments, no copies.

    adapter.name=freeze adapter.train='classifier/.*|.*norm.*'

trains a classifier and the norms of a model that is otherwise left alone.
"""

import re

from llm.adapters import Adapter, named_boxes, nested
from llm.errors import InputError
from llm.tree import named_leaves

TINY = {"train": ".*scale"}


def make(*, train: str = "") -> Adapter:
    """Freezes what is not named.

    Args:
      train: regular expression of the leaves that are trained.

    Raises:
      InputError: none, one that is not a regular expression, or, when parameters are
        there, one that names nothing.
    """
    try:
        pattern = re.compile(train)
    except re.error as error:
        raise InputError(
            got=f"adapter.train {train!r} ({error})", want="a regular expression"
        ) from error

    def split(key, boxed):
        leaves = named_boxes(boxed)
        mine = {n: x for n, x in leaves.items() if pattern.fullmatch(n)}
        if not mine:
            raise InputError(
                got=f"adapter.train {train!r}, which names no parameter",
                want=f"a regular expression of some of {', '.join(leaves)}",
            )
        rest = {n: x for n, x in leaves.items() if n not in mine}
        return nested(mine), nested(rest)

    return Adapter(
        split=split,
        join=lambda mine, rest: nested(named_leaves(mine) | named_leaves(rest)),
        plain=lambda params: params,
    )
