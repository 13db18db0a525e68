"""The tokenizer files of a Hugging Face folder.

An imported tokenizer leaves as it came. Ours become a `tokenizer.json` that encodes as
they do (`llm/data/tokenizer_json.py`). Special tokens that are spelled out in a text
are text: they are no added tokens of that file, and `split_special_tokens` says so to
transformers, which adds them. Unigram models find the likeliest pieces by sums of
scores, which libraries round in different ways; ours have scores of which sums are
exact, and one that has not, as they were trained before, is refused.
"""

import json
from typing import Any

from llm.data import tokenizer_json
from llm.data.foreign_tokenizer import ForeignTokenizer
from llm.data.tokenizer import Tokenizer
from llm.data.vocabularies import Vocabulary
from llm.errors import InputError


def files(tokenizer: Tokenizer | ForeignTokenizer) -> dict[str, bytes]:
    """{name: content} of a tokenizer's files."""
    if isinstance(tokenizer, Vocabulary):
        held = json.loads(tokenizer.files["tokenizer.json"])
        texts = dict(tokenizer.files) | {"tokenizer.json": _as_text(held)}
        return {name: text.encode() for name, text in texts.items()}
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
    start = [pieces[i] for i in tokenizer.start()]
    if tokenizer.kind == "unigram":
        if tokenizer.symbols is None:
            raise InputError(
                got="a unigram tokenizer without rounded scores, for Hugging Face",
                want="one that other libraries can apply exactly",
                do="train it again: scores are rounded since then",
            )
        held = tokenizer_json.unigram(pieces, scores, kinds, start=start)
        made["tokenizer.model"] = tokenizer.model
    else:
        held = tokenizer_json.from_scores(pieces, scores, kinds, start=start)
    return made | {"tokenizer.json": _as_text(held).encode()}


def _as_text(held: dict[str, Any]) -> str:
    """A tokenizer.json without added tokens but those that a text may hold."""
    added = [token for token in held["added_tokens"] if not token["special"]]
    return json.dumps(held | {"added_tokens": added}, ensure_ascii=False)
