"""Vocabularies of other forms than SentencePiece's: words, WordPiece, bytes.

    word        words and signs, the most frequent of them; all else is `<unk>`, whose
                share train_tokenizer.json reports
    wordpiece   BERT's (Wu et al. 2016, arXiv:1609.08144): words, cut to pieces where
                they are rare, between [CLS] and [SEP]; white space is lost
    byte        the 256 bytes of UTF-8, whatever the corpus; text comes back as it was

The library `tokenizers` trains and applies them, and a folder is what an imported
model's is (`llm/tokenizers/hf_tokenizer.py`), with the same facade. What stands in a
text is text: a `</s>` or `[SEP]` that somebody typed never becomes the id of that name.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from llm.errors import InputError
from llm.tokenizers import hf_tokenizer
from llm.tokenizers.hf_tokenizer import ForeignTokenizer

KINDS = ("byte", "word", "wordpiece")
_PLAIN = ("<pad>", "<unk>", "<s>", "</s>")
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROLES = ("pad", "unk", "bos", "eos", "mask")
_CHUNK = 1 << 16  # characters handed to the trainer at once


def train(
    texts: Iterable[str],
    directory: epath.PathLike,
    *,
    vocab_size: int,
    kind: str,
    lowercase: bool = False,
) -> ForeignTokenizer:
    """Trains a vocabulary and writes it to the folder `directory`.

    Args:
      vocab_size: at most so many entries; of bytes there are always 260.
      lowercase: whether words are counted and written in lower case, without accents.

    Raises:
      InputError: the package is missing, a vocabulary without room, or no text.
    """
    tokenizers = hf_tokenizer.package()
    names = _BERT if kind == "wordpiece" else _PLAIN
    least = len(names) + 1
    if vocab_size < least:
        raise InputError(got=f"vocab_size {vocab_size}", want=f"{least} or more")
    library, trainer = _FORMS[kind](tokenizers, names, vocab_size, lowercase)
    if trainer is not None:
        library.train_from_iterator(_chunks(texts), trainer)
        if library.get_vocab_size() <= len(names):
            raise InputError(got="a corpus without text", want="text to train on")
    library.post_processor = _between(tokenizers, library, names)
    tokens = {f"{role}_token": name for role, name in zip(_ROLES, names, strict=False)}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        # As here, also in transformers: names of special tokens are text,
        "split_special_tokens": True,
        # and spaces before punctuation stay.
        "clean_up_tokenization_spaces": False,
    }
    return hf_tokenizer.save(
        directory,
        {
            "tokenizer.json": library.to_str(),
            "tokenizer_config.json": json.dumps(settings, indent=1),
        },
        rows=library.get_vocab_size(),
        fields={},
        kind=kind,
    )


def _bytes(tokenizers, names, vocab_size, lowercase):
    if lowercase:
        raise InputError(
            got="tokenizer.lowercase with bytes", want="tokenizer.lowercase=False"
        )
    del vocab_size
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate((*names, *alphabet))}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    library.decoder = tokenizers.decoders.ByteLevel()
    return library, None


def _words(tokenizers, names, vocab_size, lowercase):
    model = tokenizers.models.WordLevel(unk_token=names[1])
    library = tokenizers.Tokenizer(model)
    if lowercase:
        library.normalizer = tokenizers.normalizers.Sequence(
            [
                tokenizers.normalizers.NFD(),
                tokenizers.normalizers.Lowercase(),
                tokenizers.normalizers.StripAccents(),
            ]
        )
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return library, tokenizers.trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=list(names), show_progress=False
    )


def _pieces(tokenizers, names, vocab_size, lowercase):
    model = tokenizers.models.WordPiece(
        unk_token=names[1], max_input_chars_per_word=100
    )
    library = tokenizers.Tokenizer(model)
    library.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=lowercase
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    library.decoder = tokenizers.decoders.WordPiece()
    return library, tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(names), show_progress=False
    )


_FORMS = {"byte": _bytes, "word": _words, "wordpiece": _pieces}


def _between(tokenizers, library, names) -> Any:
    """What stands around a text: BERT's [CLS] and [SEP], else a beginning alone."""
    begin, end = names[2:4]
    shape = f"{begin} $A {end}" if names is _BERT else f"{begin} $A"
    special = [(name, library.token_to_id(name)) for name in (begin, end)]
    return tokenizers.processors.TemplateProcessing(
        single=shape, pair=None, special_tokens=special
    )


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    """Texts in parts that end where a line does."""
    for text in texts:
        start = 0
        while start < len(text):
            end = text.rfind("\n", start, start + _CHUNK) + 1 or start + _CHUNK
            yield text[start:end]
            start = end
