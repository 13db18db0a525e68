"""The label of every token of a document, from what a stage wrote into its `meta`.

    meta["label"]    the name of one class, for the whole document
    meta["labels"]   [[start, end, name], ...], classes of stretches of characters

A token belongs to the stretch in which its first byte lies that is no white space.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from llm.document import Document
from llm.errors import InputError
from llm.tokenizers import Tokenizer

NONE = -1


def names_of(documents: Iterable[Document]) -> list[str]:
    """Every label that occurs, sorted."""
    found = set()
    for document in documents:
        if "label" in document.meta:
            found.add(document.meta["label"])
        found.update(name for _, _, name in document.meta.get("labels", ()))
    return sorted(found)


def of_tokens(
    document: Document, ids: Sequence[int], tokenizer: Tokenizer, names: Sequence[str]
) -> np.ndarray:
    """The label of each token of a document, as places in `names`; int16.

    Args:
      ids: the document's, with what begins and ends it, which has the document's label
        but is in no stretch.

    Raises:
      InputError: stretches with a tokenizer that does not know the bytes of a token.
    """
    number = {name: i for i, name in enumerate(names)}
    if "label" in document.meta:
        return np.full(len(ids), number[document.meta["label"]], np.int16)
    if not document.meta.get("labels"):
        return np.full(len(ids), NONE, np.int16)
    if tokenizer.piece_bytes is None:
        raise InputError(
            got="labels of stretches with a tokenizer that knows no bytes of a token",
            want="another tokenizer, or labels of whole documents",
        )
    text = document.text
    content = b"".join(tokenizer.piece_bytes[i] for i in ids)
    ahead = len(content) - len(text.encode())  # a space that the tokenizer put there
    sizes = np.array([len(char.encode()) for char in text], np.int64)
    byte_at = np.concatenate([[0], np.cumsum(sizes)]) + ahead
    per_byte = np.full(len(content) + 1, NONE, np.int16)
    for start, end, name in document.meta["labels"]:
        per_byte[byte_at[start] : byte_at[end]] = number[name]
    labels, at = np.full(len(ids), NONE, np.int16), 0
    for i, token in enumerate(ids):
        piece = tokenizer.piece_bytes[token]
        blank = len(piece) - len(piece.lstrip())
        if blank < len(piece):
            labels[i] = per_byte[at + blank]
        at += len(piece)
    return labels
