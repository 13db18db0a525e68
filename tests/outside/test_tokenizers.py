# ruff: noqa: E501
"""What people type is text; exported tokenizers encode as ours do, any text at all."""

import itertools
import json
import random

import pytest

from llm.data import chat
from llm.errors import InputError
from llm.interop import hf_tokenizer_files
from llm.tokenizers import chat_template, sentencepiece_tokenizer, vocabularies

library = pytest.importorskip("tokenizers")


def corpus(tail):
    """Some hundred words in sentences of every length."""
    rng = random.Random(1)
    syllables = ["ti", "de", "ri", "se", "mo", "on", "fa", "ll", "ing", "th", "e", "wa"]
    words = ["".join(rng.choices(syllables, k=rng.randrange(1, 5))) for _ in range(200)]
    lines = (" ".join(rng.choices(words, k=n % 12 + 1)) for n in range(400))
    return "".join(f"{line.capitalize()}.{tail}" for line in lines)


PROSE = corpus("  It fell, too: 12 times; isn't it?\n")
MARKUP = corpus(
    " <unk> x < y > 0x41 A B C D E F 3 5 6 7 8 9 / s p a d\n\tif:\n        b\n"
)
KINDS = {
    "bpe": 330,
    "char": 330,
    "unigram": 330,
    "byte": 260,
    "word": 60,
    "wordpiece": 99,
}
SPECIAL = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
)
HOSTILE = (
    "", " ", "  ", "a  b", " a", "a ", "   a   b   ", "\n", "\n\n", "a\nb", "a\n\n b", "\t",
    "a\tb", "\t\ta", "\r\n", "a\r\nb", "\r", "\x0b\x0c", "a\u00a0b", "\u3000", "\u2028",
    "\u200b", "a\u200db", "\ufeffa", "ﬁ ① ½ Å Å", "e\u0301", "한글", "👩‍👩‍👧 🇩🇪 ☺️", "\U00020000",
    "مرحبا", "नमस्ते", "中文。", "\0", "\x1b[0m", "\ufffd", "▁", "a▁b", "▁▁ ▁", "▅", "Ġ", "Ċ",
    "<0x41>", "a<0x0A>b", "<0x4", "##ing", "<|endoftext|>", "don't", "x<y>z", "x </s", "<<s>>",
    "ZZZZ", "aaaaaaaaa", "=" * 40, " " * 40, "tide" * 30,
    *SPECIAL, *(f"x{name}y {name} {name}{name}\n{name}" for name in SPECIAL),
)  # fmt: skip


def strings(count):
    rng = random.Random(0)
    parts = ["a", "b", "the", " ", "  ", "\n", "\t", "<", ">", "0x", "41", "é", "中", "▁", ".",
             "</s>", "[SEP]", "🙂", "\u0301", "\r\n"]  # fmt: skip
    for _ in range(count):
        yield "".join(rng.choices(parts, k=rng.randrange(1, 30)))


# Long ones: sums of scores that other libraries round otherwise.
LONG = ["\n".join(strings(900)), "tide " * 3000, "".join(strings(40)) * 30, "a" * 9000]
TEXTS = [*HOSTILE, *strings(600), *LONG]


@pytest.fixture(scope="module", params=itertools.product(KINDS, ("prose", "markup")),
                ids="-".join)  # fmt: skip
def trained(request, tmp_path_factory):
    """Also one whose corpus lacks the letters of `</s>` and `<0x41>`."""
    kind, corpus = request.param
    folder = tmp_path_factory.mktemp("t") / "t"
    texts = [PROSE if corpus == "prose" else MARKUP]
    sentencepiece_tokenizer.train(texts, folder, vocab_size=KINDS[kind], kind=kind)
    return sentencepiece_tokenizer.load(folder)


def special_ids(made):
    given = {made.pad_id, made.bos_id, made.eos_id, *made.start(), *made.finish()}
    names = hf_tokenizer_files.files(made)["tokenizer.json"].decode()
    vocab = library.Tokenizer.from_str(names).get_vocab()
    # The unknown word of these kinds is what a text may hold.
    return (given | {vocab[n] for n in SPECIAL if n in vocab}) - {made.unk_id, -1}


def test_what_is_typed_is_text(trained):
    special = special_ids(trained)
    assert len(special) >= 3
    for text, ids in zip(TEXTS, trained.encode_batch(TEXTS), strict=True):
        assert not special & set(ids), repr(text)
        assert trained.encode(text) == ids
    if trained.kind not in ("word", "wordpiece"):
        assert all(trained.decode(trained.encode(text)) == text for text in TEXTS)


def test_the_export_encodes_as_ours(trained):
    """By the library as it is, without a switch."""
    held = library.Tokenizer.from_str(
        hf_tokenizer_files.files(trained)["tokenizer.json"].decode()
    )
    for text, ids in zip(TEXTS, trained.encode_batch(TEXTS), strict=True):
        made = held.encode(text, add_special_tokens=False)
        assert made.ids == ids, (repr(text), made.tokens, trained.pieces(ids))
    whole = held.encode("The tide").ids
    assert whole == [*trained.start(), *trained.encode("The tide"), *trained.finish()]


@pytest.mark.oracle
def test_the_export_in_transformers(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in hf_tokenizer_files.files(trained).items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == trained.eos_id
    for text, ids in zip(TEXTS, trained.encode_batch(TEXTS), strict=True):
        assert theirs.encode(text, add_special_tokens=False) == ids, repr(text)
        if trained.kind not in ("word", "wordpiece"):
            assert theirs.decode(ids) == text, repr(text)
    assert theirs.encode("The tide") == [
        *trained.start(), *trained.encode("The tide"), *trained.finish()
    ]  # fmt: skip


def test_a_unigram_model_whose_sums_are_rounded_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sentencepiece_tokenizer, "_with_rounded_scores", lambda model: model
    )
    made = sentencepiece_tokenizer.train(
        [PROSE], tmp_path / "t", vocab_size=330, kind="unigram"
    )
    assert made.symbols is None
    with pytest.raises(InputError, match="without rounded scores"):
        hf_tokenizer_files.files(made)


@pytest.mark.parametrize("kind", ["word", "wordpiece", "byte"])
def test_documents_hold_as_many_ends_as_there_are_documents(tmp_path, kind):
    """271 documents about markup, most of them with `</s>` and [SEP] in them."""
    texts = [f"Text {n} ends in </s> or [SEP], {PROSE[:n]}" for n in range(271)]
    made = sentencepiece_tokenizer.train(
        texts, tmp_path / "t", vocab_size=400, kind=kind
    )
    assert made.kind in vocabularies.KINDS
    ids = made.encode_batch(texts)
    assert not any(made.eos_id in some for some in ids)
    settings = json.loads(made.files["tokenizer_config.json"])
    assert settings["split_special_tokens"] is True


@pytest.mark.oracle
def test_an_exported_chat_template_finds_its_tokens(tmp_path):
    """What transformers makes of a conversation is what the model learned."""
    transformers = pytest.importorskip("transformers")
    sentencepiece_tokenizer.train([PROSE], tmp_path / "t", vocab_size=330)
    template = chat_template.TEMPLATES["plain"]
    (tmp_path / "t" / sentencepiece_tokenizer.TEMPLATE).write_text(template)
    made = sentencepiece_tokenizer.load(tmp_path / "t")
    (tmp_path / "hf").mkdir()
    for name, content in hf_tokenizer_files.files(made).items():
        (tmp_path / "hf" / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    talk = [{"role": "user", "content": "The tide"},
            {"role": "assistant", "content": "is late."}]  # fmt: skip
    ids = theirs.apply_chat_template(
        talk, tokenize=True, return_dict=False, chat_template=template
    )
    ((want, _),) = chat.conversations(made, talk)
    assert ids == want and ids.count(made.eos_id) == 1
