"""How likely continuations are after their prompts: `Score` answered by `Likelihood`.

`B rows, T tokens of a row, M targets of a batch, D width`

A prompt and its continuation are made tokens together and cut where the prompt's own
tokens end, spaces at its end being the continuation's: as lm-evaluation-harness does
it, so that figures agree. Of a text too long, the end is read, and the answer says how
many tokens were not. An encoder-decoder reads
the prompt and is scored on the continuation. A masked model is asked for one masked
token at a time, all others in sight: its pseudo-log-likelihood (Salazar et al. 2020).

A row of tokens is read once, whatever is asked of it: the four letters that may answer
one question are four targets of one row. Rows go through the model in the order of
their lengths, in few shapes, and logits are made of the asked tokens alone.

    score = likelihoods(model, params, tokenizer, kind="causal", max_tokens=1024)
    score([Score("2 + 2 =", " 4")])[0].logprob
"""

import difflib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from llm.errors import InputError
from llm.inference.prompt_rows import inputs_of
from llm.inference.requests import Likelihood, Score
from llm.inference.score import prefix, rows_of_a_batch, width_of, without_padding
from llm.losses import token_scores
from llm.nn.contract import has_head, with_head
from llm.tokenizers import Tokenizer

_BLOCK = 32  # targets whose logits exist at once


class Pair(NamedTuple):
    """The ids of a prompt and of what follows it, which are one row of a decoder."""

    prompt: list[int]
    continuation: list[int]


class _Row(NamedTuple):
    """What is read once: ids, and those of a source for an encoder-decoder."""

    ids: tuple[int, ...]
    source: tuple[int, ...] = ()


class _Target(NamedTuple):
    """An id that is asked about at a place of a row, by a request."""

    place: int
    id: int
    request: int


def likelihoods(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    *,
    kind: str,
    max_tokens: int,
    batch_size: int = 32,
    mask_id: int = -1,
) -> Callable[..., list[Likelihood]]:
    """A function from `Score`s to their answers, in order.

    Args:
      kind: of the model: causal, encdec or masked.
      max_tokens: longest row.
      batch_size: rows at once; fewer where they are long.
      mask_id: what stands for a masked token; of a masked model alone.

    Raises:
      InputError: a masked model without a head or a mask token.
    """
    if not has_head(model) or (kind == "masked" and mask_id < 0):
        raise InputError(
            got="likelihoods of a model that predicts no tokens",
            want="a language model with its head and, if masked, its mask token",
        )
    rows_of = {"causal": _causal, "encdec": _encdec, "masked": _masked}[kind]
    apply = with_head(model)

    @jax.jit
    def compiled(params, inputs, row_M, place_M, target_M):
        _, head = apply(params, inputs)
        head = without_padding(head, tokenizer.vocab_size)
        asked_MD = head.hidden_BTD[row_M, place_M]
        blocks = asked_MD.reshape(-1, _BLOCK, asked_MD.shape[-1])
        head = head._replace(hidden_BTD=blocks)
        targets = target_M.reshape(-1, _BLOCK)
        nll, hit = token_scores(head, targets, policy=model.policy)
        return nll.reshape(-1), hit.reshape(-1)

    def run(
        requests: Sequence[Score], done: Callable[[float], None] = lambda count: None
    ) -> list[Likelihood]:
        rows, cut = rows_of(tokenizer, requests, max_tokens, mask_id)
        nats = np.zeros(len(requests))
        count = np.zeros(len(requests), int)
        greedy = np.ones(len(requests), bool)
        for batch in _batches(list(rows), batch_size):
            inputs = _inputs(batch, batch_size)
            asked = [(b, t) for b, row in enumerate(batch) for t in rows[row]]
            size = _BLOCK << max((len(asked) - 1) // _BLOCK, 0).bit_length()
            row_M, place_M, target_M = np.zeros((3, size), np.int32)
            row_M[: len(asked)] = [b for b, _ in asked]
            place_M[: len(asked)] = [t.place for _, t in asked]
            target_M[: len(asked)] = [t.id for _, t in asked]
            nll_M, hit_M = jax.device_get(
                compiled(params, inputs, row_M, place_M, target_M)
            )
            for (_, target), nll, hit in zip(asked, nll_M, hit_M, strict=False):
                nats[target.request] -= nll
                count[target.request] += 1
                greedy[target.request] &= hit
            done(len(batch) / len(rows) * len(requests))
        answers = zip(nats, count, greedy, cut, strict=True)
        return [Likelihood(float(n), int(c), bool(g), x) for n, c, g, x in answers]

    return run


def pairs(tokenizer: Tokenizer, texts: Sequence[tuple[str, str]]) -> list[Pair]:
    """Prompts and continuations as ids, for a decoder.

    Where a prompt is empty, the continuation follows `score.prefix`. Where the tokens
    of both together leave none to the continuation, they are made apart.
    """
    moved = [_spaces_moved(prompt, more) for prompt, more in texts]
    known = sorted({p for p, _ in moved} | {p + c for p, c in moved})
    ids = dict(zip(known, tokenizer.encode_batch(known), strict=True))
    start = tokenizer.start()
    made = []
    for prompt, more in moved:
        if prompt:
            given, whole = [*start, *ids[prompt]], [*start, *ids[prompt + more]]
            rest = whole[len(given) :] or tokenizer.encode(more)
        else:
            given, rest = prefix(tokenizer), ids[more]
        if not rest:
            raise InputError(
                got=f"an empty continuation after {prompt[-40:]!r}", want="some text"
            )
        made.append(Pair(given, rest))
    return made


def _spaces_moved(prompt: str, more: str) -> tuple[str, str]:
    kept = prompt.rstrip()
    return kept, prompt[len(kept) :] + more


def _causal(tokenizer, requests, max_tokens, mask_id):
    found: dict[_Row, list[_Target]] = {}
    cut = []
    texts = [(r.prompt, r.continuation) for r in requests]
    for number, pair in enumerate(pairs(tokenizer, texts)):
        whole = [*pair.prompt, *pair.continuation][-(max_tokens + 1) :]
        cut.append(len(pair.prompt) + len(pair.continuation) - len(whole))
        asked = pair.continuation[-(len(whole) - 1) :]
        first = len(whole) - 1 - len(asked)
        targets = found.setdefault(_Row(tuple(whole[:-1])), [])
        targets += [_Target(first + i, id, number) for i, id in enumerate(asked)]
    return found, cut


def _encdec(tokenizer, requests, max_tokens, mask_id):
    found: dict[_Row, list[_Target]] = {}
    cut = []
    sources = tokenizer.encode_batch([r.prompt for r in requests])
    answers = tokenizer.encode_batch([r.continuation for r in requests])
    end = list(tokenizer.ends[:1])
    for number, (source, answer) in enumerate(zip(sources, answers, strict=True)):
        if not answer:
            raise InputError(got="an empty continuation", want="some text")
        source = [*tokenizer.start(), *source, *end]
        cut.append(sum(max(len(ids) - max_tokens, 0) for ids in (source, answer)))
        source, answer = source[-max_tokens:], answer[:max_tokens]
        row = _Row((tokenizer.pad_id, *answer[:-1]), tuple(source))
        targets = found.setdefault(row, [])
        targets += [_Target(i, id, number) for i, id in enumerate(answer)]
    return found, cut


def _masked(tokenizer, requests, max_tokens, mask_id):
    found: dict[_Row, list[_Target]] = {}
    start, finish = tokenizer.start(), tokenizer.finish()
    for number, request in enumerate(requests):
        given = tokenizer.encode(request.prompt) if request.prompt else []
        own = tokenizer.encode(request.prompt + request.continuation)
        asked = range(len(given), len(own))
        if request.beside:
            other = tokenizer.encode(request.prompt + request.beside)
            matched = difflib.SequenceMatcher(None, own, other, autojunk=False)
            shared = {
                place
                for block in matched.get_matching_blocks()
                for place in range(block.a, block.a + block.size)
            }
            asked = [place for place in asked if place in shared]
        whole = [*start, *own, *finish]
        if len(whole) > max_tokens:
            raise InputError(
                got=f"a text of {len(whole)} tokens, for a masked model",
                want=f"at most {max_tokens}",
            )
        for place in (len(start) + place for place in asked):
            row = _Row((*whole[:place], mask_id, *whole[place + 1 :]))
            found.setdefault(row, []).append(_Target(place, whole[place], number))
    return found, [0] * len(requests)


def _batches(rows: list[_Row], batch_size: int):
    """Rows in the order of their lengths, the longest first, of one shape a batch."""
    rows.sort(key=_shape, reverse=True)
    for shape, group in itertools.groupby(rows, _shape):
        alike, size = list(group), rows_of_a_batch(shape, batch_size)
        for first in range(0, len(alike), size):
            yield alike[first : first + size]


def _shape(row: _Row) -> tuple[int, int]:
    return (width_of(len(row.source)) if row.source else 0), width_of(len(row.ids))


def _inputs(batch: list[_Row], batch_size: int):
    """A batch as inputs of one of few shapes; it is filled up with rows of a token."""
    source, width = _shape(batch[0])
    more = rows_of_a_batch((source, width), batch_size) - len(batch)
    rows = [row.ids for row in batch] + [(0,)] * more
    sources = [row.source for row in batch] + [(0,)] * more
    inputs = inputs_of(rows, multiple=width)
    if source:
        inputs = inputs._replace(source=inputs_of(sources, multiple=source))
    return inputs
