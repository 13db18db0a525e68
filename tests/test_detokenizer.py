"""Texts in pieces: joined they are the whole, and nothing shows too early."""

import random

import pytest
import served

from llm.inference.decoding import text_of
from llm.serve.detokenizer import Writer

TEXT = "naïve 日本語 👩‍👩‍👧 end. STOP here STO and STOP"


def pieces(ids, seed):
    rng, at = random.Random(seed), 0
    while at < len(ids):
        size = rng.randrange(0, 5)
        yield ids[at : at + size]
        at += size


def written(ids, stops, seed):
    writer, shown = Writer(served.TOKENIZER, stops), []
    for piece in pieces(ids, seed):
        shown.append(writer.write(piece))
        if writer.stopped:
            break
    else:
        shown.append(writer.write([], last=True))
    return writer, shown


@pytest.mark.parametrize("seed", range(5))
def test_pieces_join_to_the_whole(seed):
    _, shown = written(list(TEXT.encode()), (), seed)
    assert "".join(shown) == TEXT and "\ufffd" not in "".join(shown)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "stops", [["STOP"], ["STOP here", "end"], ["zzz", "日本"], ["👧 e"], ["OP", "STOP"]]
)
def test_a_stop_is_never_begun(stops, seed):
    """Cut where the whole text first has a stop; no part of it was shown before."""
    writer, shown = written(list(TEXT.encode()), stops, seed)
    at = min(TEXT.find(stop) for stop in stops if stop in TEXT)
    assert "".join(shown) == TEXT[:at] == writer.text
    assert TEXT[at:].startswith(writer.stopped)


def test_what_may_be_a_stop_waits_and_is_then_shown():
    writer = Writer(served.TOKENIZER, ["STOP"])
    assert writer.write(b"a ST") == "a "
    assert writer.write(b"O") == ""
    assert writer.write(b"N STO") == "STON "
    assert writer.write([], last=True) == "STO"


@pytest.mark.parametrize(
    "broken, want",
    [
        (b"a\xff\xfeb", "a\ufffd\ufffdb"),
        (b"\xc3(", "\ufffd("),
        (b"\x80\x80", "\ufffd\ufffd"),
        (b"a\xf0\x9fb", "a\ufffdb"),
        # What the end of the answer cuts in two is dropped.
        (b"\xe6\x97", ""),
        (b"ok \xf0\x9f\x91", "ok "),
        (b"\xff\xf0\x9f", "\ufffd"),
    ],
)
def test_broken_bytes(broken, want):
    """The same in pieces, and of the whole answer."""
    assert text_of(served.TOKENIZER, list(broken)) == want
    for seed in range(4):
        _, shown = written(list(broken), (), seed)
        assert "".join(shown) == want


def test_a_tokenizer_that_only_knows_whole_texts():
    class Words:
        piece_bytes = None
        ends = ()

        def decode_bytes(self, ids):
            return " ".join(f"w{i}" for i in ids).encode()

    writer = Writer(Words())
    assert [writer.write([1, 2]), writer.write([3])] == ["w1 w2", " w3"]


def test_a_library_that_shows_half_a_character():
    class Library:
        piece_bytes = None

        def decode_bytes(self, ids):
            return bytes(ids).decode(errors="replace").encode()

    ids = list("a👩b👩".encode())
    for size in range(len(ids) + 1):
        writer = Writer(Library())
        text = "".join(writer.write([i]) for i in ids[:size])
        text += writer.write([], last=True)
        assert text == bytes(ids[:size]).decode(errors="ignore")
        assert text == text_of(Library(), ids[:size])
