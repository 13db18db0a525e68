"""The bytes that the pieces of an imported tokenizer stand for, as its decoder says.

Two kinds of decoder join pieces byte for byte. `ByteLevel` writes every byte as one
printing character, GPT-2's alphabet: `Ġthe` is b" the". The other, SentencePiece's,
has text in which a mark, U+2581, stands for a space, and pieces such as `<0xC3>` for
bytes that no text piece has.

    contents, space_prefix = contents_of(json.loads(text_of_tokenizer_json), size)
"""

import re
from typing import Any

from llm.tokenizers.tokenizer_json import SPACE, steps_of

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


def contents_of(
    held: dict[str, Any], size: int
) -> tuple[tuple[bytes, ...] | None, bool]:
    """The bytes of each id, b"" for special ones, and whether decoding strips a space.

    None where the decoder is of another kind, as WordPiece's. ValueError for an id that
    is none.

    Args:
      held: a tokenizer.json.
      size: of the vocabulary; ids that the tokenizer lacks are b"".
    """
    steps = steps_of(held.get("decoder"))
    kinds = {step["type"] for step in steps}
    vocab = held["model"]["vocab"]
    if isinstance(vocab, list):  # of Unigram: [[piece, score], ...]
        vocab = {piece: number for number, (piece, _) in enumerate(vocab)}
    strips = any(
        (s["type"] == "Strip" and s["start"] == 1 and s["content"] == " ")
        or (s["type"] == "Metaspace" and s.get("prepend_scheme", "always") != "never")
        for s in steps
    )
    if kinds == {"ByteLevel"}:
        turn = _from_alphabet
    elif kinds and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        marks = [_mark(s) for s in steps if s["type"] in ("Replace", "Metaspace")]
        if None in marks:
            return None, strips
        fallback = "ByteFallback" in kinds

        def turn(piece):
            if fallback and _BYTE.fullmatch(piece):
                return bytes([int(piece[3:5], 16)])
            for mark in marks:
                piece = piece.replace(mark, " ")
            return piece.encode()

    else:
        return None, strips
    ids = [*vocab.values(), *(t["id"] for t in held.get("added_tokens", []))]
    if not all(type(i) is int and 0 <= i < size for i in ids):
        raise ValueError(f"ids of 0 to {size - 1} are wanted")
    found = [b""] * size
    for piece, number in vocab.items():
        found[number] = turn(piece)
    for token in held.get("added_tokens", []):
        text = token["content"]
        mine = text.encode() if turn is _from_alphabet else turn(text)
        found[token["id"]] = b"" if token["special"] else mine
    return tuple(found), strips


def _mark(step) -> str | None:
    """The text that a decoding step makes a space; None if it does something else."""
    if step["type"] == "Metaspace":
        return step.get("replacement", SPACE)
    return step["pattern"].get("String") if step["content"] == " " else None


def _alphabet() -> dict[str, int]:
    """GPT-2's character for each byte: itself if it prints, else one from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    shifted = {chr(256 + n): byte for n, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | shifted


_BYTE_OF = _alphabet()


def _from_alphabet(piece: str) -> bytes:
    if all(char in _BYTE_OF for char in piece):
        return bytes(_BYTE_OF[char] for char in piece)
    return piece.encode()
