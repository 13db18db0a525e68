"""The tokenizer files of a Hugging Face folder.

An imported tokenizer leaves as it came. Ours become a `tokenizer.json` that encodes as
they do (`llm/tokenizers/tokenizer_json.py`). Special tokens that are spelled out in a
text are text: they are no added tokens of that file, and `split_special_tokens` says so
to transformers, which adds them. Not with a chat template: other programs encode what
it writes as one text, in which its tokens must be found. Unigram models find the
likeliest pieces by sums of scores, which libraries round in different ways; ours have
scores of which sums are exact, and one that has not, as they were trained before, is
refused.
"""

import json
from typing import Any

from llm.errors import InputError
from llm.tokenizers import tokenizer_json, vocabularies
from llm.tokenizers.hf_tokenizer import ForeignTokenizer
from llm.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer


def files(tokenizer: SentencePieceTokenizer | ForeignTokenizer) -> dict[str, bytes]:
    """{name: content} of a tokenizer's files."""
    chats = bool(tokenizer.chat_template)
    if isinstance(tokenizer, ForeignTokenizer):
        texts = dict(tokenizer.files)
        if tokenizer.kind in vocabularies.KINDS:
            texts |= _of_vocabulary(texts, chats)
        return {name: text.encode() for name, text in texts.items()}
    pieces, scores, kinds = zip(*tokenizer.table(), strict=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pieces[tokenizer.pad_id],
        "unk_token": pieces[tokenizer.unk_id],
        "bos_token": pieces[tokenizer.bos_id],
        "eos_token": pieces[tokenizer.eos_id],
        "add_bos_token": True,
        "split_special_tokens": not chats,
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
    if chats:
        made["chat_template.jinja"] = tokenizer.chat_template.encode()
    return made | {"tokenizer.json": _written(held, chats).encode()}


def _of_vocabulary(texts: dict[str, str], chats: bool) -> dict[str, str]:
    """The files of a vocabulary that change."""
    held, settings = (
        json.loads(texts[name]) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    settings["split_special_tokens"] = not chats
    return {
        "tokenizer.json": _written(held, chats),
        "tokenizer_config.json": json.dumps(settings, indent=1),
    }


def _written(held: dict[str, Any], chats: bool) -> str:
    """A tokenizer.json; without a chat template, no special token is found in texts."""
    if chats:
        return json.dumps(held, ensure_ascii=False)
    added = [token for token in held["added_tokens"] if not token["special"]]
    return json.dumps(held | {"added_tokens": added}, ensure_ascii=False)
