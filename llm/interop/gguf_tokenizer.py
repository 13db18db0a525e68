"""The tokenizer of a GGUF file: its settings `tokenizer.ggml.*`, in both directions.

`llama` is SentencePiece's BPE (pieces and scores), `gpt2` byte-level BPE (tokens and
merges, and a name for how text is cut before). Both become the files that
`llm/tokenizers/hf_tokenizer.py` takes.
"""

import json
from typing import Any

import numpy as np

from llm.errors import InputError
from llm.interop import gguf
from llm.tokenizers import tokenizer_json
from llm.tokenizers.hf_tokenizer import ForeignTokenizer
from llm.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from llm.tokenizers.tokenizer_json import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)

_KEY = "tokenizer.ggml."
_IDS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
}
_TEMPLATE = "tokenizer.chat_template"


def read(held: gguf.File) -> tuple[dict[str, str], dict[str, Any]]:
    """({name: text} of its files, the ids that end a text), for `save`.

    Raises:
      InputError: no tokenizer, one of another kind, or settings that do not fit.
    """
    keys = held.keys
    kind = keys.get(f"{_KEY}model")
    if kind not in ("llama", "gpt2"):
        raise InputError(
            got=f"{held.path} with a tokenizer of kind {kind!r}", want="llama or gpt2"
        )
    tokens = _texts(held, "tokens")
    count = len(tokens)
    kinds = _numbers(held, "token_type", [NORMAL] * count, count)
    ids = {name: _id(held, key, count) for name, key in _IDS.items()}
    pre = keys.get(f"{_KEY}pre", "default")
    begins = keys.get(f"{_KEY}add_bos_token", kind == "llama" or pre == "llama-bpe")
    start = [tokens[ids["bos"]]] if begins and ids["bos"] >= 0 else []
    for name in ("bos", "eos", "pad"):  # some files call them normal pieces
        if ids[name] >= 0:
            kinds[ids[name]] = CONTROL
    if kind == "llama":
        made = tokenizer_json.from_scores(
            tokens,
            _numbers(held, "scores", None, count),
            kinds,
            start=start,
            space_prefix=bool(keys.get(f"{_KEY}add_space_prefix", True)),
        )
    else:
        merges = _texts(held, "merges")
        made = tokenizer_json.byte_level(tokens, merges, kinds, pre=pre, start=start)
    settings: dict[str, Any] = {
        f"{name}_token": tokens[number] for name, number in ids.items() if number >= 0
    }
    settings["add_bos_token"] = bool(start)
    settings["add_eos_token"] = keys.get(f"{_KEY}add_eos_token") is True
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["clean_up_tokenization_spaces"] = False
    if isinstance(keys.get(_TEMPLATE), str):
        settings["chat_template"] = keys[_TEMPLATE]
    files = {
        "tokenizer.json": json.dumps(made, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings, indent=1, ensure_ascii=False),
    }
    ends = [ids["eos"], _id(held, "eot_token_id", count)]
    return files, {"eos_token_id": [i for i in ends if i >= 0]}


def _texts(held: gguf.File, name: str) -> list[str]:
    found = held.keys.get(_KEY + name)
    if not isinstance(found, list) or not found:
        raise InputError(
            got=f"{held.path} without {_KEY}{name}", want="a list of texts"
        )
    return found


def _numbers(held: gguf.File, name: str, default: Any, count: int) -> list:
    found = held.keys.get(_KEY + name)
    if found is None and default is not None:
        return default
    if not isinstance(found, np.ndarray) or len(found) != count:
        raise InputError(
            got=f"{held.path} with {_KEY}{name} that does not fit",
            want=f"a number for each of {count} tokens",
        )
    return found.tolist()


def _id(held: gguf.File, key: str, count: int) -> int:
    found = held.keys.get(_KEY + key, -1)
    if type(found) is not int or not -1 <= found < count:
        raise InputError(
            got=f"{held.path} with {_KEY}{key} {found!r}", want=f"an id below {count}"
        )
    return found


def keys(tokenizer: SentencePieceTokenizer | ForeignTokenizer) -> dict[str, Any]:
    """The settings of a tokenizer.

    Raises:
      InputError: one of a kind that GGUF files do not have.
    """
    if isinstance(tokenizer, ForeignTokenizer):
        found = _foreign(tokenizer)
    else:
        found = _own(tokenizer)
    for name, key in _IDS.items():
        if getattr(tokenizer, f"{name}_id") >= 0:
            found[key] = getattr(tokenizer, f"{name}_id")
    if len(tokenizer.ends) > 1:
        found["eot_token_id"] = tokenizer.ends[1]
    found["add_bos_token"] = bool(tokenizer.start())
    found["add_eos_token"] = tokenizer.eos_id in tokenizer.finish()
    made = {_KEY + key: value for key, value in found.items()}
    template = getattr(tokenizer, "chat_template", "")
    return made | ({_TEMPLATE: template} if template else {})


def _own(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    if tokenizer.kind == "unigram":
        raise InputError(
            got="a unigram tokenizer, for GGUF", want="bpe or char", do="use to=hf"
        )
    pieces, scores, kinds = zip(*tokenizer.table(), strict=True)
    return _scored(pieces, scores, kinds, space_prefix=False)


def _scored(pieces, scores, kinds, *, space_prefix):
    texts = [  # user-defined ones are looked for in the text as it is
        piece.replace(SPACE, " ") if kind == USER_DEFINED else piece
        for piece, kind in zip(pieces, kinds, strict=True)
    ]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": texts,
        "scores": np.array(scores, np.float32),
        "token_type": list(kinds),
        "add_space_prefix": space_prefix,
        "remove_extra_whitespaces": False,
    }


def _foreign(tokenizer: ForeignTokenizer) -> dict[str, Any]:
    held = json.loads(tokenizer.files["tokenizer.json"])
    model, pre = held["model"], tokenizer_json.pre_of(held)
    steps = {step["type"] for step in tokenizer_json.steps_of(held.get("decoder"))}
    if model["type"] != "BPE" or not (
        (steps == {"ByteLevel"} and pre)
        or (model.get("byte_fallback") and tokenizer.piece_bytes)
    ):
        raise InputError(
            got="this tokenizer, for GGUF",
            want="byte-level BPE that cuts text as one of "
            f"{', '.join(tokenizer_json.PRE)}, or BPE with byte pieces",
            do="use to=hf",
        )
    tokens = [f"[PAD{i}]" for i in range(tokenizer.vocab_size)]
    kinds = [UNUSED] * tokenizer.vocab_size
    for piece, number in model["vocab"].items():
        tokens[number], kinds[number] = piece, NORMAL
    for token in held["added_tokens"]:
        tokens[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    if steps == {"ByteLevel"}:
        merges = [" ".join(pair) for pair in pairs]
        named = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds}
        return named | ({"merges": merges} if merges else {})
    rank = {}
    for at, pair in enumerate(pairs):
        rank.setdefault("".join(pair), at)
    scores = [-float(rank.get(token, len(pairs) + i)) for i, token in enumerate(tokens)]
    for number, token in enumerate(tokens):
        if kinds[number] == NORMAL and len(token) == 6 and token[:3] == "<0x":
            kinds[number] = BYTE
        if token == model.get("unk_token"):
            kinds[number] = UNKNOWN
        if kinds[number] == NORMAL:
            tokens[number] = token.replace(" ", SPACE)
    return _scored(tokens, scores, kinds, space_prefix=tokenizer.space_prefix)
