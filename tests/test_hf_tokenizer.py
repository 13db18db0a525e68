"""Tokenizers of others behind our facade, and ours in the form of others."""

import dataclasses
import hashlib
import json
import pathlib
import random
import re
import time

import pytest
from etils import epath
from test_sentencepiece_tokenizer import CODE, NASTY

from llm.data import tokens
from llm.document import Document
from llm.errors import InputError
from llm.interop import gguf, gguf_tokenizer, hf_tokenizer_files
from llm.tokenizers import (
    Tokenizer,
    chat_template,
    hf_tokenizer,
    sentencepiece_tokenizer,
    tokenizer_json,
)
from llm.tokenizers.chat_settings import Chat

library = pytest.importorskip("tokenizers")

TEXTS = [CODE, "the cat sat on the mat. " * 20, "grüße 123 4567 日本語 👩"] * 2
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(pre="gpt-2"):
    """A trained byte-level BPE whose special ids are 0, 1 and 2, as files."""
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Digits(individual_digits=True),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
        if pre == "smollm"
        else [library.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.add_tokens(["    ", "<tool>"])
    settings = {
        "bos_token": "<|im_start|>",
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "chat_template": CHAT,
    }
    return files(made, settings)


def files(made, settings):
    return {
        "tokenizer.json": made.to_str(),
        "tokenizer_config.json": json.dumps(settings),
    }


def word_piece():
    made = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = library.normalizers.BertNormalizer()
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.WordPiece()
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=300,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return files(made, {"unk_token": "[UNK]", "pad_token": "[PAD]"})


def with_space_prefix():
    """As the tokenizers of Llama 1 and 2: U+2581 for spaces, one put in front."""
    ours = PIECES
    made = library.Tokenizer(
        library.models.BPE(
            vocab={piece: i for i, piece in enumerate(ours)},
            merges=[("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.normalizer = library.normalizers.Sequence(
        [
            library.normalizers.Prepend("\u2581"),
            library.normalizers.Replace(" ", "\u2581"),
        ]
    )
    made.decoder = library.decoders.Sequence(
        [
            library.decoders.Replace("\u2581", " "),
            library.decoders.ByteFallback(),
            library.decoders.Fuse(),
            library.decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = library.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return files(made, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


PIECES = [
    "<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)],
    "\u2581", *"theaczo", "\u2581t", "\u2581th", "\u2581the",
]  # fmt: skip
MAKERS = {"byte level": byte_level, "prefix": with_space_prefix}


@pytest.fixture(scope="module", params=MAKERS)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("t") / "tokenizer"
    return hf_tokenizer.save(folder, MAKERS[request.param](), rows=500, fields={})


def strings(count, seed=0):
    rng = random.Random(seed)
    alphabets = [
        [chr(c) for c in range(128)],
        [*" \n\t\r\u2581\u2585<>/sx0="],
        [*" \n\t"],
        [*"ab"],
        re.findall(r"\s+|\w+|\W", CODE),
        [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000],
    ]
    return [
        "".join(rng.choices(rng.choice(alphabets), k=rng.randrange(40)))
        for _ in range(count)
    ]


def test_texts_come_back(made):
    marks = made.space_prefix  # that form cannot tell U+2581 from a space
    texts = [t for t in [*NASTY, *strings(500)] if not (marks and "\u2581" in t)]
    texts = [
        t for t in texts if "<s>" not in t and "</s>" not in t and "<unk>" not in t
    ]
    batch = made.encode_batch(texts)
    assert [made.decode(ids) for ids in batch] == texts
    assert batch[3] == made.encode(texts[3])


def test_decoding_equals_the_library(made):
    rng = random.Random(0)
    for _ in range(300):
        ids = [rng.randrange(3, 270) for _ in range(rng.randrange(1, 9))]
        want = made.library.decode(ids)
        if "\ufffd" not in want:
            assert made.decode(ids) == want


def test_bytes_of_pieces_add_up(made):
    text = "the cat 👩 a"
    ids = made.encode(text)
    whole = b"".join(made.decode_bytes([i]) for i in ids)
    assert whole == made.decode_bytes(ids)
    assert whole.decode() == " " * made.space_prefix + text
    # What a model goes on with keeps its space.
    assert (
        made.decode_bytes(made.encode(" the")[-1:])
        == made.piece_bytes[made.encode(" the")[-1]]
    )


def test_special_ids(tmp_path):
    made = hf_tokenizer.save(
        tmp_path / "t", byte_level(), rows=500, fields={"eos_token_id": [2, 0]}
    )
    assert (made.pad_id, made.unk_id, made.bos_id, made.eos_id) == (2, 0, 1, 2)
    assert made.ends == (2, 0)
    assert made.start() == []
    assert made.vocab_size == 500
    size = made.library.get_vocab_size()
    assert made.never == tuple(range(size, 500))
    # What is typed is text, unless it is asked for.
    assert 2 not in made.encode("a<|im_end|>")
    assert made.decode(made.encode("a<|im_end|>")) == "a<|im_end|>"
    special = dataclasses.replace(made, chat=Chat(parse_special=True))
    assert special.encode("a<|im_end|>")[-1] == 2
    assert made.decode([2, *made.encode("a b"), 499]) == "a b"
    assert made.pieces([2, 499]) == ["<|im_end|>", "[499]"]


def test_the_tokenizer_says_how_a_text_begins(tmp_path):
    given = with_space_prefix()
    made = hf_tokenizer.save(tmp_path / "a", given, rows=1, fields={})
    assert made.start() == [1]
    settings = json.loads(given["tokenizer_config.json"]) | {"add_bos_token": False}
    given["tokenizer_config.json"] = json.dumps(settings)
    assert hf_tokenizer.save(tmp_path / "b", given, rows=1, fields={}).start() == []
    given = byte_level()
    settings = json.loads(given["tokenizer_config.json"]) | {"add_bos_token": True}
    given["tokenizer_config.json"] = json.dumps(settings)
    assert hf_tokenizer.save(tmp_path / "c", given, rows=1, fields={}).start() == [1]


def test_the_tokenizer_says_what_stands_behind_a_text(tmp_path):
    given = with_space_prefix()
    for asked, finish in ((None, []), (False, []), (True, [2])):
        settings = json.loads(given["tokenizer_config.json"])
        settings |= {} if asked is None else {"add_eos_token": asked}
        given["tokenizer_config.json"] = json.dumps(settings)
        made = hf_tokenizer.save(tmp_path / "t", given, rows=1, fields={})
        assert (made.finish(), made.ends) == (finish, (2,))
        assert sentencepiece_tokenizer.load(tmp_path / "t").finish() == finish
        again = through_gguf(made, tmp_path)
        assert (again.start(), again.finish(), again.ends) == ([1], finish, (2,))


def test_tokenizers_that_older_imports_wrote(tmp_path):
    made = hf_tokenizer.save(tmp_path / "t", byte_level(), rows=1, fields={})
    path = tmp_path / "t" / "tokenizer.json"
    about = json.loads(path.read_text())
    del about["finishes"], about["fingerprint"]
    held = json.loads(made.files["tokenizer.json"])
    identity = json.dumps([held, about], sort_keys=True).encode()
    about["fingerprint"] = hashlib.sha256(identity).hexdigest()[:32]
    path.write_text(json.dumps(about))
    assert sentencepiece_tokenizer.load(tmp_path / "t").finish() == []


def test_ids_that_only_the_model_names(tmp_path):
    given = byte_level() | {"tokenizer_config.json": "{}"}
    fields = {"bos_token_id": 0, "eos_token_id": 2}
    made = hf_tokenizer.save(tmp_path / "t", given, rows=1, fields=fields)
    assert (made.pad_id, made.bos_id, made.eos_id, made.ends) == (-1, 0, 2, (2,))


def test_word_pieces(tmp_path):
    made = hf_tokenizer.save(tmp_path / "t", word_piece(), rows=300, fields={})
    assert made.piece_bytes is None and (made.start(), made.finish()) == ([2], [3])
    # It has no end of texts but that.
    assert (made.eos_id, made.ends) == (-1, (3,))
    ids = made.encode("the cat sat")
    assert (
        made.decode(ids) == "the cat sat" and made.decode_bytes(ids) == b"the cat sat"
    )


def test_load_gives_what_was_saved(made, tmp_path):
    saved = hf_tokenizer.save(tmp_path / "t", made.files, rows=500, fields={})
    about = json.loads((tmp_path / "t" / "tokenizer.json").read_text())
    assert about["kind"] == "hf" and about["fingerprint"] == saved.fingerprint
    loaded = sentencepiece_tokenizer.load(tmp_path / "t")
    assert loaded.fingerprint == saved.fingerprint == made.fingerprint
    assert loaded.encode("the cat") == made.encode("the cat")
    path = tmp_path / "t" / "hf" / "tokenizer.json"
    held = json.loads(path.read_text())
    held["model"]["merges"] = held["model"]["merges"][:-1]
    path.write_text(json.dumps(held))
    with pytest.raises(InputError, match="altered tokenizer"):
        sentencepiece_tokenizer.load(tmp_path / "t")


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        hf_tokenizer.read_files(tmp_path)
    for content in ("{", "{}", '{"model": 3}'):
        given = {"tokenizer.json": content}
        with pytest.raises(InputError, match="not to be used") as caught:
            hf_tokenizer.save(tmp_path / "t", given, rows=1, fields={})
        assert "\n" not in str(caught.value)
    given = byte_level() | {"tokenizer_config.json": "[1]"}
    with pytest.raises(InputError, match="not to be used"):
        hf_tokenizer.save(tmp_path / "t", given, rows=1, fields={})
    assert not (tmp_path / "t").exists()


def test_bad_ids_and_texts(made):
    for bad in (-1, 500):
        with pytest.raises(InputError, match="token id"):
            made.decode([bad])
    with pytest.raises(InputError, match=r"U\+D800 at 1"):
        made.encode("a\ud800")


@pytest.fixture(scope="module", params=["bpe", "char"])
def ours(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return sentencepiece_tokenizer.train(
        [CODE], folder / "t", vocab_size=600, kind=request.param
    )


HELD_OUT = [
    pathlib.Path(json.__file__).read_text(),
    pathlib.Path(random.__file__).read_text(),
    "=" * 33 + " " * 9,
]


def test_our_pieces_have_their_kinds(ours):
    table = ours.table()
    assert [kind for _, _, kind in table[:4]] == [3, 2, 3, 3]
    assert [kind for _, _, kind in table].count(6) == 256
    symbols = [piece for piece, _, kind in table if kind == 4]
    assert bool(symbols) == (ours.kind == "bpe")
    assert all(re.fullmatch(r"\n[\n\t\u2581]*|\u2581{2,}", s) for s in symbols)


def test_our_tokenizers_in_their_form_encode_as_ours(ours):
    """Also where a text holds U+2581, emoji, special tokens, or runs of anything."""
    held = library.Tokenizer.from_str(
        hf_tokenizer_files.files(ours)["tokenizer.json"].decode()
    )
    held.encode_special_tokens = True
    texts = [*NASTY, *HELD_OUT, *strings(4000)]
    theirs = held.encode_batch(texts, add_special_tokens=False)
    for text, want, got in zip(texts, ours.encode_batch(texts), theirs, strict=True):
        assert got.ids == want, repr(text)
        assert held.decode(got.ids) == text
    assert held.encode("a").ids == [2, *ours.encode("a")]


@pytest.mark.oracle
def test_transformers_encodes_as_ours(ours, tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in hf_tokenizer_files.files(ours).items():
        (tmp_path / name).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (2, 3, 0)
    for text in [*NASTY, *HELD_OUT, *strings(200)]:
        assert theirs.encode(text) == [2, *ours.encode(text)], repr(text)
        assert theirs.decode(ours.encode(text)) == text


@pytest.mark.oracle
@pytest.mark.parametrize("maker", [byte_level, with_space_prefix, word_piece])
def test_facade_equals_transformers(maker, tmp_path):
    transformers = pytest.importorskip("transformers")
    given = maker()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= json.loads(given["tokenizer_config.json"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer.json").write_text(given["tokenizer.json"])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    made = hf_tokenizer.save(tmp_path / "t", given, rows=1, fields={})
    special = dataclasses.replace(made, chat=Chat(parse_special=True))
    for text in [t for t in NASTY if t]:
        for ours, split in ((special, False), (made, True)):
            whole = made.start() + ours.encode(text) + made.finish()
            want = theirs.encode(text, split_special_tokens=split)
            assert want == whole, repr(text)
    if made.chat_template:
        messages = [{"role": "user", "content": "a\nb"}]
        want = theirs.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        text = chat_template.prompt(made.chat_template, messages, tokens=made.spellings)
        assert text == want


def through_gguf(tokenizer, folder):
    gguf.write_file(folder / "t.gguf", gguf_tokenizer.keys(tokenizer), [])
    files, fields = gguf_tokenizer.read(gguf.open_file(folder / "t.gguf"))
    rows = tokenizer.vocab_size
    return hf_tokenizer.save(folder / "g", files, rows=rows, fields=fields)


def test_ours_through_gguf(ours, tmp_path):
    made = through_gguf(ours, tmp_path)
    assert (made.start(), made.ends, made.vocab_size) == ([2], (3,), ours.vocab_size)
    made.library.encode_special_tokens = True
    for text in [*NASTY, *HELD_OUT, *strings(500)]:
        assert made.encode(text) == ours.encode(text), repr(text)
        assert made.decode(ours.encode(text)) == text


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", None])
def test_theirs_through_gguf(pre, tmp_path):
    given = byte_level(pre) if pre else with_space_prefix()
    made = hf_tokenizer.save(
        tmp_path / "a", given, rows=450, fields={"eos_token_id": [2, 0]}
    )
    again = through_gguf(made, tmp_path)
    assert again.vocab_size == made.vocab_size and again.never == made.never
    assert (again.start(), again.ends) == (made.start(), made.ends)
    assert again.chat_template == made.chat_template
    for text in [*NASTY, *strings(500)]:
        if pre or "\u2581" not in text:
            assert again.encode(text) == made.encode(text), repr(text)
            assert again.decode(made.encode(text)) == made.decode(made.encode(text))


def test_what_gguf_does_not_hold(tmp_path):
    made = hf_tokenizer.save(tmp_path / "a", word_piece(), rows=1, fields={})
    unigram = sentencepiece_tokenizer.train(
        [CODE], tmp_path / "u", vocab_size=330, kind="unigram"
    )
    for one in (made, unigram):
        with pytest.raises(InputError, match="for GGUF"):
            gguf_tokenizer.keys(one)
    assert "tokenizer.model" in hf_tokenizer_files.files(unigram)


def test_large_vocabularies_are_read_at_once():
    """Each merge is looked up, not compared with all 40,000 tokens: that took 40 s."""
    letters = [chr(0x4E00 + i) for i in range(200)]
    pairs = [(a, b) for a in letters for b in letters]
    tokens = [*letters, *(a + b for a, b in pairs)]
    begun = time.process_time()
    merges = [f"{a} {b}" for a, b in pairs]
    made = tokenizer_json.byte_level(tokens, merges, [1] * len(tokens), pre="gpt-2")
    assert len(made["model"]["merges"]) == 40_000
    assert time.process_time() - begun < 4


def test_how_text_is_cut_is_recognised():
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        held = tokenizer_json.byte_level(["a"], [], [1], pre=name)
        assert tokenizer_json.pre_of(held) == name
        library.Tokenizer.from_str(json.dumps(held))
    with pytest.raises(InputError, match="cuts text as 'odd'"):
        tokenizer_json.byte_level(["a"], [], [1], pre="odd")
    with pytest.raises(InputError, match="the merge 'a b'"):
        tokenizer_json.byte_level(["a"], ["a b"], [1], pre="gpt-2")


def test_documents_begin_and_end_as_the_tokenizer_says(tmp_path):
    """One without a token to begin with gets its end alone."""
    made = hf_tokenizer.save(tmp_path / "t", byte_level(), rows=0, fields={})
    text = "def f(x):\n"
    document = Document("a", text, "made", "a", "code", len(text))
    tokens.write(tmp_path / "tokens", {"train": [document]}, made, corpus_hash="")
    split = tokens.open_split(tmp_path / "tokens", "train", made.fingerprint)
    want = [*made.start(), *made.encode(text), made.ends[0]]
    assert split.read(0, 0, int(split.lengths[0])).tolist() == want
    assert made.start() == []


def test_ids_that_no_tokenizer_has(tmp_path):
    for change, message in (
        (lambda vocab: vocab.update({"zz": 10**9}), "id 1000000000 of"),
        (lambda vocab: vocab.update({"zz": -1}), "not to be used"),
    ):
        given = byte_level()
        held = json.loads(given["tokenizer.json"])
        change(held["model"]["vocab"])
        given["tokenizer.json"] = json.dumps(held)
        with pytest.raises(InputError, match=message):
            hf_tokenizer.save(tmp_path / "t", given, rows=402, fields={})
        assert not (tmp_path / "t").exists()


def test_both_kinds_are_tokenizers(made, tmp_path):
    """All that the contract names is there."""
    ours = sentencepiece_tokenizer.train(
        TEXTS, epath.Path(tmp_path), vocab_size=320, kind="bpe"
    )
    names = {*Tokenizer.__annotations__, *vars(Tokenizer)}
    names = {name for name in names if not name.startswith("_")}
    assert {"ends", "mask_id", "encode_shielded", "typed"} <= names
    for tokenizer in (ours, made):
        assert not [name for name in names if not hasattr(tokenizer, name)]
    assert ours.mask_id == -1 and ours.encode_with_offsets("a") is None
    mark = ours.spellings["eos_token"]
    assert ours.encode_shielded(f"a{mark}", first=True) == [*ours.encode("a"), 3]
