"""A trained classifier asked about texts: by hand, and as a user asks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm import config, objectives, registry
from llm.errors import InputError
from llm.inference import load_model
from llm.inference.class_probabilities import classifier
from llm.nn.contract import plain_inputs

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["first", "last"])
def run(request, tmp_path_factory):
    """Texts of two alphabets, and a model that tells them apart."""
    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(0)
    for name, letters in (("low", "abcdefgh"), ("high", "stuvwxyz")):
        (folder / "texts" / name).mkdir(parents=True)
        for i in range(40):
            words = ["".join(rng.choice(list(letters), 5)) for _ in range(40)]
            (folder / "texts" / name / f"{i}.txt").write_text(" ".join(words))
    c = config.load("configs/x", "classify", f"text={folder / 'texts'},debug")
    c.objective.ask = request.param
    c.train.dtype = "float32"
    c.train.update(steps=30, batch_size=8, checkpoint_every=0)
    c.optimizer.learning_rate = 3e-3
    for name in ("prepare_data", "train_tokenizer", "train"):
        registry.build("workloads", name)(c, str(folder / "run"))
    return folder / "run"


TEXTS = ("abc bad cafe " * 5, "xyz suvw tux " * 9, "bad")


def by_hand(loaded, text, ask):
    ids = [*loaded.tokenizer.start(), *loaded.tokenizer.encode(text)]
    ids = [*ids, loaded.tokenizer.eos_id][: loaded.config.train.seq_len]
    apply = jax.jit(lambda p, x: loaded.model.apply({"params": p}, x).hidden_BTD)
    states = apply(loaded.params, plain_inputs(jnp.array([ids], jnp.int32)))
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), loaded.params["classifier"])
    at = np.asarray(states[0, 0 if ask == "first" else -1], np.float64)
    logits = at @ own["kernel"] + own["bias"]
    return np.exp(logits) / np.exp(logits).sum()


def test_probabilities_by_hand_whoever_shares_the_batch(run):
    loaded = load_model.load(str(run), jax.devices("cpu")[0])
    ask = loaded.config.objective.ask
    wanted = [by_hand(loaded, text, ask) for text in TEXTS]
    for batch_size in (1, 2, 3):
        for want, answer in zip(
            wanted, classifier(loaded, batch_size=batch_size)(TEXTS), strict=True
        ):
            made = [answer.probabilities[n] for n in loaded.config.objective.classes]
            np.testing.assert_allclose(made, want, atol=1e-4)
            assert sum(made) == pytest.approx(1, abs=1e-5)


def test_as_a_user_asks(run, tmp_path):
    c = config.load("configs/x", "predict")
    c.predict.update(model_dir=str(run), texts=TEXTS[:2])
    registry.build("workloads", "predict")(c, str(tmp_path / "p"))
    found = json.loads((tmp_path / "p" / "predict.json").read_text())["predictions"]
    assert [f["best"] for f in found] == ["low", "high"]

    rows = [{"body": TEXTS[0], "label": "low"}, {"body": TEXTS[1], "label": "high"}]
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    c = config.load("configs/x", "evaluate")
    c.evaluate.update(model_dir=str(run), tasks=("classification", "robustness"))
    c.evaluate.task.classification.update(path=str(items), fields="text=body")
    c.evaluate.task.robustness.of = "classification"
    registry.build("workloads", "evaluate")(c, str(tmp_path / "e"))
    found = json.loads((tmp_path / "e" / "evaluate.json").read_text())
    assert found["classification"]["accuracy"] == 1.0
    assert found["robustness"]["drop"]["typos"]["accuracy"]["n"] == 2
    lines = (tmp_path / "e" / "evaluate_items.jsonl").read_text().splitlines()
    assert [json.loads(x)["task"] for x in lines] == [
        "classification", "classification", "robustness", "robustness",
    ]  # fmt: skip

    # A label that the model does not know stops it before anything is written.
    items.write_text(json.dumps({"body": "x", "label": "middle"}))
    with pytest.raises(InputError, match=r"items.jsonl:1 with label 'middle'"):
        registry.build("workloads", "evaluate")(c, str(tmp_path / "f"))
    assert not (tmp_path / "f").exists()


def test_what_is_no_classifier(run, tmp_path):
    c = config.load("configs/x", "predict")
    c.predict.update(model_dir=str(run))
    with pytest.raises(InputError, match=r"no texts; want predict\.path"):
        registry.build("workloads", "predict")(c, str(tmp_path / "p"))
    loaded = load_model.load(str(run), jax.devices("cpu")[0])
    other = loaded.config.copy_and_resolve_references()
    other.objective = registry.spec("objectives", "masked_lm")
    objective = objectives.build(other.objective, loaded.tokenizer.vocab_size)
    with pytest.raises(InputError, match="trained by masked_lm, to classify texts"):
        classifier(loaded._replace(config=other, objective=objective))
