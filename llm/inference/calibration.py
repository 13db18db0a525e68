"""How large the inputs of a model's kernels are on a text: what errors there cost.

An error in a weight changes an output by the error times the input, so that a kernel's
squared error counts best where its inputs are large (arXiv:2306.00978). The squares are
means over tokens, of the model as it is, before anything of it is compressed.

`B windows, T length of a window, K inputs of a kernel`
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from llm import tree
from llm.errors import InputError
from llm.inference.load_model import Loaded
from llm.nn.contract import plain_inputs
from llm.nn.dense import Dense

_NOTES = "intermediates"  # the collection that a scan of layers stacks
_NAME = "squares"


def input_squares(
    loaded: Loaded, texts: Sequence[str], *, rows: int = 128, length: int = 512
) -> dict[str, jax.Array]:
    """{name of a kernel: mean square of each of its inputs, [K], or [L, K] of a stack}.

    Args:
      rows, length: at most so many windows of so many tokens, of the beginning of the
        texts.

    Raises:
      InputError: the texts do not fill one window of the model.
    """
    tokens_BT = _windows(loaded, texts, rows, length)

    @jax.jit
    def squares(params, tokens_BT):
        with nn.intercept_methods(_note):
            _, noted = loaded.model.apply(
                {"params": params}, plain_inputs(tokens_BT), mutable=[_NOTES]
            )
        return noted[_NOTES]

    total = None
    for row_T in tokens_BT:
        seen = squares(loaded.params, row_T[None])
        total = seen if total is None else jax.tree.map(jnp.add, total, seen)
    named = tree.named_leaves(jax.tree.map(lambda x: x / len(tokens_BT), total))
    return {
        f"{name.partition(f'/{_NAME}')[0]}/kernel": mean for name, mean in named.items()
    }


def _note(call, args, kwargs, context):
    """Keeps the mean square of each input of a product with a kernel."""
    module, given = context.module, args[0] if args else None
    if isinstance(module, Dense) and isinstance(given, jax.Array):
        inputs, kernel = module.spec.partition("->")[0].split(",")
        contracted = len(set(inputs) & set(kernel))
        size = int(np.prod(module.shape[:contracted]))
        flat = jnp.square(given.astype(jnp.float32)).reshape(-1, size)
        module.sow(_NOTES, _NAME, flat.mean(axis=0))
    return call(*args, **kwargs)


def _windows(loaded: Loaded, texts: Sequence[str], rows: int, length: int):
    """[B, T] tokens: the texts one after another, whole windows only."""
    length = min(length, loaded.config.train.seq_len)
    tokenizer, ids = loaded.tokenizer, []
    for text in texts:
        ids += [*tokenizer.start(), *tokenizer.encode(text)]
        if len(ids) >= rows * length:
            break
    count = min(len(ids) // length, rows)
    if not count:
        raise InputError(
            got=f"a text of {len(ids)} tokens to calibrate on",
            want=f"{length} or more",
            do="name a longer one: --config.compress.calibration=PATH",
        )
    return np.array(ids[: count * length], np.int32).reshape(count, length)
