"""Family tests: what every objective owes its users, and which model it can train."""

import copy
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rows import (
    TOKENIZER,
    V,
    batch_of,
    bits,
    build,
    record,
    record_for,
    small_model,
)

from llm import config, objectives, registry, run_dir, tree
from llm.checkpoint import Checkpoints, LoopState, State
from llm.data import tokens
from llm.document import Document
from llm.errors import InputError
from llm.inference import load_model
from llm.losses import Head
from llm.nn.contract import Output, with_head
from llm.nn.embedding import padded_vocab
from llm.precision import FLOAT32
from llm.tokenizers import sentencepiece_tokenizer as tokenizers
from llm.training import train_checks
from llm.workloads import plan, train

NAMES = registry.choices("objectives")
# The others have a head of their own, and tests of it.
OF_TOKENS = [name for name in NAMES if build(name).predicts_tokens]
# Those of whole records have theirs in test_records.py, too.
OF_TEXTS = [name for name in NAMES if build(name).room is None]
ALWAYS_THE_SAME = (
    "causal_lm", "classify", "sft", "seq2seq", "dpo", "grpo", "kto", "orpo",
    "reward",
)  # fmt: skip
CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


# --- the family


@pytest.mark.parametrize("name", NAMES)
def test_features_are_a_function_of_the_record_and_the_generator(name):
    of = build(name)
    shapes = objectives.row_shapes(of, 64)
    differ = False
    for seed in range(20):
        given = record_for(of, 64, seed)
        held = copy.deepcopy(given)
        made = of.features(given, bits(1, seed))
        again = of.features(given, bits(1, seed))
        other = of.features(given, bits(2, seed))
        assert {n: (x.shape, x.dtype) for n, x in made.items()} == {
            n: (x.shape, x.dtype) for n, x in shapes.items()
        }
        for n, x in made.items():
            np.testing.assert_array_equal(x, again[n])
            differ |= bool((x != other[n]).any())
            if n.endswith(("tokens", "targets")):
                assert x.min() >= 0 and x.max() < V + of.extra_tokens
        for n, x in given.items():
            np.testing.assert_array_equal(x, held[n])  # and the record is left alone
    assert differ or name in ALWAYS_THE_SAME


@pytest.mark.parametrize("name", NAMES)
def test_no_tokenizer_same_shapes(name):
    spec = {"name": name, **registry.module("objectives", name).TINY}
    bare = objectives.build(spec, V)
    assert objectives.row_shapes(bare, 64) == objectives.row_shapes(build(name), 64)
    assert bare.extra_tokens == build(name).extra_tokens
    made = build(name).features(objectives.blank_record(64), bits(0, 0))
    assert not made["weights"].any()


@pytest.mark.parametrize(
    "name", [n for n in OF_TOKENS if "z_loss" in registry.knobs("objectives", n)]
)
def test_loss_by_hand(name):
    """Against log-softmax in numpy, and the weights are those of the features."""
    of = build(name, z_loss=1e-2)
    batch = batch_of(of, 3)
    B, T = batch["tokens"].shape
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, 8)).astype(np.float32)
    kernel = rng.normal(size=(8, V + of.extra_tokens)).astype(np.float32)

    def apply(params, inputs, train, rngs):
        np.testing.assert_array_equal(inputs.tokens_BT, batch["tokens"])
        assert not train and rngs is None
        sums = {"own_loss": (jnp.float32(6), jnp.float32(3)), "seen": (1.0, 2.0)}
        return Output(hidden, None, sums), Head(hidden, kernel)

    total, weight, metrics = of.loss(apply, None, batch, policy=FLOAT32)
    logits = (hidden @ kernel).astype(np.float64)
    nll = z = correct = 0.0
    for b, t in zip(*np.nonzero(batch["weights"]), strict=True):
        log_z = np.log(np.exp(logits[b, t]).sum())
        nll += log_z - logits[b, t, batch["targets"][b, t]]
        z += 1e-2 * log_z**2
        correct += logits[b, t].argmax() == batch["targets"][b, t]
    assert weight == batch["weights"].sum() > 0
    assert metrics["loss"][0] == pytest.approx(nll, rel=1e-5)
    assert metrics["accuracy"][0] == correct
    # The model's own loss is a mean over its own weight.
    assert total == pytest.approx(nll + z + 2 * weight, rel=1e-5)
    assert metrics["seen"] == (1.0, 2.0)


@pytest.mark.parametrize("name", OF_TEXTS)
def test_documents_of_a_row_do_not_meet(name):
    """Another text in place of one document changes no loss of the other."""
    of = build(name)
    model, params = small_model(of)
    row = of.features(record(64, [30, 60], seed=1), bits(0, 1))
    batch = {n: x[None] for n, x in row.items()} | {"index": np.zeros(1, np.int32)}
    second = {n: x == 2 for n, x in batch.items() if n.endswith("segments")}
    other = dict(batch)
    for n, is_second in second.items():
        tokens = n.replace("segments", "tokens")
        other[tokens] = np.where(is_second, 4 + (batch[tokens] + 3) % 9, batch[tokens])
        assert (other[tokens] != batch[tokens]).any()

    @jax.jit
    def total(batch, segment):
        mine = batch["weights"] * (batch["segments"] == segment)
        return of.loss(
            with_head(model), params, {**batch, "weights": mine}, policy=FLOAT32
        )[0]

    def loss(batch, segment):
        return float(total(batch, segment))

    assert loss(batch, 1) == pytest.approx(loss(other, 1), rel=1e-6)
    assert loss(batch, 2) != pytest.approx(loss(other, 2), rel=1e-4)


# --- the pairing of objective, vocabulary and model


def paired(model, name):
    c = config.base()
    c.model = registry.spec("models", model, **registry.module("models", model).TINY)
    c.objective = registry.spec("objectives", name)
    c.train.update(steps=3, batch_size=8, seq_len=64)
    return c


@pytest.mark.parametrize(
    "model, name, fitting",
    [
        ("gpt", "masked_lm", "causal_lm"),
        ("bert", "span_corruption", "masked_lm"),
        ("t5", "causal_lm", "span_corruption"),
        ("lstm", "span_corruption", "prefix_lm"),
    ],
)
def test_wrong_pairs_are_refused(model, name, fitting):
    with pytest.raises(InputError, match=f"one of .*{fitting}"):
        train.check(paired(model, name))


@pytest.mark.parametrize(
    "model, name",
    [("bert", "masked_lm"), ("t5", "span_corruption"), ("gru", "prefix_lm")],
)
def test_right_pairs_pass(model, name):
    train.check(paired(model, name))


def test_rows_longer_than_the_model_knows():
    c = paired("bert", "masked_lm")
    c.train.seq_len = 129
    with pytest.raises(InputError, match=r"129 tokens.*model.length 128"):
        train.check(c)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a tokenizer of 384 pieces and its tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    whole = pathlib.Path(train.__file__).read_text()
    texts = [whole[at : at + 200] for at in range(0, 12_000, 200)]
    documents = [
        Document(str(i), text, "text", "g", "code", len(text))
        for i, text in enumerate(texts)
    ]
    splits = {"train": documents[:50], "validation": documents[50:]}
    tokenizer = tokenizers.train(texts, folder / "tokenizer", vocab_size=384)
    tokens.write(folder / "tokens", splits, tokenizer, corpus_hash="x")
    return folder


def small_run(model, name, place, workdir):
    shutil.copytree(place, workdir)
    c = paired(model, name)
    c.model.update(layers=1, width=16)
    c.tokenizer.vocab_size = 384
    c.train.update(steps=2, validation_sequences=8, dtype="float32")
    return c


VOCABULARIES = pytest.mark.parametrize(
    "model, name, rows",
    [
        ("bert", "masked_lm", 512),
        ("t5", "span_corruption", 512),
        ("gru", "prefix_lm", 384),
    ],
)


@VOCABULARIES
def test_extra_tokens_are_planned_for_and_loaded(model, name, rows, place, tmp_path):
    c = small_run(model, name, place, tmp_path / "run")
    run_dir.claim(str(tmp_path / "run"), c.to_dict(), device="cpu", devices=1)
    made = registry.build("models", c.model, vocab_size=rows)
    params = jax.tree.map(jnp.asarray, tiny.params(made))
    checkpoints = Checkpoints(str(tmp_path / "run"), ())
    checkpoints.save(
        State(jnp.int32(1), params, None, {"x": jnp.ones(1)}), LoopState(), 1.0
    )
    checkpoints.close()
    loaded = load_model.load(str(tmp_path / "run"), jax.devices()[0])
    table = loaded.params["embed"]["embedding"]
    np.testing.assert_array_equal(table, params["embed"]["embedding"])
    assert len(table) == rows
    assert plan.make_plan(c)["parameters"] == tree.count(params)


@pytest.mark.slow
@VOCABULARIES
def test_a_run_from_tokens_to_a_loaded_model(model, name, rows, place, tmp_path):
    c = small_run(model, name, place, tmp_path / "run")
    train.run(c, str(tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "train.json").read_text())
    # The logarithm of the vocabulary, which is what knows nothing yet.
    assert result["validation_loss"] == pytest.approx(math.log(rows), abs=0.5)
    loaded = load_model.load(str(tmp_path / "run"), jax.devices()[0])
    assert len(loaded.params["embed"]["embedding"]) == rows


@pytest.mark.parametrize(
    "name, parameters",
    [
        # As published, but for vocabularies in multiples of 128; BERT has no pooler.
        ("gpt2_124m", 124_439_808 + (50_304 - 50_257) * 768),
        ("bert_base", 109_514_298 + (30_592 - 30_522) * 769),
        ("t5_base", 222_903_552),
        ("lstm", 2 * 10_112 * 650 + 2 * (2 * 650 * 2600 + 2 * 2600)),
        ("gru", 2 * 10_112 * 650 + 2 * (2 * 650 * 1950 + 2 * 1950)),
    ],
)
def test_sizes_of_the_configs(name, parameters):
    c = config.load(str(CONFIGS / "x.py"), name)
    of = objectives.build(c.objective, c.tokenizer.vocab_size)
    vocab_size = padded_vocab(c.tokenizer.vocab_size + of.extra_tokens)
    model = registry.build("models", c.model, vocab_size=vocab_size)
    assert tree.count(jax.eval_shape(lambda: tiny.init(model, jax.random.key(0)))) == (
        parameters
    )
    doc = (CONFIGS / f"{name}.py").read_text()
    assert f"{parameters:,}" in doc
    train_checks.check_pair(c, of)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"name": "masked_lm", "rate": 0.0}, "objective.rate 0.0"),
        ({"name": "masked_lm", "mask": 0.8, "random": 0.3}, "a sum of 1"),
        ({"name": "span_corruption", "density": 1.0}, "density 1.0"),
        ({"name": "span_corruption", "mean_span": 0.5}, "mean_span 0.5"),
    ],
)
def test_bad_knobs(knobs, message):
    with pytest.raises(InputError, match=message):
        objectives.build(knobs, V, TOKENIZER)


def test_uniform_numbers_are_numpys_raw_bits():
    got = objectives.uniform(bits(5, 6), 4)
    raw = bits(5, 6).bit_generator.random_raw(4)
    assert list(got) == [(int(r) >> 32) / 2**32 for r in raw]
