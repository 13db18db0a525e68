"""Bytes of pieces, against tables worked out by hand."""

import pytest

from llm.tokenizers.piece_bytes import contents_of


def held(vocab, decoder, added=()):
    return {"model": {"vocab": vocab}, "decoder": decoder, "added_tokens": list(added)}


SENTENCE_PIECE = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def test_byte_level():
    vocab = {"\u0120the": 0, "a\u010a": 1, "\u00c3\u00a9": 2, "<s>": 3, "\u4e2d": 4}
    added = [
        {"id": 3, "content": "<s>", "special": True},
        {"id": 6, "content": "\u0120\u00e9", "special": False},
    ]
    found, strips = contents_of(held(vocab, {"type": "ByteLevel"}, added), 7)
    # Added tokens are plain text, and so is what is not in the alphabet.
    text = "\u0120\u00e9".encode()
    want = (b" the", b"a\n", b"\xc3\xa9", b"", "\u4e2d".encode(), b"", text)
    assert found == want and not strips


def test_every_byte_has_its_character():
    """GPT-2's table: printing Latin-1 is itself, the 68 others count from U+0100."""
    shifted = [*range(33), 127, *range(128, 161), 173]
    characters = [
        chr(256 + shifted.index(byte)) if byte in shifted else chr(byte)
        for byte in range(256)
    ]
    vocab = {character: byte for byte, character in enumerate(characters)}
    found, _ = contents_of(held(vocab, {"type": "ByteLevel"}), 256)
    assert found == tuple(bytes([byte]) for byte in range(256))


def test_byte_fallback():
    vocab = {"\u2581the": 0, "<0xC3>": 1, "<0xc3": 2, "a\u2581b": 3}
    found, strips = contents_of(held(vocab, SENTENCE_PIECE), 4)
    assert found == (b" the", b"\xc3", b"<0xc3", b"a b") and not strips
    stripping = {"type": "Sequence", "decoders": [*SENTENCE_PIECE["decoders"], STRIP]}
    assert contents_of(held(vocab, stripping), 4) == (found, True)


def test_metaspace_of_unigram():
    """A list of pieces with scores; without ByteFallback, `<0x41>` is a text."""
    vocab = [["\u2581a", -1.0], ["<0x41>", -2.0]]
    found, strips = contents_of(held(vocab, {"type": "Metaspace"}), 3)
    assert found == (b" a", b"<0x41>", b"") and strips
    never = {"type": "Metaspace", "prepend_scheme": "never", "replacement": "_"}
    assert contents_of(held([["_a", 0.0]], never), 1) == ((b" a",), False)


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        {"type": "WordPiece", "prefix": "##"},
        {"type": "Replace", "pattern": {"String": "_"}, "content": "-"},
    ],
)
def test_decoders_that_only_the_library_knows(decoder):
    assert contents_of(held({"a": 0}, decoder), 1)[0] is None


def test_what_looks_like_a_byte_is_text():
    """Only two hexadecimal digits spell one; a damaged file may hold anything."""
    held = {
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}],
        },
        "model": {"vocab": {"<0x0A>": 0, "<0x\\5>": 1, "<0x5\\>": 2}},
    }
    contents, _ = contents_of(held, 3)
    assert contents == (b"\n", b"<0x\\5>", b"<0x5\\>")
