"""Vocabularies of words, WordPiece and bytes, against BERT's own and by hand."""

import collections
import json
import re

import pytest
from test_sentencepiece_tokenizer import CODE, NASTY

from llm.errors import InputError
from llm.tokenizers import sentencepiece_tokenizer

pytest.importorskip("tokenizers")


def trained(folder, kind, texts=(CODE,), **knobs):
    made = sentencepiece_tokenizer.train(texts, folder / kind, kind=kind, **knobs)
    assert sentencepiece_tokenizer.load(folder / kind).fingerprint == made.fingerprint
    return sentencepiece_tokenizer.load(folder / kind)


def test_bytes_are_bytes(tmp_path):
    made = trained(tmp_path, "byte", vocab_size=4096)
    assert made.vocab_size == 260
    for text in NASTY:
        ids = made.encode(text)
        assert made.decode(ids) == text
        assert len(ids) == len(text.encode())
        assert made.decode_bytes(ids) == text.encode()


def test_words_are_the_most_frequent(tmp_path):
    made = trained(tmp_path, "word", vocab_size=100)
    counts = collections.Counter(re.findall(r"\w+|[^\w\s]+", CODE))
    most = {word for word, _ in counts.most_common(60)}
    known = {piece for i in range(100) for piece in made.pieces([i])}
    assert most <= known and made.vocab_size == 100
    assert made.encode("def thing") == [*made.encode("def"), made.unk_id]
    assert made.start() == [made.bos_id] and made.ends == (made.eos_id,)


def test_lower_case_has_no_accents(tmp_path):
    made = trained(tmp_path, "word", texts=["Größe Élan " * 9], vocab_size=100,
                   lowercase=True)  # fmt: skip
    assert made.encode("GRÖßE") == made.encode("größe") != [made.unk_id]
    assert made.encode("elan") == made.encode("Élan")


def test_wordpiece_cuts_as_the_reference_does(tmp_path):
    """The greedy longest match of the paper, written out, on words it did not see."""
    made = trained(tmp_path, "wordpiece", vocab_size=600, lowercase=True)
    vocab = {made.library.id_to_token(i): i for i in range(made.vocab_size)}

    def cut(word):
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in vocab:
                    ids.append(vocab[piece])
                    start = end
                    break
            else:
                return [made.unk_id]
        return ids

    words = sorted(set(re.findall(r"[a-z]+", CODE.lower())))
    words += ["selfdefined", "unreturnable", "zzqx", "日"]
    assert sum(len(cut(word)) > 1 for word in words) > 50
    for word in words:
        assert made.encode(word) == cut(word), word
    assert made.start() == [vocab["[CLS]"]] and made.finish() == [vocab["[SEP]"]]
    assert "[MASK]" in vocab


def test_transformers_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    made = trained(tmp_path, "wordpiece", vocab_size=600, lowercase=True)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(
        str(tmp_path / "wordpiece" / "hf")
    )
    text = "def main(self): return None"
    assert theirs(text)["input_ids"] == [
        *made.start(), *made.encode(text), *made.finish()
    ]  # fmt: skip
    assert theirs.pad_token_id == made.pad_id and theirs.mask_token == "[MASK]"


@pytest.mark.parametrize(
    "kind, knobs, shown",
    [
        ("word", {"vocab_size": 3}, "vocab_size 3"),
        ("word", {"vocab_size": 99, "texts": ["", "  "]}, "without text"),
        ("byte", {"vocab_size": 300, "lowercase": True}, "lowercase"),
        ("bpe", {"vocab_size": 330, "lowercase": True}, "word or wordpiece"),
        ("words", {"vocab_size": 330}, "bpe or unigram or char or byte or word"),
    ],
)
def test_what_cannot_be(tmp_path, kind, knobs, shown):
    with pytest.raises(InputError, match=shown):
        trained(tmp_path, kind, **knobs)
    assert not list(tmp_path.iterdir())


def test_about_itself(tmp_path):
    trained(tmp_path, "byte", vocab_size=300)
    about = json.loads((tmp_path / "byte" / "tokenizer.json").read_text())
    assert about["kind"] == "byte" and about["vocab_size"] == 260
