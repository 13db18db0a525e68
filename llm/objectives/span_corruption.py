"""Span corruption, T5's objective: short spans are cut out, the decoder writes them.

arXiv:1910.10683, section 3.1.4. 15 % of the tokens are cut out in spans of 3 on average
and a sentinel stands in the place of each; the target repeats the sentinels, each with
what stood there, and an end:

    text      Thank you for inviting me to your party last week
    source    Thank you <0> me to your party <1> week
    target    <0> for inviting <1> last <end>

Sentinel 0 is the last id of the vocabulary, 1 the one before, counted anew in every
document; they follow the tokenizer's ids. As in the authors' code, text comes first and
a span last. `restore` is the exact inverse.

A row of T tokens makes a source and a target of fixed lengths, those that T tokens of
one text need (`lengths`, the authors' rule). In a packed row every document is
corrupted on its own, and its parts of source and target have its segment number, so
that no decoder reads another document. The noise of the row is shared in proportion to
the documents' lengths. What begins and ends a document (BOS and EOS) is kept, and is no
noise; one place that the authors' rule has for an end of the source is spare.
Each document needs an end in the target: where they are more than there is room for, a
span is merged with its neighbour, so that as much is cut out with fewer sentinels; and
where every document has one span already, the shortest one is left out, as are
documents too short to get a span, which no target would ask about. In rows of 512 that
is 1 % of the tokens at 100 tokens a document, and 14 % at 20.

A record has T + 1 tokens, the last of which is the first of another: it is left out.
The decoder's first input of a document is the padding id.

`B batch, T tokens, D documents of a row`
"""

from typing import Annotated, Any

import numpy as np

from llm.errors import InputError
from llm.knobs import Amount, Between0And1, Count, Positive, Range
from llm.losses import batch_loss
from llm.nn.contract import inputs_of
from llm.objectives import Objective, uniform

TINY = {"chunk": 32}


def make(
    *,
    density: Between0And1 = 0.15,
    mean_span: Annotated[float, Range(1)] = 3.0,
    sentinels: Positive = 100,
    z_loss: Amount = 1e-4,
    chunk: Count = 0,
    vocab_size: int,
    tokenizer: Any = None,
) -> Objective:
    """Span corruption.

    Args:
      density: share of the tokens that are cut out.
      mean_span: tokens of a span, on average.
      sentinels: how many there are; no document has more spans.
      z_loss: coefficient of the squared log-normaliser.
      chunk: positions whose logits exist at once; 0 is all of a row.
      vocab_size: ids of the tokenizer.
      tokenizer: says which ids begin, end and pad a text.

    Raises:
      InputError: numbers that make no spans, or a tokenizer without these ids.
    """
    pad, end, kept = 0, 0, np.ones(vocab_size, bool)
    if tokenizer is not None:
        pad, end = tokenizer.pad_id, tokenizer.eos_id
        if min(pad, end) < 0:
            raise InputError(
                got=f"a tokenizer with pad_id {pad} and eos_id {end}", want="both"
            )
        kept[:] = False
        marks = (pad, end, tokenizer.bos_id, *tokenizer.never)
        kept[[i for i in marks if 0 <= i < vocab_size]] = True
    top = vocab_size + sentinels - 1

    def features(record, rng):
        tokens, segments = record["tokens"][:-1], record["segments"][:-1]
        source_length, target_length = lengths(len(tokens), density, mean_span)
        _check_sentinels(target_length, len(tokens), sentinels, density, mean_span)
        texts = _texts(tokens, segments, kept)
        plan = _plan(
            np.array([len(body) for _, _, body, _ in texts], np.int64),
            np.array([len(a) + len(z) for _, a, _, z in texts], np.int64),
            (source_length, target_length),
            (density, mean_span),
            uniform(rng, 2),
        )
        made = []
        for (segment, before, body, after), noise, spans in zip(
            texts, *plan, strict=True
        ):
            if spans:
                cuts = _lengths_of_spans(len(body), noise, spans, rng)
                source, target = corrupt(body, cuts, top)
                source = np.concatenate([before, source, after])
                made.append((segment, source, np.append(target, end)))
        packed = _packed([(s, source) for s, source, _ in made], source_length, pad)
        found = {f"source_{name}": array for name, array in packed.items()}
        begun = [(s, np.append(pad, target[:-1])) for s, _, target in made]
        found |= _packed(begun, target_length, pad)
        targets = _packed([(s, target) for s, _, target in made], target_length, pad)
        found["targets"] = targets["tokens"]
        found["weights"] = (targets["segments"] > 0).astype(np.int32)
        return found

    def loss(apply, params, batch, *, rngs=None, policy):
        source = inputs_of(batch, "source_")
        inputs = inputs_of(batch)._replace(source=source)
        output, head = apply(params, inputs, train=rngs is not None, rngs=rngs)
        return batch_loss(
            head, output.sums, batch, z_loss=z_loss, chunk=chunk, policy=policy
        )

    return Objective(
        kinds=("encdec",), features=features, loss=loss, extra_tokens=sentinels
    )


def lengths(tokens: int, density: float, mean_span: float) -> tuple[int, int]:
    """Lengths of the source and the target of a text of so many tokens.

    The rule of T5's `compute_input_and_target_lengths`: 568 tokens make 512 and 114.
    """
    noise, spans = _amounts(tokens, density, mean_span)
    return tokens - noise + spans + 1, noise + spans + 1


def _amounts(tokens: int, density: float, mean_span: float) -> tuple[int, int]:
    """(tokens to cut out, spans) of a text of two tokens or more."""
    noise = min(max(round(tokens * density), 1), max(tokens - 1, 1))
    return noise, max(round(noise / mean_span), 1)


def _check_sentinels(target_length, tokens, sentinels, density, mean_span):
    spans = target_length - 1 - _amounts(tokens, density, mean_span)[0]
    if spans > sentinels:
        raise InputError(
            got=f"objective.sentinels {sentinels} for train.seq_len {tokens}",
            want=f"{spans}, one for each span",
        )


def corrupt(
    text: np.ndarray, cuts: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """(source, target) of a text, the target without its end.

    Args:
      cuts: [2, spans]: tokens kept before each span, and tokens of each span.
      top: id of sentinel 0; the next ones count down from it.
    """
    source, target, at = [], [], 0
    for number, (kept, cut) in enumerate(cuts.T):
        middle, stop = at + kept, at + kept + cut
        source += [text[at:middle], [top - number]]
        target += [[top - number], text[middle:stop]]
        at = stop
    return np.concatenate([*source, text[at:]]), np.concatenate(target)


def restore(source: np.ndarray, target: np.ndarray, *, vocab_size: int) -> np.ndarray:
    """The text that was corrupted to a source and a target, which ends with its end.

    Args:
      vocab_size: ids of the tokenizer; all from there on are sentinels.
    """
    parts, spans = {}, []
    for token in target[:-1]:
        if token >= vocab_size:
            spans = parts[int(token)] = []
        else:
            spans.append(int(token))
    text = []
    for token in source:
        text += parts[int(token)] if token >= vocab_size else [int(token)]
    return np.array(text, np.int32)


def _texts(tokens, segments, kept):
    """(segment, ids before, body, ids after) of every document of a row.

    Args:
      kept: [V] ids that are no noise, where they stand at the beginning or the end.
    """
    found = []
    for segment in range(1, int(segments.max(initial=0)) + 1):
        text = tokens[segments == segment]
        body = np.flatnonzero(~kept[text])
        if len(body):
            a, z = body[0], body[-1] + 1
            found.append((segment, text[:a], text[a:z], text[z:]))
    return found


def _plan(body_D, fixed_D, room, rule, chance):
    """(tokens to cut out, spans) of every document, so that all fits in the room.

    Args:
      body_D: tokens that may be cut out; fixed_D: the others.
      room: lengths of source and target.
      rule: density and mean span.
      chance: two random numbers, which round the shares.
    """
    free_D = body_D * (body_D > 1)
    if not free_D.any():
        return np.zeros_like(body_D), np.zeros_like(body_D)
    noise, spans = _amounts(int(free_D.sum()), *rule)
    spans_D = np.minimum(_shares(spans, free_D, chance[0]), free_D // 2)
    if not spans_D.any():
        spans_D[np.argmax(free_D)] = 1
    noise_D = _shares(noise, spans_D, chance[1])
    noise_D = np.clip(noise_D, spans_D, np.maximum(body_D - spans_D, 0))
    while True:
        used_D = spans_D > 0
        source = ((body_D - noise_D + spans_D + fixed_D) * used_D).sum()
        target = ((noise_D + spans_D + 1) * used_D).sum()
        if source <= room[0] and target <= room[1]:
            return noise_D, spans_D
        most = np.argmax(spans_D)
        if spans_D[most] > 1:
            spans_D[most] -= 1
        else:
            least = np.argmin(np.where(used_D, body_D, np.iinfo(np.int64).max))
            spans_D[least] = noise_D[least] = 0


def _shares(total: int, parts_D: np.ndarray, chance: float) -> np.ndarray:
    """`total` in whole numbers, in proportion to the parts on average over chance."""
    edges_D = np.floor(total * np.cumsum(parts_D) / parts_D.sum() + chance)
    return np.diff(edges_D, prepend=0).astype(np.int64)


def _lengths_of_spans(tokens: int, noise: int, spans: int, rng) -> np.ndarray:
    """[2, spans]: kept and cut out, in turn; all ways to do it are equally likely."""
    return np.stack(
        [_parts(tokens - noise, spans, rng), _parts(int(noise), spans, rng)]
    )


def _parts(total: int, count: int, rng) -> np.ndarray:
    """`total` as a sum of `count` numbers, each at least 1."""
    order = np.argsort(uniform(rng, total - 1), kind="stable")
    edges = np.sort(order[: count - 1]) + 1
    return np.diff(edges, prepend=0, append=total)


def _packed(parts, length: int, pad: int) -> dict[str, np.ndarray]:
    """(segment, tokens) one after the other: tokens, segments and positions."""
    tokens = np.full(length, pad, np.int32)
    segments, positions = np.zeros((2, length), np.int32)
    at = 0
    for segment, part in parts:
        span = slice(at, at + len(part))
        tokens[span], segments[span] = part, segment
        positions[span] = np.arange(len(part))
        at += len(part)
    return {"tokens": tokens, "segments": segments, "positions": positions}
