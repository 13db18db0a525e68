"""Any string comes back; a vocabulary is reproducible and bad input is one line."""

import argparse
import inspect
import io
import json
import random
import re
import shutil

import data_config
import pytest
import sentencepiece

from llm.errors import InputError
from llm.tokenizers import sentencepiece_tokenizer

CODE = inspect.getsource(argparse)[:40_000] + "".join(
    f"\tfor item in values[{i}:]:\n\t\tself.append(item)  # grüße {i}\n"
    for i in range(99)
)
NASTY = [
    "", " ", "  ", "   x", "x   ", "\n", "\n\n\n", "\r\n", "a\r\nb\rc", "\t", "\t\tx\t",
    "\0", "a\0b", "\x07\x1b[0m\x7f\x85\xa0", "\u2581", "a\u2581b \u2581 c\u2581\u2581",
    "\u2585", " \u2585 ", "<s>", "</s>", "<unk>", "<pad>", "<0x41>", "<0x0A>a<0x>",
    "<s>hello</s>", "<mask>", "\ufeffbom", "\ufffd", "\uffff", "\u2028\u2029",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈", "e\u0301", "\u0301\u0301 alone", "क्षि", "日本語",
    "𓀀𓂀", "\U0010ffff", "ﬁ ﬂ Å Å", "if x:\n        y\n\n            z\n   w\n\t  \t v",
    " " * 100, "\n" * 50, "a" * 3000, "\ufffc", "\u00ad\u200b\u200e",
]  # fmt: skip


@pytest.fixture(scope="module", params=sentencepiece_tokenizer.SENTENCEPIECE)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return sentencepiece_tokenizer.train(
        [CODE], folder / "t", vocab_size=330, kind=request.param
    )


def test_remembered_words_are_those_of_the_whole_text(trained):
    """SentencePiece, given the text as one, cuts it as we do word by word."""
    library = [d.text for d in data_config.library()[0][::40]]
    texts = [t for t in [*NASTY, CODE, *library] if "\u2581" not in t]
    if trained.kind == "unigram":
        # Of equal sums of scores, it takes another one in a longer text, so that we cut
        # at its symbols first; tests/outside/test_tokenizers.py has another library.
        texts = [part for text in texts for part in trained.symbols.split(text)[::2]]
        texts = [part for part in texts if len(part) < 2000]
        assert len(texts) > 1000
    for _ in range(2):  # as they are met, and from memory
        assert trained.encode_batch(texts) == trained.processor.encode(texts)
    assert (trained.words is None) == (trained.kind == "unigram")
    assert trained.words is None or 0 < len(trained.words) < 500_001


def test_tables_with_tabs(tmp_path):
    """Pieces go on behind a tab there; words are apart at spaces and line ends."""
    rng = random.Random(0)
    rows = (
        "\t".join(f"|{rng.choice(['ab', 'c'])}|" for _ in range(4)) for _ in range(99)
    )
    table = "\n".join(f"{row}\tits name" for row in rows)
    made = sentencepiece_tokenizer.train([table], tmp_path / "t", vocab_size=320)
    assert any(re.search(rb"\S\t", piece) for piece in made.piece_bytes)
    texts = [table, "|\t \n\t|ab|\t\t", "\t", "a\t", "\ta \t b\n\n\tc", *NASTY]
    texts = [t for t in texts if "\u2581" not in t]
    for _ in range(2):
        assert made.encode_batch(texts) == made.processor.encode(texts)
    assert made.words.apart("|ab|\t\t|c| x\ty") == ["|ab|\t\t|c|", " x\ty"]


def test_pieces_that_go_on_into_white_space_are_cut_as_one(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b a b a b c a b"] * 50), model_writer=model,
        vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        split_by_whitespace=False, add_dummy_prefix=False, hard_vocab_limit=False,
    )  # fmt: skip
    made = sentencepiece_tokenizer._from_model(model.getvalue(), "bpe")
    assert made.words.apart("a b\tc d\n") == ["a b", "\tc d", "\n"]
    assert made.encode("a b a b c") == made.processor.encode("a b a b c")


def test_nasty_strings_come_back(trained):
    assert [trained.decode(trained.encode(text)) for text in NASTY] == NASTY
    batch = trained.encode_batch(NASTY)
    assert batch == [trained.encode(text) for text in NASTY]
    special = {trained.pad_id, trained.unk_id, trained.bos_id, trained.eos_id}
    assert not special.intersection(i for ids in batch for i in ids)


def test_random_strings_come_back(trained):
    rng = random.Random(0)
    alphabets = [
        [chr(c) for c in range(128)],
        [*" \n\t\r\u2581\u2585<>/sx0", *"self.def"],
        [chr(c) for c in range(0x300)],
        [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000],
    ]
    texts = [
        "".join(rng.choices(rng.choice(alphabets), k=rng.randrange(40)))
        for _ in range(4000)
    ]
    assert [trained.decode(ids) for ids in trained.encode_batch(texts)] == texts


def test_texts_of_the_corpus_come_back(trained):
    assert trained.decode(trained.encode(CODE)) == CODE


def test_piece_bytes_add_up_to_the_text(trained):
    ids = trained.encode(CODE + "日本 \u2581")
    size = sum(len(trained.piece_bytes[i]) for i in ids)
    assert size == len((CODE + "日本 \u2581").encode())


def test_white_space_runs_are_pieces(tmp_path):
    trained = sentencepiece_tokenizer.train([CODE], tmp_path / "t", vocab_size=600)
    ids = trained.encode("x\n        return\n\t\tself")
    assert "\n        " in trained.pieces(ids) and "\n\t\t" in trained.pieces(ids)
    for i in range(trained.vocab_size):
        assert b"\n" not in trained.piece_bytes[i].lstrip(b"\n"), "newline inside"


def test_digits_and_symbols_of_ones_own(tmp_path):
    text = CODE + "1999 2024 100000 <file> a\n" * 200
    plain = sentencepiece_tokenizer.train([text], tmp_path / "p", vocab_size=600)
    assert len(plain.encode("1999")) == 1  # it is frequent
    given = ("<file>", "ünd so", "self")
    made = sentencepiece_tokenizer.train(
        [text], tmp_path / "t", vocab_size=600, split_digits=True, symbols=given
    )
    assert made.vocab_size == 600
    digits = {b: n for n, b in enumerate(made.piece_bytes) if b[-1:].isdigit()}
    assert all(len(piece) == 1 for piece in digits)
    assert made.pieces(made.encode("x<file>1999")) == ["x", "<file>", *"1999"]
    for symbol in given:
        assert made.encode(symbol) == [made.piece_bytes.index(symbol.encode())]
    # Part of no other piece.
    assert sum(b"self" in piece for piece in made.piece_bytes) == 1
    for hard in NASTY:
        assert made.decode(made.encode(hard)) == hard
    loaded = sentencepiece_tokenizer.load(tmp_path / "t")
    assert loaded.encode(text) == made.encode(text)


def test_special_ids_decode_to_nothing(trained):
    ids = [trained.bos_id, *trained.encode("a b"), trained.eos_id, trained.pad_id]
    assert trained.decode(ids) == "a b"
    assert trained.pieces([trained.bos_id, trained.eos_id]) == ["<s>", "</s>"]


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_id_outside_the_vocabulary(trained, bad):
    with pytest.raises(InputError, match="token id"):
        trained.decode([bad])


def test_lone_surrogate(trained):
    with pytest.raises(InputError, match=r"U\+D800 at 1"):
        trained.encode("a\ud800")


def test_same_corpus_gives_the_same_fingerprint(tmp_path):
    def make(name, texts, **knobs):
        return sentencepiece_tokenizer.train(
            texts, tmp_path / name, **{"vocab_size": 330} | knobs
        )

    first, second = make("a", [CODE]), make("b", [CODE])
    assert first.fingerprint == second.fingerprint
    others = [
        make("c", [CODE.replace("self", "them")]),
        make("d", [CODE], vocab_size=331),
        make("e", [CODE], kind="unigram"),
    ]
    assert len({t.fingerprint for t in [first, *others]}) == 4


def test_load_gives_what_was_trained(tmp_path):
    trained = sentencepiece_tokenizer.train([CODE], tmp_path / "t", vocab_size=330)
    shutil.copytree(tmp_path / "t", tmp_path / "copy")
    loaded = sentencepiece_tokenizer.load(tmp_path / "copy")
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.encode(CODE) == trained.encode(CODE)
    assert (loaded.vocab_size, loaded.kind) == (330, "bpe")


@pytest.mark.parametrize("damage", ["cut", "noise", "other", "json"])
def test_altered_files_are_refused(tmp_path, damage):
    sentencepiece_tokenizer.train([CODE], tmp_path / "t", vocab_size=330)
    model = tmp_path / "t" / "tokenizer.model"
    if damage == "cut":
        model.write_bytes(model.read_bytes()[:-100])
    elif damage == "noise":
        model.write_bytes(b"\xff" * 2000)
    elif damage == "other":
        sentencepiece_tokenizer.train([CODE], tmp_path / "o", vocab_size=331)
        shutil.copy(tmp_path / "o" / "tokenizer.model", model)
    else:
        (tmp_path / "t" / "tokenizer.json").write_text(json.dumps({"kind": "bpe"}))
    with pytest.raises(InputError, match="altered tokenizer"):
        sentencepiece_tokenizer.load(tmp_path / "t")


def test_missing_tokenizer(tmp_path):
    with pytest.raises(InputError, match="no tokenizer in"):
        sentencepiece_tokenizer.load(tmp_path)


def test_vocabulary_larger_than_the_corpus_says_how_large_it_may_be(tmp_path):
    with pytest.raises(InputError, match="at most") as caught:
        sentencepiece_tokenizer.train([CODE[:2000]], tmp_path / "t", vocab_size=8000)
    most = int(str(caught.value).split("at most ")[1].split()[0])
    sentencepiece_tokenizer.train([CODE[:2000]], tmp_path / "t", vocab_size=most)
    with pytest.raises(InputError):
        sentencepiece_tokenizer.train(
            [CODE[:2000]], tmp_path / "u", vocab_size=most + 64
        )
    assert not (tmp_path / "u").exists()


def test_many_characters_leave_room_for_pieces(tmp_path):
    rare = "".join(chr(c) for c in range(0x4E00, 0x5E00))
    trained = sentencepiece_tokenizer.train(
        [CODE, rare], tmp_path / "t", vocab_size=400
    )
    assert trained.vocab_size == 400
    assert trained.decode(trained.encode(rare)) == rare
    assert any(len(piece) > 3 for piece in trained.piece_bytes)


def test_reserved_characters_do_not_hide_a_text_from_training(tmp_path):
    plain = sentencepiece_tokenizer.train([CODE], tmp_path / "t", vocab_size=330)
    marked = sentencepiece_tokenizer.train(
        ["\u2585\u2581" + CODE], tmp_path / "m", vocab_size=330
    )
    assert len(marked.encode(CODE)) < 1.02 * len(plain.encode(CODE))


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_empty_corpus(tmp_path, texts):
    with pytest.raises(InputError, match="without text"):
        sentencepiece_tokenizer.train(texts, tmp_path / "t", vocab_size=330)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"kind": "words"}, "bpe or unigram"),
        ({"vocab_size": 100}, "300 or more"),
        ({"symbols": ("a", "a")}, "different texts"),
        ({"symbols": ("",)}, "different texts"),
        ({"symbols": ("a\u2581",)}, "different texts"),
        ({"symbols": tuple(f"<{n}>" for n in range(60))}, "with room for letters"),
        ({"kind": "byte", "symbols": ("a",)}, "bpe or unigram or char"),
    ],
)
def test_bad_settings(tmp_path, knobs, words):
    with pytest.raises(InputError, match=words):
        sentencepiece_tokenizer.train(
            [CODE], tmp_path / "t", **{"vocab_size": 330} | knobs
        )
