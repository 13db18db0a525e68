"""Contents of a `tokenizer.json`, the file of the `tokenizers` library.

Three families of vocabularies come without such a file: SentencePiece's BPE, which
merges the neighbours whose union is the piece of the highest score, its unigram models,
which take the pieces of the highest sum of scores, and byte-level BPE as GGUF keeps it,
with its merges but only a name for how text is cut before.

A piece of SentencePiece becomes one merge for every way to cut it in two pieces, ranked
by its score. Its mark for a space, U+2581, becomes a space: nothing is replaced in the
text, and a U+2581 in the text is the three byte pieces that it should be. What is never
part of a merge (special and user-defined pieces) is an added token.

    json.dumps(from_scores(pieces, scores, kinds, start=["<s>"]))
"""

import collections
from collections.abc import Sequence
from typing import Any

from llm.errors import InputError

# Kinds of pieces, as SentencePiece and GGUF number them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_TEXT = (NORMAL, USER_DEFINED)
SPACE = "\u2581"  # SentencePiece's mark for a space

_NEVER = -1e9  # a score that no sum of those of a text falls below

_LEAVES = {"add_prefix_space": False, "trim_offsets": True}
_WORDS = {"type": "ByteLevel", **_LEAVES, "use_regex": True}
_BYTES = {"type": "ByteLevel", **_LEAVES, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}


def _split(digits: str) -> dict[str, Any]:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    how = {"behavior": "Isolated", "invert": False}
    return {"type": "Split", "pattern": {"Regex": pattern}, **how}


# How text is cut before its bytes are merged, by GGUF's names (tokenizer.ggml.pre):
# the normalizer, the steps, and whether a whole word that is a piece is not merged.
PRE: dict[str, tuple[str, tuple[dict[str, Any], ...], bool]] = {
    "gpt-2": ("", (_WORDS,), False),
    "smollm": ("", (_DIGITS, _WORDS), False),
    "starcoder": ("", (_DIGITS, _WORDS), False),
    "llama-bpe": ("", (_split(r"\p{N}{1,3}"), _BYTES), True),
    "llama3": ("", (_split(r"\p{N}{1,3}"), _BYTES), True),
    "qwen2": ("NFC", (_split(r"\p{N}"), _BYTES), False),
}


def from_scores(
    pieces: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    start: Sequence[str] = (),
    space_prefix: bool = False,
) -> dict[str, Any]:
    """The file of a BPE vocabulary that merges by the scores of its pieces.

    Args:
      start: special pieces that a text begins with.
      space_prefix: whether a space is put before a text, and taken off again.

    Raises:
      InputError: two pieces with the same text.
    """
    texts = _spaced(pieces, kinds)
    vocab = _vocab(texts, kinds)
    normal = {t for t, kind in zip(texts, kinds, strict=True) if kind == NORMAL}
    ranked = []
    for text, score, kind in zip(texts, scores, kinds, strict=True):
        if kind != NORMAL:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in normal and right in normal:
                ranked.append((-float(score), vocab[left], vocab[right], left, right))
    decoders = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if space_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = [p for p, kind in zip(texts, kinds, strict=True) if kind == UNKNOWN]
    return {
        **_frame(texts, kinds, vocab, start),
        "normalizer": {"type": "Prepend", "prepend": " "} if space_prefix else None,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(
            vocab,
            [[left, right] for *_, left, right in sorted(ranked)],
            unknown=unknown[0] if unknown else None,
            byte_fallback=BYTE in kinds,
        ),
    }


def unigram(
    pieces: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    start: Sequence[str] = (),
) -> dict[str, Any]:
    """The file of a unigram vocabulary.

    The library knows no kinds of pieces here: it takes the name of a special one, or of
    a byte (`<0x41>`), for that piece, wherever it stands in a text. So these get a
    score that loses against all others, and characters of them that are no pieces
    themselves, which are worse still, are cut out first: no piece goes across one of
    them. User-defined pieces are added tokens, which are taken out before all else.

    Args:
      start: special pieces that a text begins with.

    Raises:
      InputError: two pieces with the same text.
    """
    texts = _spaced(pieces, kinds)
    vocab = _vocab(texts, kinds)
    normal = {t for t, kind in zip(texts, kinds, strict=True) if kind == NORMAL}
    named = {t for t, kind in zip(texts, kinds, strict=True) if kind not in _TEXT}
    unknown = sorted(set("".join(named)) - normal)
    split = None
    if unknown:
        pattern = "[" + "".join(f"\\x{{{ord(char):x}}}" for char in unknown) + "]"
        how = {"behavior": "Isolated", "invert": False}
        split = {"type": "Split", "pattern": {"Regex": pattern}, **how}
    frame = _frame(texts, kinds, vocab, start)
    decoders = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        **frame,
        "normalizer": None,
        "pre_tokenizer": split,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "Unigram",
            "unk_id": kinds.index(UNKNOWN),
            "vocab": [
                [text, float(score) if kind == NORMAL else _NEVER]
                for text, score, kind in zip(texts, scores, kinds, strict=True)
            ],
            "byte_fallback": BYTE in kinds,
        },
    }


def byte_level(
    tokens: Sequence[str],
    merges: Sequence[str],
    kinds: Sequence[int],
    *,
    pre: str,
    start: Sequence[str] = (),
) -> dict[str, Any]:
    """The file of a byte-level BPE.

    Args:
      merges: two tokens each, with a space between.
      pre: how text is cut before; a name of PRE.

    Raises:
      InputError: an unknown `pre`, or merges that are none.
    """
    if pre not in PRE:
        raise InputError(
            got=f"a tokenizer that cuts text as {pre!r}",
            want=f"one of {', '.join(PRE)}",
            do="import the model's Hugging Face folder, which says how",
        )
    normalizer, steps, whole = PRE[pre]
    vocab = _vocab(tokens, kinds)
    pairs = [merge.split(" ") for merge in merges]
    for pair in pairs:
        if len(pair) != 2 or any(t not in vocab for t in (*pair, "".join(pair))):
            raise InputError(
                got=f"the merge {' '.join(pair)!r}",
                want="two tokens that make a third one",
            )
    return {
        **_frame(tokens, kinds, vocab, start),
        "normalizer": {"type": normalizer} if normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
        "decoder": {"type": "ByteLevel", **_LEAVES, "use_regex": True},
        "model": _bpe(vocab, pairs, unknown=None, whole=whole),
    }


def pre_of(held: dict[str, Any]) -> str | None:
    """The name in PRE of how a tokenizer.json cuts text; None where it has none."""
    normalizer = (held.get("normalizer") or {}).get("type", "")
    whole = held["model"].get("ignore_merges", False)
    found = [_signature(step) for step in steps_of(held.get("pre_tokenizer"))]
    for name, (its_normalizer, steps, its_whole) in PRE.items():
        same = (normalizer, whole) == (its_normalizer, its_whole)
        if same and found == [_signature(step) for step in steps]:
            return name
    return None


def steps_of(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, sequences opened."""
    if not part:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = [v for v in part.values() if isinstance(v, list)]
    return [step for given in inner for one in given for step in steps_of(one)]


def _signature(step):
    fields = {"use_regex": True, "add_prefix_space": True} | step
    kept = {
        "ByteLevel": ("use_regex", "add_prefix_space"),
        "Digits": ("individual_digits",),
        "Split": ("pattern", "behavior", "invert"),
    }.get(step["type"], ())
    return step["type"], [fields.get(name) for name in kept]


def _spaced(pieces, kinds):
    """Pieces with spaces, as a text has them."""
    return [
        piece.replace(SPACE, " ") if kind in _TEXT else piece
        for piece, kind in zip(pieces, kinds, strict=True)
    ]


def _vocab(texts, kinds):
    kept = [t for t, kind in zip(texts, kinds, strict=True) if kind != UNUSED]
    twice = [t for t, count in collections.Counter(kept).items() if count > 1]
    if twice:
        raise InputError(got=f"the piece {twice[0]!r} twice", want="each piece once")
    return {
        text: number
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind != UNUSED
    }


def _frame(texts, kinds, vocab, start):
    added = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "post_processor": _template(start, vocab) if start else None,
    }


def _template(start, vocab):
    def sequence(name, number):
        return {"Sequence": {"id": name, "type_id": number}}

    first = [{"SpecialToken": {"id": token, "type_id": 0}} for token in start]
    second = [{"SpecialToken": {"id": token, "type_id": 1}} for token in start]
    return {
        "type": "TemplateProcessing",
        "single": [*first, sequence("A", 0)],
        "pair": [*first, sequence("A", 0), *second, sequence("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [vocab[token]], "tokens": [token]}
            for token in start
        },
    }


def _bpe(vocab, merges, *, unknown, byte_fallback=False, whole=False):
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": whole,
        "vocab": vocab,
        "merges": merges,
    }
