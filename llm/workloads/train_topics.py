"""Topics of documents, found by a model's vectors: topics/, train_topics.json.

Texts are sampled by their hash, embedded by a model, and grouped. A linear classifier
of words then learns the groups, which is what a corpus is told apart by: it needs no
model, and the time of a tokenizer. On texts that it did not learn from, the figures say
how often the two agree.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import registry, run_dir
from llm.corpus import sample
from llm.errors import InputError
from llm.inference.embeddings import embedder
from llm.knobs import Positive, Range, section
from llm.text import kmeans, linear_classifier
from llm.workloads import claim, load

_LEAST = 12  # texts of a topic
_SHOWN, _HEAD = 3, 160  # texts of a topic that are shown, and characters of each
_WORDS_IN_NAME = 3


@section("topics")
class Topics:
    """Topics of documents."""

    # Topics that are looked for in documents of data.source, by embed's model.
    count: Annotated[int, Range(2)] = 8
    # Documents that are taken, as those of filter; words that are told of each topic.
    documents: Annotated[int, Range(2 * _LEAST)] = 20_000
    characters: Positive = 10_000
    test_fraction: Annotated[float, Range(0, 0.5, above=True, below=True)] = 0.1
    bits: Annotated[int, Range(*linear_classifier.BITS)] = 18
    words: Positive = 20


SECTIONS = (Topics,)
SECTIONS_OF = ("prepare_data", "embed")


def run(c: ConfigDict, workdir: str) -> None:
    """Finds `c.topics.count` topics, and measures how well they are told apart."""
    t = c.topics
    e = c.embed
    loaded = load(e.model_dir, workdir)
    skipped: dict[str, int] = {}
    source = registry.build("sources", c.data.source)
    some = sample.of_labels(
        _documents(source, skipped), t.documents, t.characters, c.seed
    )
    texts = [text for _, text in some.get("", [])]
    if len(texts) < 2 * _LEAST:
        raise InputError(
            got=f"{len(texts)} different texts",
            want=f"{2 * _LEAST} or more, and some thousands for good topics",
        )
    embed = embedder(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        pooling=e.pooling,
        normalise=True,
        max_tokens=e.max_tokens or loaded.config.train.seq_len,
        batch_size=e.batch_size,
    )
    unit_ND = kmeans.directions(embed(texts).vectors)
    found = kmeans.clusters(unit_ND, t.count, least=_LEAST, seed=c.seed)
    if len(found.centers) < 2:
        raise InputError(
            got=f"texts that are all of one topic by {e.model_dir}",
            want="texts of more, or a model that tells them apart",
        )
    words = kmeans.telling(texts, found.which, t.words)
    names = [_name(number, of_topic) for number, of_topic in enumerate(words)]
    learned, held = _apart(some[""], texts, found.which, names, t.test_fraction)
    made = linear_classifier.fit(
        learned, bits=t.bits, characters=t.characters, seed=c.seed
    )
    claim(c, workdir)
    result = {
        "texts": len(texts),
        "skipped": skipped,
        "model": {"path": e.model_dir, "step": loaded.step},
        "fingerprint": made.fingerprint,
        **_agreement(made, held),
        "topics": [
            {
                "name": name,
                "texts": int((found.which == number).sum()),
                "cosine": float(found.cosine[found.which == number].mean()),
                "words": words[number],
                "nearest": _nearest(texts, found, number),
            }
            for number, name in enumerate(names)
        ],
    }
    root = epath.Path(workdir)
    linear_classifier.save(made, root / "topics")
    run_dir.write(workdir, "train_topics.json", result)
    for topic in result["topics"]:
        print(f"{topic['texts']:>6}  {topic['name']}: {', '.join(topic['words'][:10])}")
    print(
        f"{len(names)} topics of {len(texts)} texts; of those held out, "
        f"{result['agreement']:.1%} are given the topic of their vector (the largest "
        f"topic has {result['largest']:.1%}); {root / 'topics'}"
    )


def _documents(source, skipped: dict[str, int]) -> Iterator[tuple[str, str]]:
    """('', text) of every document: they have no label yet."""

    def skip(reason: str, id: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    for document in source(skip):
        yield "", document.text


def _name(number: int, words: list[str]) -> str:
    return "-".join([f"{number:02d}", *words[:_WORDS_IN_NAME]])


def _apart(some, texts, which_N, names, share):
    """(learned, held out): the texts of each topic, by its name."""
    topic = dict(zip(texts, which_N.tolist(), strict=True))
    learned, held = {}, {}
    for number, name in enumerate(names):
        own = [pair for pair in some if topic[pair[1]] == number]
        learned[name], held[name] = sample.apart(own, share)
    return learned, held


def _agreement(made: linear_classifier.Classifier, held: dict[str, list[str]]) -> dict:
    size_K = np.array([len(held[name]) for name in made.labels])
    said_N = made.score(t for name in made.labels for t in held[name]).argmax(1)
    truth_N = np.repeat(np.arange(len(size_K)), size_K)
    return {
        "tested": len(truth_N),
        "agreement": float((said_N == truth_N).mean()),
        "largest": float(size_K.max() / size_K.sum()),
    }


def _nearest(texts: list[str], found: kmeans.Clusters, number: int) -> list[str]:
    """The beginnings of the texts that are nearest to a center."""
    own = np.flatnonzero(found.which == number)
    first = own[np.argsort(-found.cosine[own], kind="stable")][:_SHOWN]
    return [" ".join(texts[place].split())[:_HEAD] for place in first]
