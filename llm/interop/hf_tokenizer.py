"""The tokenizer files of a Hugging Face folder.

An imported tokenizer leaves as it came. Ours become a `tokenizer.json` that encodes as
they do: BPE and character models exactly (`llm/data/tokenizer_json.py`), where special
tokens that are spelled out in a text are text, which `split_special_tokens` says to
transformers. Unigram models find the likeliest pieces by sums whose rounding differs
from library to library, so theirs is SentencePiece's own file, tokenizer.model.
"""

import json

from llm.data import tokenizer_json
from llm.data.foreign_tokenizer import ForeignTokenizer
from llm.data.tokenizer import Tokenizer


def files(tokenizer: Tokenizer | ForeignTokenizer) -> dict[str, bytes]:
    """{name: content} of a tokenizer's files."""
    if isinstance(tokenizer, ForeignTokenizer):
        return {name: text.encode() for name, text in tokenizer.files.items()}
    pieces, scores, kinds = zip(*tokenizer.table(), strict=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pieces[tokenizer.pad_id],
        "unk_token": pieces[tokenizer.unk_id],
        "bos_token": pieces[tokenizer.bos_id],
        "eos_token": pieces[tokenizer.eos_id],
        "add_bos_token": True,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    made = {"tokenizer_config.json": json.dumps(settings, indent=1).encode()}
    if tokenizer.kind == "unigram":
        return made | {"tokenizer.model": tokenizer.model}
    start = [pieces[i] for i in tokenizer.start()]
    held = tokenizer_json.from_scores(pieces, scores, kinds, start=start)
    return made | {"tokenizer.json": json.dumps(held, ensure_ascii=False).encode()}
