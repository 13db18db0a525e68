"""A classifier of documents from texts of each label: classifier/, train_filter.json.

Texts are sampled by their hash, each once; one that has two labels is left out. Figures
are those of texts that were not learned from.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import config, metrics, registry, run_dir
from llm.corpus import sample
from llm.errors import InputError
from llm.knobs import Above0, Count, Positive, Range, section
from llm.text import linear_classifier
from llm.workloads import claim

_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_BINS = 10
_TELLING = 1000  # texts of a label whose words are weighed


@section("filter")
class Filter:
    """A classifier of documents."""

    # What a classifier of documents learns from: pairs of a label and of what holds
    # texts of it, as `text=` of the quickstart: (("good", "jsonl:good.jsonl"), ...).
    # () takes data.source, whose documents have a label in this field: kind, group, or
    # one of meta.
    sources: tuple = ()
    field: str = "kind"
    # Documents of a label that are taken, by chance and each text once; the characters
    # of each that are read; and the share of them that figures are measured on.
    documents: Annotated[int, Range(8)] = 50_000
    characters: Positive = 10_000
    test_fraction: Annotated[float, Range(0, 0.9, above=True, below=True)] = 0.1
    # Features are hashed to 2**bits columns; l2 is the weight of the penalty.
    bits: Annotated[int, Range(*linear_classifier.BITS)] = 20
    l2: Above0 = 1e-6
    # How many words are told that weigh most.
    words: Count = 30


SECTIONS = (Filter,)
SECTIONS_OF = ("prepare_data",)


def run(c: ConfigDict, workdir: str) -> None:
    """Trains the classifier that `c.filter` describes, and measures it."""
    f = c.filter
    _check(c)
    skipped: dict[str, int] = {}
    texts = sample.of_labels(_documents(c, skipped), f.documents, f.characters, c.seed)
    learned, held = {}, {}
    for label, some in texts.items():
        learned[label], held[label] = sample.apart(some, f.test_fraction)
    made = linear_classifier.fit(
        learned, bits=f.bits, characters=f.characters, l2=f.l2, seed=c.seed
    )
    claim(c, workdir)
    result = {
        "labels": list(made.labels),
        "learned": {label: len(some) for label, some in learned.items()},
        "tested": {label: len(some) for label, some in held.items()},
        "skipped": skipped,
        "fingerprint": made.fingerprint,
        **_figures(made, held),
        "words": _words(made, held, f.words),
    }
    root = epath.Path(workdir)
    linear_classifier.save(made, root / "classifier")
    run_dir.write(workdir, "train_filter.json", result)
    for label, figures in result["label"].items():
        moved = ", ".join(word for word, _ in result["words"][label]["for"][:8])
        print(
            f"{label}: AUC {figures['auc']:.4f}, calibration error "
            f"{figures['calibration_error']:.4f}; told by {moved}"
        )
    print(
        f"accuracy {result['accuracy']:.4f} on {sum(map(len, held.values()))} texts "
        f"held out; {root / 'classifier'}"
    )


def _documents(c: ConfigDict, skipped: dict[str, int]) -> Iterator[tuple[str, str]]:
    """(label, text) of every document."""

    def skip(reason: str, id: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    for label, path in c.filter.sources:
        for document in registry.build("sources", config.source(path))(skip):
            yield label, document.text
    if not c.filter.sources:
        field = c.filter.field
        for document in registry.build("sources", c.data.source)(skip):
            own = getattr(document, field) if field in ("kind", "group") else None
            label = own or document.meta.get(field, "")
            if label:
                yield str(label), document.text
            else:
                skip(f"no {field}", document.id)


def _figures(made: linear_classifier.Classifier, held: dict[str, list[str]]) -> dict:
    p = made.score(text for label in made.labels for text in held[label])
    truth = np.repeat(np.arange(len(made.labels)), [len(held[x]) for x in made.labels])
    said = p.argmax(1)
    result = {
        "accuracy": float((said == truth).mean()),
        "label": {},
    }
    for number, label in enumerate(made.labels):
        positive, score = truth == number, p[:, number]
        bins = list(_calibration(score, positive))
        result["label"][label] = {
            "auc": metrics.area_under_roc(score, positive),
            "thresholds": [_at(score, positive, least) for least in _THRESHOLDS],
            "calibration": bins,
            "calibration_error": sum(
                bin["share"] * abs(bin["said"] - bin["so"]) for bin in bins
            ),
        }
    return result


def _at(score: np.ndarray, positive: np.ndarray, least: float) -> dict:
    """What a threshold gives; precision is None where it finds nothing."""
    found = score >= least
    right = int((found & positive).sum())
    return {
        "least": least,
        "precision": right / int(found.sum()) if found.any() else None,
        "recall": right / int(positive.sum()),
        "found": float(found.mean()),
    }


def _calibration(score: np.ndarray, positive: np.ndarray) -> Iterator[dict]:
    """Of each tenth of the probabilities, what was said and what was so.

    The label weighs as much as all others, as probabilities presume.
    """
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
    which = np.minimum((score * _BINS).astype(int), _BINS - 1)
    for tenth in range(_BINS):
        here = which == tenth
        if here.any():
            share = weight[here].sum()
            yield {
                "from": tenth / _BINS,
                "texts": int(here.sum()),
                "share": float(share),
                "said": float(weight[here] @ score[here] / share),
                "so": float(weight[here] @ positive[here] / share),
            }


def _words(made: linear_classifier.Classifier, held, most: int) -> dict:
    """The words for and against each label that move a held-out text most."""
    texts = [text for label in made.labels for text in held[label][:_TELLING]]
    found = {}
    for number, label in enumerate(made.labels):
        line = 0 if len(made.labels) == 2 else number
        sign = -1 if len(made.labels) == 2 and number == 0 else 1
        moves = [
            (word, sign * move)
            for word, move in linear_classifier.telling(made, texts, line, 4 * most)
        ]
        found[label] = {
            "for": [pair for pair in moves if pair[1] > 0][:most],
            "against": [pair for pair in moves if pair[1] < 0][:most],
        }
    return found


def _check(c: ConfigDict) -> None:
    f = c.filter
    for pair in f.sources:
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and all(isinstance(part, str) and part for part in pair)
        ):
            raise InputError(
                got=f"filter.sources {f.sources!r}",
                want="pairs of a label and of texts, such as "
                "(('good', 'jsonl:good.jsonl'), ('bad', 'jsonl:bad.jsonl'))",
            )
