"""Classifiers of texts: against scipy on the explicit matrix, and what is refused."""

import itertools
import json
import math
import random

import numpy as np
import pytest
from scipy import optimize

from llm import config, metrics, registry
from llm.corpus import sample
from llm.document import Document
from llm.errors import InputError
from llm.stages import classifier as stage
from llm.text import hashing, linear_classifier, logistic
from llm.text.word_breaks import words
from llm.workloads import train_filter

BITS = 9


def texts(seed=0, count=60):
    """Two kinds of texts that share words, and a third."""
    rng = random.Random(seed)
    shared = [f"word{n}" for n in range(30)]
    own = {"good": ["clear", "proof"], "bad": ["buy", "now"], "code": ["def", "("]}
    return {
        label: [
            " ".join(rng.choices(shared + some * 4, k=rng.randint(1, 40)))
            for _ in range(count)
        ]
        for label, some in own.items()
    }


def two(count=60):
    made = texts(count=count)
    return {label: made[label] for label in ("bad", "good")}


def matrix(some, bits):
    """The features one by one, from their definition."""
    made = np.zeros((len(some), 1 << bits))
    for row, text in enumerate(some):
        codes = [int(hashing.words((w,))[0]) for w in words(text.lower())]
        factor = 0x9E3779B97F4A7C15
        codes += [(a * factor + b) % 2**64 for a, b in itertools.pairwise(codes)]
        for code in codes:
            made[
                row, int(hashing.mixed(np.array([code], np.uint64))[0]) >> 64 - bits
            ] += 1
        for column in np.flatnonzero(made[row]):
            made[row, column] = 1 + math.log(made[row, column])
        made[row] /= np.sqrt((made[row] ** 2).sum()) or 1
    return made


def test_features_are_those_of_the_definition():
    some = [*texts()["good"][:9], "", "one", "A a A a A", "你好 世界", "Don't; DON'T"]
    found = linear_classifier.rows(some, BITS)
    dense = np.zeros((len(some), 1 << BITS))
    for row in range(len(some)):
        at = slice(found.start[row], found.start[row + 1])
        assert (np.diff(found.index[at]) > 0).all()
        dense[row, found.index[at]] = found.value[at]
    np.testing.assert_allclose(dense, matrix(some, BITS), atol=1e-6)


@pytest.mark.parametrize("l2", [1e-2, 1e-4])
def test_the_optimum_is_that_of_scipy(l2):
    made = two()
    some = made["bad"] + made["good"][:20]
    positive = np.arange(len(some)) >= len(made["bad"])
    x, sign = matrix(some, BITS), np.where(positive, 1, -1)
    share = np.where(positive, 0.5 / 20, 0.5 / len(made["bad"]))

    def loss(at):
        z = sign * (x @ at[:-1] + at[-1])
        slope = -share * sign / (1 + np.exp(z))
        value = share @ np.log1p(np.exp(-z)) + l2 / 2 * at[:-1] @ at[:-1]
        return value, np.append(x.T @ slope + l2 * at[:-1], slope.sum())

    best = optimize.minimize(
        loss,
        np.zeros(x.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": 1e-9, "ftol": 1e-16, "maxiter": 9999, "maxfun": 9999},
    ).x
    assert np.abs(loss(best)[1]).max() < 1e-7
    weights, bias = logistic.fit(
        linear_classifier.rows(some, BITS),
        positive,
        columns=1 << BITS,
        l2=l2,
        tolerance=1e-8,
    )
    np.testing.assert_allclose(weights, best[:-1], atol=1e-4 * np.abs(best).max())
    assert bias == pytest.approx(best[-1], abs=1e-4 * np.abs(best).max())


def test_products_with_rows_equal_those_of_the_matrix(monkeypatch):
    some = ["", *texts()["good"], "", "", *texts()["bad"], ""]
    x = matrix(some, BITS)
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=1 << BITS), rng.normal(size=len(some))
    found = linear_classifier.rows(some, BITS)
    for block in (1, 50, 1 << 20):
        monkeypatch.setattr(logistic, "_BLOCK", block)
        np.testing.assert_allclose(found.times(w), x @ w, atol=1e-5)
        np.testing.assert_allclose(found.back(g, 1 << BITS), x.T @ g, atol=1e-5)


def test_calibration_finds_the_probabilities_that_were_drawn():
    rng = np.random.default_rng(0)
    margin = rng.normal(size=40_000) * 3
    positive = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * margin + 0.3)))
    n, m = positive.sum(), (~positive).sum()
    scale, shift = logistic.calibrate(margin, positive)
    assert scale == pytest.approx(0.5, abs=0.02)
    # Both classes count the same: the odds of their counts are taken away.
    assert shift == pytest.approx(0.3 - math.log(n / m), abs=0.05)
    assert logistic.calibrate(-margin, positive) == (1.0, 0.0)
    assert logistic.calibrate(margin, positive | True) == (1.0, 0.0)


def test_scores_are_the_sigmoid_of_the_line():
    made = linear_classifier.fit(two(), bits=BITS)
    some = two()["good"][:7]
    margin = matrix(some, BITS) @ made.weights[0] + made.bias[0]
    found = made.score(some)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-margin)), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1)
    assert made.score([]).shape == (0, 2)


@pytest.mark.parametrize("kinds", [two, texts])
def test_labels_are_told_apart_again_and_again(kinds):
    made = linear_classifier.fit(kinds(count=200), bits=12, seed=3)
    fresh = texts(seed=1)
    for number, label in enumerate(made.labels):
        said = made.score(fresh[label]).argmax(1)
        assert (said == number).mean() > 0.85
    again = linear_classifier.fit(kinds(count=200), bits=12, seed=3)
    assert made.fingerprint == again.fingerprint
    other = linear_classifier.fit(kinds(count=200), bits=12, seed=4)
    assert made.fingerprint != other.fingerprint


def test_only_the_first_characters_are_read():
    made = linear_classifier.fit(two(), bits=BITS, characters=50)
    text = "buy now " * 6 + "  "
    assert (made.score([text]) == made.score([text + "clear proof " * 50])).all()


def test_words_that_move_a_line_add_up():
    made = linear_classifier.fit(two(), bits=BITS)
    some = two()["bad"][:5]
    moves = linear_classifier.telling(made, some, 0, 10**6)
    margins = matrix(some, BITS) @ made.weights[0]
    assert sum(move for _, move in moves) == pytest.approx(margins.mean(), abs=1e-4)
    assert {name for name, _ in moves[:6]} & {"buy", "now"}


def test_saved_and_loaded(tmp_path):
    made = linear_classifier.fit(texts(), bits=BITS)
    linear_classifier.save(made, tmp_path / "c")
    back = linear_classifier.load(tmp_path / "c")
    assert back.fingerprint == made.fingerprint
    some = texts(seed=2)["code"]
    assert (back.score(some) == made.score(some)).all()


def damaged(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="the folder of a classifier"):
        linear_classifier.load(folder)


def test_broken_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        linear_classifier.load(tmp_path / "missing")
    folder = tmp_path / "c"
    linear_classifier.save(linear_classifier.fit(two(), bits=BITS), folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    weights, described = whole["weights.npy"], whole["classifier.json"]
    for content in (b"", weights[:-4], weights + b"x", weights[:-1] + b"\x01"):
        damaged(folder, "weights.npy", content)
    (folder / "weights.npy").write_bytes(weights)
    changed = json.loads(described)
    for name in ("labels", "bits", "bias", "characters", "format", "fingerprint"):
        other = json.dumps({k: v for k, v in changed.items() if k != name})
        damaged(folder, "classifier.json", other.encode())
    other = json.dumps(changed | {"labels": ["good", "bad"]})
    for content in (other.encode(), b"[]", b"\xff", b"", b"[" * 100_000):
        damaged(folder, "classifier.json", content)
    # One who makes a fingerprint of their own gets no further.
    for wrong in (
        {"bits": 8}, {"bits": -1}, {"bias": [1.0, 2.0]}, {"labels": 3}, {"texts": 1},
        {"labels": [["a"], ["b"]]}, {"characters": "x"}, {"bias": [float("nan")]},
    ):  # fmt: skip
        forged = {k: v for k, v in (changed | wrong).items() if k != "fingerprint"}
        said = linear_classifier._fingerprint(forged, weights)
        forged["fingerprint"] = said
        damaged(folder, "classifier.json", json.dumps(forged).encode())


@pytest.mark.parametrize(
    ("some", "message"),
    [
        ({"good": ["a"] * 9}, "want two or more labels"),
        ({"good": ["a"] * 9, "bad": ["b"]}, "1 texts of the label 'bad'"),
        ({"good": ["a"] * 9, "b d": ["b"] * 9}, "label 'b d'"),
    ],
)
def test_wrong_fits(some, message):
    with pytest.raises(InputError, match=message):
        linear_classifier.fit(some)


def test_area_under_roc_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 9, 70) / 9, rng.random(70) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    assert metrics.area_under_roc(score, positive) == pytest.approx(np.mean(pairs))


def document(text):
    return Document("x", text, "s", "g", "prose", len(text))


def test_the_stage_keeps_and_drops(tmp_path):
    path = str(tmp_path / "c")
    made = linear_classifier.fit(two(200), bits=12)
    linear_classifier.save(made, path)
    texts_ = ("clear proof " * 5, "buy now " * 5)
    for label, kept in (("good", [1, 0]), ("bad", [0, 1])):
        asked = stage.make(model_path=path, label=label)
        scores = [asked.score(document(text)) for text in texts_]
        number = made.labels.index(label)
        assert scores[0]["probability"] == made.score(texts_)[0, number]
        assert [asked.decide(score) == "" for score in scores] == [k == 1 for k in kept]
        harm = stage.make(model_path=path, label=label, least=0.0, most=0.5)
        assert [harm.decide(score) == "" for score in scores] == [k == 0 for k in kept]
    at = stage.make(model_path=path, label="bad", least=0.2, most=0.7)
    reasons = [at.decide({"probability": p}) for p in (0.1, 0.2, 0.69, 0.7)]
    assert reasons == [
        "bad less likely than 0.2", "", "", "bad with a probability of 0.7 or more",
    ]  # fmt: skip
    for knobs, message in (
        ({}, "no classifier for the stage"),
        ({"model_path": path}, "want one of bad, good"),
        ({"model_path": path, "label": "godo"}, "did you mean 'good'"),
        ({"model_path": path, "label": "good", "most": 0.4}, "least below most"),
        ({"model_path": path, "label": "good", "least": 2.0}, "least 2.0; want from 0"),
        ({"model_path": str(tmp_path), "label": "good"}, "No such file"),
    ):
        with pytest.raises(InputError, match=message):
            registry.build("stages", {"name": "classifier", **knobs})


def written(folder, count=60):
    for label, some in texts(count=count).items():
        lines = (json.dumps({"text": text, "kind": label}) for text in some)
        (folder / f"{label}.jsonl").write_text("\n".join(lines) + "\n")
    labels = ("good", "bad", "code")
    return tuple((label, f"jsonl:{folder}/{label}.jsonl") for label in labels)


def filter_config(sources):
    c = config.base("train_filter")
    c.filter.update(sources=sources, bits=12, words=5)
    return c


def test_the_workload_learns_from_files(tmp_path, capsys):
    sources = written(tmp_path, 300)[:2]
    copies = (tmp_path / "bad.jsonl").read_text() * 2  # each text once
    (tmp_path / "bad.jsonl").write_text(copies.replace("}\n", ', "n": 1}\n'))
    for name in ("a", "b"):
        train_filter.run(filter_config(sources), str(tmp_path / name))
    result = json.loads((tmp_path / "a/train_filter.json").read_text())
    assert result == json.loads((tmp_path / "b/train_filter.json").read_text())
    assert result["learned"]["bad"] + result["tested"]["bad"] <= 300
    assert result["accuracy"] > 0.85
    good = result["label"]["good"]
    assert good["auc"] > 0.95
    assert good["calibration_error"] < 0.25
    recalls = [row["recall"] for row in good["thresholds"]]
    assert recalls == sorted(recalls, reverse=True)
    assert sum(bin["texts"] for bin in good["calibration"]) == sum(
        result["tested"].values()
    )
    assert {w for w, _ in result["words"]["good"]["for"]} & {"clear", "proof"}
    assert {w for w, _ in result["words"]["good"]["against"]} & {"buy", "now"}
    assert linear_classifier.load(tmp_path / "a/classifier").labels == ("bad", "good")
    assert "held out" in capsys.readouterr().out


def test_the_workload_tells_three_labels(tmp_path):
    train_filter.run(filter_config(written(tmp_path, 200)), str(tmp_path / "run"))
    result = json.loads((tmp_path / "run/train_filter.json").read_text())
    assert result["labels"] == ["bad", "code", "good"]
    assert result["accuracy"] > 0.8
    assert {w for w, _ in result["words"]["code"]["for"]} & {"def", "("}


def test_samples_do_not_depend_on_order_and_leave_out_what_has_two_labels():
    pairs = [(label, t) for label, some in texts().items() for t in some]
    pairs += [("good", "the same"), ("bad", "the same"), ("good", " ")]
    some = sample.of_labels(pairs, 20, 10_000, 0)
    assert some == sample.of_labels(pairs[::-1] * 2, 20, 10_000, 0)
    assert some != sample.of_labels(pairs, 20, 10_000, 1)
    assert all(len(kept) <= 20 for kept in some.values())
    all_of_them = sample.of_labels(pairs, 100, 10_000, 0)
    assert "the same" not in {text for _, text in all_of_them["good"]}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"sources": (("good", "jsonl:missing.jsonl"),)}, "missing.jsonl"),
        ({"sources": ("good",)}, "pairs of a label"),
        ({"documents": 2}, "filter.documents 2; want 8 or more"),
        ({"test_fraction": 1.0}, "filter.test_fraction 1.0; want above 0 and below"),
        ({"bits": 40}, "filter.bits 40; want from 8 to 24"),
        ({"l2": 0.0}, "filter.l2 0.0; want above 0"),
        ({"l2": float("nan")}, "filter.l2 nan; want above 0"),
        ({"characters": 0}, "filter.characters 0; want 1 or more"),
        ({"field": "colour"}, "want two or more labels"),
    ],
)
def test_wrong_configs_leave_nothing(tmp_path, knobs, message):
    c = filter_config(())
    c.data.source = registry.spec("sources", "stdlib", max_documents=8)
    c.filter.update(knobs)
    with pytest.raises(InputError, match=message):
        config.check(c)
        train_filter.run(c, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
