"""What a model will be trained on, to look at: tokens, and which of them it learns.

Learned tokens are green on a terminal, and stand in brackets elsewhere; each token is
followed by a thin bar, so that one sees where it ends.

    python -m llm.main --config=configs/sft.py --workdir=runs/sft --config.preview=8
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_LEARNED, _GIVEN, _PLAIN = "\033[1;32m", "\033[2m", "\033[0m"
_BAR = "\u2502"


def show(rows: Iterable[Mapping[str, np.ndarray]], tokenizer: Any, count: int) -> None:
    """Prints the first documents of some rows.

    Args:
      rows: features of rows, as an objective makes them.
    """
    coloured = sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))
    shown = 0
    for row in rows:
        for number in np.unique(row["segments"][row["segments"] > 0]):
            shown += 1
            print(f"--- {shown}", flush=True)
            if "source_tokens" in row:
                source = row["source_tokens"][row["source_segments"] == number]
                print(_text(tokenizer, source, np.zeros(len(source)), coloured))
            print(_text(tokenizer, *_document(row, number), coloured))
            if shown == count:
                return


def _document(row, number) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a document, and which are learned: the first never is.

    A target that is not learned shows as the next input, if that is there.
    """
    mine = np.flatnonzero(row["segments"] == number)
    targets, weights = row["targets"][mine], row["weights"][mine]
    if "source_tokens" in row:  # the decoder's first input is no token of a text
        return targets, weights
    tokens = np.concatenate([row["tokens"][mine], targets[-1:]])
    shifted = (row["tokens"][mine][1:] == targets[:-1]).all()
    if not shifted:  # each place has a target of its own, as of a masked model
        return row["tokens"][mine], weights
    learned = np.concatenate([[0], weights])
    last = len(tokens) if weights[-1] else len(tokens) - 1
    return tokens[:last], learned[:last]


def _text(
    tokenizer: Any, tokens: Sequence[int], learned: np.ndarray, coloured: bool
) -> str:
    parts = []
    known = tokenizer.vocab_size
    for token, weight in zip(tokens, learned, strict=True):
        piece = tokenizer.pieces([token])[0] if token < known else f"<{token}>"
        if coloured:
            parts.append(f"{_LEARNED if weight else _GIVEN}{piece}{_PLAIN}{_BAR}")
        else:
            parts.append(f"[[{piece}]]" if weight else f"{piece}{_BAR}")
    return "".join(parts)
