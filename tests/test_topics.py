"""Topics: clusters against their definition, the workload and the stage on texts whose
topics are known."""

import itertools
import json
import random

import numpy as np
import pytest
from test_convert import make_run

from llm import config
from llm.document import Document
from llm.errors import InputError
from llm.inference.embeddings import Embedded
from llm.stages import topic as stage
from llm.text import kmeans, linear_classifier
from llm.workloads import train_topics

WORDS = {
    "sea": ["wave", "harbour", "sail", "tide", "anchor", "gull", "mast", "reef"],
    "law": ["court", "judge", "appeal", "verdict", "statute", "clerk", "plea", "oath"],
    "food": ["bread", "flour", "oven", "butter", "yeast", "dough", "crust", "salt"],
}


def bundles(seed=0, each=(40, 30, 20), width=6):
    """Vectors about three directions, with a lean that is common to all."""
    rng = np.random.default_rng(seed)
    center = np.eye(width)[: len(each)]
    made = [c + 0.1 * rng.normal(size=(n, width))
            for c, n in zip(center, each, strict=True)]  # fmt: skip
    truth = np.repeat(np.arange(len(each)), each)
    order = rng.permutation(len(truth))
    vectors_ND = np.concatenate(made)[order] + 5.0
    return vectors_ND.astype(np.float32), truth[order]


def test_clusters_are_the_directions_that_were_drawn():
    vectors_ND, truth = bundles()
    unit_ND = kmeans.directions(vectors_ND)
    found = kmeans.clusters(unit_ND, 3)
    np.testing.assert_array_equal(found.which, truth)  # both by size
    for number, center_D in enumerate(found.centers):
        mean_D = unit_ND[truth == number].mean(axis=0)
        mean_D /= np.linalg.norm(mean_D)
        np.testing.assert_allclose(center_D, mean_D, atol=1e-5)
        np.testing.assert_allclose(
            found.cosine[truth == number], unit_ND[truth == number] @ mean_D, atol=1e-5
        )
    again = kmeans.clusters(unit_ND, 3)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_clusters_are_the_best_of_all_partitions():
    """Brute force: no way to part nine vectors has a larger sum of cosines."""
    rng = np.random.default_rng(3)
    unit_ND = kmeans.directions(rng.normal(size=(9, 4)).astype(np.float32))
    found = kmeans.clusters(unit_ND, 2, starts=50)

    def value(which):
        # The sum of cosines with the mean direction is the length of the sum.
        return sum(np.linalg.norm(unit_ND[which == k].sum(axis=0)) for k in (0, 1))

    every = itertools.product((0, 1), repeat=9)
    best = max(value(np.array(which)) for which in every)
    assert found.cosine.sum() == pytest.approx(best, rel=1e-5)


def test_few_vectors_make_no_cluster_and_copies_do_not_hang():
    vectors_ND, _ = bundles(each=(40, 30, 3))
    unit_ND = kmeans.directions(vectors_ND)
    assert len(kmeans.clusters(unit_ND, 3, least=2).centers) == 3
    kept = kmeans.clusters(unit_ND, 3, least=10)
    assert len(kept.centers) == 2 and len(kept.which) == 73
    same = np.tile(np.eye(4, dtype=np.float32)[:2], (9, 1))
    assert len(kmeans.clusters(same, 5).centers) == 2
    assert len(kmeans.clusters(np.zeros((5, 4), np.float32), 3).centers) == 1


def texts(count=60, seed=0):
    """(topic, text); words that all share, and a few of their own."""
    rng = random.Random(seed)
    shared = ["the", "and", "of", "with", "under", "over", "near"]
    return [
        (name, " ".join(rng.choices(shared + own * 2, k=30)))
        for name, own in WORDS.items()
        for _ in range(count)
    ]


def test_words_are_those_that_only_a_topic_has():
    pairs = texts()
    which = np.array([list(WORDS).index(name) for name, _ in pairs])
    told = kmeans.telling([text for _, text in pairs], which, 6)
    for name, words in zip(WORDS, told, strict=True):
        assert len(words) == 6 and set(words) <= set(WORDS[name])


def topics_config(folder, model, **knobs):
    path = folder / "texts.jsonl"
    lines = [json.dumps({"text": text}) for _, text in texts()]
    path.write_text("\n".join(lines) + "\n")
    c = config.debug(config.base())
    c.workload = "train_topics"
    c.data.source = config.source(f"jsonl:{path}")
    c.embed.model_dir = str(model)
    c.topics.update(count=3, documents=1000, **knobs)
    return c.lock()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "trained")


def test_the_workload_finds_topics_that_the_stage_tells(
    model, tmp_path, monkeypatch, capsys
):
    """The vectors are made by counting words, so that topics are sure."""
    every = sorted({word for own in WORDS.values() for word in own})

    def counted(*_, **knobs):
        def embed(some):
            rows = [[text.split().count(word) for word in every] for text in some]
            return Embedded(np.array(rows, np.float32), 0)

        return embed

    monkeypatch.setattr(train_topics, "embedder", counted)
    train_topics.run(topics_config(tmp_path, model), str(tmp_path / "run"))
    assert "3 topics of 180 texts" in capsys.readouterr().out
    result = json.loads((tmp_path / "run/train_topics.json").read_text())
    assert result["agreement"] == 1.0 and result["tested"] == 18
    assert [of["texts"] for of in result["topics"]] == [60, 60, 60]
    folder = tmp_path / "run/topics"
    assert linear_classifier.load(folder).fingerprint == result["fingerprint"]

    tell = stage.make(model_path=str(folder)).apply
    names = {}
    for name, text in texts(seed=1):
        given = Document("a", text, "jsonl", "a", "prose", len(text), {"licence": "x"})
        (made,) = tell(given)
        assert made.meta["licence"] == "x" and made.text == text
        names.setdefault(made.meta["topic"], set()).add(name)
    assert len(names) == 3
    for topic, (name,) in names.items():
        assert set(topic.split("-")[1:]) <= set(WORDS[name])


def test_a_model_makes_the_vectors(model, tmp_path):
    run = tmp_path / "run"
    train_topics.run(topics_config(tmp_path, model), str(run))
    result = json.loads((run / "train_topics.json").read_text())
    assert sum(of["texts"] for of in result["topics"]) == 180
    before = (run / "train_topics.json").read_bytes()
    train_topics.run(topics_config(tmp_path, model), str(run))
    assert (run / "train_topics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"count": 1}, "topics.count 1; want 2 or more"),
        ({"documents": 3}, "topics.documents 3; want 24 or more"),
        (
            {"test_fraction": 0.9},
            "topics.test_fraction 0.9; want above 0",
        ),
    ],
)
def test_wrong_configs_leave_nothing(model, tmp_path, knobs, message):
    c = topics_config(tmp_path, model).copy_and_resolve_references()
    c.unlock()
    c.topics.update(**knobs)
    with pytest.raises(InputError, match=message):
        config.check(c)
        train_topics.run(c, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_stage_asks_for_a_folder():
    with pytest.raises(InputError, match="no classifier for the stage 'topic'"):
        stage.make()
