"""Classification against a written-out loss, and on texts that can be told apart."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm import config, models, objectives, registry
from llm.data import loader
from llm.errors import InputError
from llm.nn.contract import with_head
from llm.objectives import classify
from llm.precision import FLOAT32
from llm.workloads import train

pytestmark = pytest.mark.long

CLASSES = ("x", "y", "z")
SPEC = {"name": "classify", "classes": CLASSES, "least": 1}
RECORD = {
    "tokens": np.array([7, 8, 9, 4, 5, 6, 0, 0, 0], np.int32),
    "segments": np.array([1, 1, 1, 2, 2, 3, 0, 0, 0], np.int32),
    "positions": np.array([0, 1, 2, 0, 1, 0, 0, 0, 0], np.int32),
    # Of the corpus' names; `other` is none of ours.
    "labels": np.array([1, 1, 1, 0, 0, 2, -1, -1, -1], np.int32),
    "label_names": ["other", "z", "x"],
}


def build(ask, least=1):
    return classify.make(classes=CLASSES, ask=ask, least=least, vocab_size=16)


@pytest.mark.parametrize(
    "ask, weights",
    [
        ("first", [1, 0, 0, 0, 0, 1, 0, 0]),
        ("last", [0, 0, 1, 0, 0, 1, 0, 0]),
        ("every", [1, 1, 1, 0, 0, 1, 0, 0]),
    ],
)
def test_where_it_is_asked(ask, weights):
    made = build(ask).features(RECORD, None)
    assert made["weights"].tolist() == weights
    assert made["targets"][:3].tolist() == [2, 2, 2] and made["targets"][5] == 0
    assert made["tokens"].tolist() == RECORD["tokens"][:-1].tolist()


def test_short_pieces_of_a_text_are_not_asked_about():
    assert build("last", least=3).features(RECORD, None)["weights"].sum() == 1
    assert build("last", least=4).features(RECORD, None)["weights"].sum() == 0
    assert build("every", least=4).features(RECORD, None)["weights"].sum() == 4


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_loss_is_written_out(name):
    spec = {"name": name, **registry.module("models", name).TINY}
    made = models.build(
        spec,
        {"name": "classify", "classes": CLASSES, "ask": "last", "least": 1},
        FLOAT32,
        16,
    )
    params = tiny.unboxed(made.init, 1)
    row = made.objective.features(RECORD, None)
    batch = {key: np.stack([value, value]) for key, value in row.items()}
    batch["index"] = np.arange(2, dtype=np.int32)
    apply = with_head(made.model)
    total, weight, metrics = made.objective.loss(apply, params, batch, policy=FLOAT32)
    inputs = tiny.packed([[[1]]], 8)._replace(
        tokens_BT=batch["tokens"], positions_BT=batch["positions"],
        segments_BT=batch["segments"], index_B=batch["index"],
    )  # fmt: skip
    hidden = np.asarray(apply(params, inputs)[0].hidden_BTD, np.float64)
    own = params["classifier"]
    nll, right = 0.0, 0
    for b in range(2):
        for at, target in ((2, 2), (5, 0)):
            logits = hidden[b, at] @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
            nll += np.log(np.exp(logits).sum()) - logits[target]
            right += int(logits.argmax() == target)
    np.testing.assert_allclose(total, nll, rtol=1e-5)
    assert weight == 4
    np.testing.assert_allclose(metrics["accuracy"][0], right)


def test_documents_of_a_row_do_not_touch_each_other():
    bert = {"name": "bert", **registry.module("models", "bert").TINY}
    made = models.build(bert, SPEC | {"ask": "first"}, FLOAT32, 16)
    params, apply = tiny.unboxed(made.init, 1), with_head(made.model)

    def loss(record):
        row = made.objective.features(record, None)
        batch = {key: value[None] for key, value in row.items()}
        batch["index"] = np.zeros(1, np.int32)
        return made.objective.loss(apply, params, batch, policy=FLOAT32)[0]

    parts = [
        {**RECORD, "segments": np.where(RECORD["segments"] == s, s, 0)} for s in (1, 3)
    ]
    np.testing.assert_allclose(loss(RECORD), sum(map(loss, parts)), rtol=1e-5)


def test_bad_input():
    with pytest.raises(InputError, match="two different ones"):
        classify.make(classes=("x",), vocab_size=16)
    spec = {"name": "classify", "classes": CLASSES, "ask": "middle"}
    with pytest.raises(InputError, match="ask 'middle'"):
        objectives.build(spec, 16)
    bare = {k: v for k, v in RECORD.items() if not k.startswith("label")}
    with pytest.raises(InputError, match="no labels"):
        build("last").features(bare, None)
    with pytest.raises(InputError, match="want labels of these texts: a, b, c"):
        build("last").features({**RECORD, "label_names": ["a", "b", "c"]}, None)


def test_an_encoder_without_a_head_is_for_classes_alone():
    c = config.debug(config.load("configs/x", "classify"))
    train.check(c)
    c.objective = registry.spec("objectives", "masked_lm")
    with pytest.raises(InputError, match=r"without a head; want model\.mlm_head=True"):
        train.check(c)


def test_a_folder_a_class_end_to_end(tmp_path):
    """Texts of two alphabets are told apart, from files to evaluate.json."""
    rng = np.random.default_rng(0)
    for name, letters in (("low", "abcdefgh"), ("high", "stuvwxyz")):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for i in range(40):
            words = ["".join(rng.choice(list(letters), 5)) for _ in range(40)]
            (tmp_path / "texts" / name / f"{i}.txt").write_text(" ".join(words))
    c = config.load("configs/x", "classify", f"text={tmp_path / 'texts'},debug")
    c.train.update(steps=40, batch_size=8, checkpoint_every=0)
    c.train.validation_sequences = 0
    c.evaluate.split = "validation"
    c.optimizer.learning_rate = 3e-3
    workdir = tmp_path / "run"
    registry.build("workloads", "pipeline")(c, str(workdir))
    found = json.loads((workdir / "evaluate.json").read_text())
    assert found["objective"]["accuracy"] > 0.95
    trained = json.loads((workdir / "train.json").read_text())
    assert found["objective"]["loss"] == pytest.approx(
        trained["validation_loss"], rel=1e-4
    )
    assert not (workdir / "generate.json").exists()
    assert (workdir / "report.html").exists()


def test_an_encoder_has_no_likelihood_of_texts():
    c = config.load("configs/x", "classify", "debug")
    c.evaluate.tasks = ("perplexity",)
    with pytest.raises(InputError, match="perplexity of a bert, which is masked"):
        registry.module("workloads", "evaluate").check(c)


def test_labels_reach_the_rows(tmp_path):
    from llm.data import tokens
    from llm.document import Document
    from llm.tokenizers import sentencepiece_tokenizer

    texts = {"a": "one two three", "b": "four five six seven"}
    made = [
        Document(n, t, "made", n, "prose", len(t), {"label": n.upper()})
        for n, t in texts.items()
    ]
    trained = sentencepiece_tokenizer.train(
        list(texts.values()) * 20, tmp_path / "tokenizer", vocab_size=300
    )
    tokens.write(tmp_path / "tokens", {"train": made}, trained, corpus_hash="")
    split = tokens.open_split(tmp_path / "tokens", "train")
    features = classify.make(classes=("A", "B"), ask="every", vocab_size=300).features
    rows = loader.eval_batches(split, seq_len=64, batch_size=1, features=features)
    (batch,) = list(rows)
    both = jnp.stack([batch["segments"][0], batch["targets"][0]])
    seen = {tuple(np.asarray(pair)) for pair in both.T if pair[0]}
    assert seen == {(1, 0), (2, 1)}
    assert jax.tree.all(jax.tree.map(lambda x: x.shape == (1, 64), batch))
