"""A classifier of texts: a line through hashed words and pairs of words.

Quality and harm of documents are told by it: billions of them, so it must be fast, and
a linear model of words does what is asked (fastText, Joulin et al. 2016; the filter of
DCLM, Li et al. 2024, is one). Features are the words of a text in lower case and pairs
of neighbours, hashed into 2^bits columns (Weinberger et al. 2009); a feature that
occurs n times has the value 1 + log n, and a text has length 1. `logistic.py` finds the
one optimum, so a fit depends on the texts alone. Two labels share one line; of more,
each has its own against all others, and their probabilities need not sum to 1.

Probabilities are calibrated on texts held out from the fit, and presume that a label
is as frequent as all others together, whatever the texts' counts.

    classifier = fit({"good": [...], "bad": [...]})
    classifier.score(["a text"])[0]     # a probability a label
    save(classifier, "classifier/"); load("classifier/")
"""

import dataclasses
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from llm import files
from llm.errors import InputError
from llm.text import hashing, logistic
from llm.text.word_breaks import words

JSON, WEIGHTS = "classifier.json", "weights.npy"
BITS = (8, 24)  # fewest and most
_FORMAT = 1
_LEAST = 4  # texts of a label
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_REMEMBERED, _LONGEST = 200_000, 40  # pieces, and characters of one


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Lines, and what their features are.

    Attributes:
      labels: what texts may be.
      weights: float32 [lines, 2^bits]; one line for two labels, the second's.
      bias: float64 [lines].
      characters: of a text that are read.
      texts: of each label, that it was fitted and calibrated on.
      fingerprint: a hash of all of these.
    """

    labels: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    characters: int
    texts: tuple[int, ...]

    @property
    def bits(self) -> int:
        """The features are 2^bits."""
        return self.weights.shape[1].bit_length() - 1

    @property
    def fingerprint(self) -> str:
        """A hash of what the probabilities depend on, and of the counts."""
        return _fingerprint(_described(self), _bytes_of(self.weights))

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """The probability of each label: float64 [texts, labels]."""
        made = [self._margins(text) for text in texts]
        margin = np.array(made, np.float64).reshape(-1, len(self.bias))
        p = 0.5 * (1.0 + np.tanh(0.5 * margin))
        return np.concatenate([1.0 - p, p], axis=1) if len(self.labels) == 2 else p

    def _margins(self, text: str) -> np.ndarray:
        index, value = features(text[: self.characters], self.bits)
        return np.einsum("lc,c->l", self.weights[:, index], value) + self.bias


def features(text: str, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(index, value): the columns of a text, ascending, and a vector of length 1."""
    content = b"".join(map(_CUT.__getitem__, text.lower().split()))
    found = _columns(np.frombuffer(content, np.uint64), bits)
    if not len(found):
        return found, np.zeros(0, np.float32)
    found.sort()
    last = np.empty(len(found), bool)  # of those that are equal
    np.not_equal(found[1:], found[:-1], out=last[:-1])
    last[-1] = True
    ends = last.nonzero()[0]
    count = ends + 1
    count[1:] -= ends[:-1] + 1
    value = np.log(count.astype(np.float32))
    value += 1.0
    value /= np.sqrt(np.einsum("c,c", value, value))
    return found[ends], value


def _columns(codes: np.ndarray, bits: int) -> np.ndarray:
    """The column of every word, then of every pair."""
    pairs = codes[:-1] * _FACTOR + codes[1:]
    both = hashing.mixed(np.concatenate([codes, pairs]))
    return (both >> np.uint64(64 - bits)).astype(np.int32)


class _Codes(dict):
    """Word to its code; cleared when it has grown too large."""

    def __missing__(self, word: str) -> bytes:
        code = hashing.words((word,)).tobytes()
        if len(word) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[word] = code
        return code


class _Cut(dict):
    """Piece between spaces to the codes of its words; cleared likewise."""

    def __missing__(self, piece: str) -> bytes:
        cut = b"".join(map(_CODES.__getitem__, words.__wrapped__(piece)))
        if len(piece) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[piece] = cut
        return cut


_CODES, _CUT = _Codes(), _Cut()


def rows(texts: Iterable[str], bits: int) -> logistic.Rows:
    """The features of texts, a row each."""
    index, value, start = [], [], [0]
    for text in texts:
        columns, values = features(text, bits)
        index.append(columns)
        value.append(values)
        start.append(start[-1] + len(columns))
    if not index:
        return logistic.Rows(
            np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
        )
    return logistic.Rows(
        np.array(start, np.int64), np.concatenate(index), np.concatenate(value)
    )


def fit(
    texts: Mapping[str, Sequence[str]],
    *,
    bits: int = 20,
    characters: int = 10_000,
    l2: float = 1e-6,
    held_out: float = 0.1,
    seed: int = 0,
) -> Classifier:
    """Learns labels from texts of each.

    Memory is some 8 bytes for each different feature of each text, and 200 for each
    column that occurs.

    Args:
      bits: 2^bits columns.
      characters: of a text that are read, also later.
      l2: weight of the penalty; smaller follows the texts more closely.
      held_out: share of each label's texts that probabilities are calibrated on.
      seed: which texts these are.

    Raises:
      InputError: fewer than two labels, too few texts, or wrong numbers.
    """
    _check(texts, bits, characters, l2, held_out)
    labels = tuple(texts)
    rng = np.random.default_rng(seed)
    fitted, kept, truth, held_truth = [], [], [], []
    for number, label in enumerate(labels):
        order = rng.permutation(len(texts[label]))
        count = max(int(held_out * len(order)), 1)
        for place in sorted(order[:count]):
            kept.append(texts[label][place][:characters])
            held_truth.append(number)
        for place in sorted(order[count:]):
            fitted.append(texts[label][place][:characters])
            truth.append(number)
    made, held = rows(fitted, bits), rows(kept, bits)
    weights, bias = [], []
    for number in range(len(labels)) if len(labels) > 2 else (1,):
        line, constant = logistic.fit(
            made, np.array(truth) == number, columns=1 << bits, l2=l2
        )
        margin = held.times(line) + constant
        scale, shift = logistic.calibrate(margin, np.array(held_truth) == number)
        weights.append((scale * line).astype(np.float32))
        bias.append(scale * constant + shift)
    return Classifier(
        labels,
        np.stack(weights),
        np.array(bias),
        characters,
        tuple(len(texts[label]) for label in labels),
    )


def telling(
    classifier: Classifier, texts: Iterable[str], line: int, most: int
) -> list[tuple[str, float]]:
    """The words and pairs of texts that move a line most, up or down: (text, by how
    much a text, on average); the largest moves first."""
    total: dict[str, float] = {}
    count = 0
    for text in texts:
        text = text[: classifier.characters]
        found = words(text.lower())
        codes = hashing.words(found)
        columns = _columns(codes, classifier.bits)
        index, value = features(text, classifier.bits)
        # A column may be that of several features, each of which gets its share.
        at = np.searchsorted(index, columns)
        each = (classifier.weights[line][index] * value)[at]
        each = each / np.bincount(at, minlength=len(index))[at]
        pairs = map(" ".join, itertools.pairwise(found))
        for name, move in zip((*found, *pairs), each.tolist(), strict=True):
            total[name] = total.get(name, 0.0) + move
        count += 1
        if len(total) > 4 * _REMEMBERED:
            first = sorted(total.items(), key=lambda pair: -abs(pair[1]))
            total = dict(first[:_REMEMBERED])
    first = sorted(total.items(), key=lambda pair: (-abs(pair[1]), pair[0]))[:most]
    return [(name, move / count) for name, move in first]


def save(classifier: Classifier, path: epath.PathLike) -> None:
    """Writes the folder, whole or not at all."""
    content = _bytes_of(classifier.weights)
    described = _described(classifier)
    described["fingerprint"] = _fingerprint(described, content)
    with files.folder(path) as partial:
        (partial / WEIGHTS).write_bytes(content)
        (partial / JSON).write_text(
            json.dumps(described, indent=1) + "\n", encoding="utf-8"
        )


def load(path: epath.PathLike) -> Classifier:
    """Reads what `save` wrote.

    Raises:
      InputError: no such folder, or its files are broken or were altered.
    """
    folder = epath.Path(path)
    try:
        described = json.loads((folder / JSON).read_text("utf-8"))
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise _bad(folder, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _bad(folder, f"{JSON} is no JSON") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise _bad(folder, f"{JSON} is not of format {_FORMAT}")
    said = described.pop("fingerprint", "")
    if said != _fingerprint(described, content):
        raise _bad(folder, "its files were altered, or are of two classifiers")
    try:
        weights = np.load(io.BytesIO(content), allow_pickle=False)
        made = Classifier(
            tuple(described["labels"]),
            weights,
            np.array(described["bias"], np.float64),
            described["characters"],
            tuple(described["texts"]),
        )
        lines = 1 if len(made.labels) == 2 else len(made.labels)
        whole = (
            all(isinstance(label, str) for label in made.labels)
            and all(type(count) is int for count in (*made.texts, made.characters))
            and made.characters > 0
            and weights.dtype == np.float32
            and weights.shape == (lines, 1 << described["bits"])
            and made.bias.shape == (lines,)
            and np.isfinite(weights).all()
            and np.isfinite(made.bias).all()
        )
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise _bad(folder, f"a part is missing or wrong ({error})") from error
    if not whole:
        raise _bad(folder, "weights, labels and bias do not belong together")
    return made


def _described(classifier: Classifier) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "labels": list(classifier.labels),
        "bits": classifier.bits,
        "characters": classifier.characters,
        "bias": classifier.bias.tolist(),
        "texts": list(classifier.texts),
    }


def _bytes_of(weights: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, weights, allow_pickle=False)
    return held.getvalue()


def _fingerprint(described: Mapping[str, Any], content: bytes) -> str:
    text = json.dumps(described, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + text).hexdigest()


def _bad(folder: epath.Path, why: str) -> InputError:
    return InputError(
        got=f"{folder}: {why}{files.relative_to(folder)}",
        want="the folder of a classifier of texts",
        do="train one with configs/train_filter.py, or correct the path",
    )


def _check(texts, bits, characters, l2, held_out) -> None:
    if len(texts) < 2:
        raise InputError(got=f"labels {', '.join(texts)}", want="two or more labels")
    for label, some in texts.items():
        if not re.fullmatch(r"[^\s/]+", label):
            raise InputError(
                got=f"label {label!r}", want="a name without white space and /"
            )
        if len(some) < _LEAST:
            raise InputError(
                got=f"{len(some)} texts of the label {label!r}",
                want=f"{_LEAST} or more, and some hundreds for a good filter",
            )
