"""How well a tokenizer fits a corpus: bytes a token, by language; unknown; worst words.

What train_tokenizer.json says beside the counts of tokens, all of it plain numbers and
texts.
"""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from llm.data import tokens
from llm.document import Document

_EXAMPLES = 6  # lines shown with their pieces
_EXAMPLE_WIDTH = (30, 80)  # characters of such a line
_WORDS = 20_000  # most frequent ones that are looked at
_WORST = 15
_UNUSED = 200  # pieces that are listed
_WORD = re.compile(r"[^\W\d_]+")


def about(
    folder: epath.Path, splits: Mapping[str, Sequence[Document]], tokenizer: Any
) -> dict[str, Any]:
    """The report.

    Args:
      folder: where the tokens of the splits are.

    Returns:
      `examples`: lines and their pieces; `unused_pieces`: of the train split,
      how many, and `unused`, which (the first of them);
      `unknown`: {split: share of tokens that are unknown}; `kinds`: {source: {language:
      (documents, bytes, tokens)}} of all splits; `languages`: {language: bytes a token}
      of all sources, where documents name one; `worst_words`: of the validation split,
      those whose pieces cost most.
    """
    seen, unknown = np.zeros(tokenizer.vocab_size, bool), {}
    for name in splits:
        shards = tokens.open_split(folder, name).shards
        count = sum(int((shard == tokenizer.unk_id).sum()) for shard in shards)
        whole = sum(len(shard) for shard in shards)
        unknown[name] = round(count / max(1, whole), 6)
        for shard in shards if name == "train" else ():
            seen[shard] = True
    kinds, unused = _kinds(folder, splits), np.flatnonzero(~seen).tolist()
    return {
        "examples": _examples(splits["validation"], tokenizer),
        "unused_pieces": len(unused),
        "unused": tokenizer.pieces(unused[:_UNUSED]),
        "unknown": unknown,
        "kinds": kinds,
        "languages": _languages(kinds),
        "worst_words": _worst(splits["validation"], tokenizer),
    }


def _kinds(folder, splits) -> dict[str, dict[str, list[int]]]:
    """Documents, bytes and tokens of each source and language."""
    held: dict[str, dict[str, list[int]]] = {}
    for name, documents in splits.items():
        split, lengths = tokens.open_split(folder, name), collections.Counter()
        for id, length in zip(split.ids, split.lengths, strict=True):
            lengths[id] += int(length)  # a record may be several sequences, or none
        for document in documents:
            language = document.meta.get("language")
            if not isinstance(language, str):
                language = ""
            kind = held.setdefault(document.source, {}).setdefault(language, [0, 0, 0])
            kind[0] += 1
            kind[1] += len(document.text.encode("utf-8"))
            kind[2] += lengths[document.id]
    return held


def _languages(kinds) -> dict[str, float]:
    """Bytes a token of each language, the least compressed first."""
    held = collections.defaultdict(lambda: [0, 0])
    for languages in kinds.values():
        for language, (_, size, count) in languages.items():
            held[language][0] += size
            held[language][1] += count
    rates = {
        name: round(size / max(1, count), 4)
        for name, (size, count) in held.items()
        if name
    }
    return dict(sorted(rates.items(), key=lambda item: item[1]))


def _worst(documents, tokenizer) -> list[dict[str, Any]]:
    """Words by what they cost beyond a piece each, over all their uses.

    An unknown piece, which loses the word, costs as one more.
    """
    counts = collections.Counter(
        word for document in documents for word in _WORD.findall(document.text)
    )
    # By frequency, then by text: a Counter keeps the order of the corpus.
    words = sorted(counts, key=lambda word: (-counts[word], word))[:_WORDS]
    encoded = tokenizer.encode_batch(words)
    costs = [len(ids) - 1 + ids.count(tokenizer.unk_id) for ids in encoded]
    ranked = sorted(
        zip(words, encoded, costs, strict=True),
        key=lambda x: (-counts[x[0]] * x[2], len(x[1]), x[0]),
    )
    return [
        {
            "word": word, "pieces": len(ids), "uses": counts[word],
            "unknown": tokenizer.unk_id in ids,
        }
        for word, ids, cost in ranked[:_WORST]
        if cost
    ]  # fmt: skip


def _examples(documents, tokenizer) -> list[dict[str, Any]]:
    """A line from each of some documents, evenly spread, and its pieces."""
    found = []
    count = min(_EXAMPLES, len(documents))
    places = {i * len(documents) // count for i in range(count)}
    for place, document in enumerate(documents):
        if place not in places:
            continue
        lines = document.text.split("\n")
        fitting = [n for n in lines if _EXAMPLE_WIDTH[0] <= len(n) <= _EXAMPLE_WIDTH[1]]
        if fitting:
            line = fitting[len(fitting) // 2]
            shown = tokenizer.pieces(tokenizer.encode(line))
            found.append({"text": line, "pieces": shown})
    return found
