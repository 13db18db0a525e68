"""Texts to token ids, in this process or in several, in the order of the texts.

    with encoder(tokenizer, "runs/quickstart/tokenizer", processes=8) as encode:
        for ids in encode(texts): ...

A process loads the tokenizer itself, takes about a megabyte of texts at a time, and
gives back one array; only so many wait to be taken.
"""

import collections
import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from etils import epath

from llm.corpus import workers
from llm.tokenizers import Tokenizer
from llm.tokenizers import sentencepiece_tokenizer as tokenizers

Encode = Callable[[Iterable[str]], Iterator[list[int]]]

_AT_ONCE = 64  # texts
_BLOCK = 1 << 20  # characters that a process is given at once
_held: list[Tokenizer] = []  # of this process, if it is one of several


@contextlib.contextmanager
def encoder(
    tokenizer: Tokenizer, folder: epath.PathLike = "", processes: int = 1
) -> Iterator[Encode]:
    """What encodes texts.

    Args:
      folder: of the tokenizer, which other processes load.

    Raises:
      InputError: a process that was ended.
    """
    if processes == 1:
        yield functools.partial(here, tokenizer)
        return
    with workers.pool(processes, functools.partial(_load, os.fspath(folder))) as pool:
        yield functools.partial(_spread, pool, 2 * processes)


def here(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of each text, by this process."""
    texts = iter(texts)
    while some := list(itertools.islice(texts, _AT_ONCE)):
        yield from tokenizer.encode_batch(some)


def _spread(pool, most: int, texts: Iterable[str]) -> Iterator[list[int]]:
    waiting = collections.deque()
    for block in _blocks(texts):
        waiting.append(pool.submit(_encode, block))
        if len(waiting) > most:
            yield from _apart(*waiting.popleft().result())
    while waiting:
        yield from _apart(*waiting.popleft().result())


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block, size = [], 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _load(folder: str) -> None:
    _held.append(tokenizers.load(folder))


def _encode(texts: list[str]) -> tuple[np.ndarray, list[int]]:
    """(ids of all texts, how many each has)."""
    rows = list(here(_held[0], texts))
    sizes = [len(row) for row in rows]
    ids = itertools.chain.from_iterable(rows)
    return np.fromiter(ids, np.int32, sum(sizes)), sizes


def _apart(ids: np.ndarray, sizes: list[int]) -> Iterator[list[int]]:
    start = 0
    for size in sizes:
        yield ids[start : start + size].tolist()
        start += size
