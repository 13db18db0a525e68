"""Objectives: each against its definition, written out as loops over the row."""

import json
import math
import pathlib
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from llm import config, objective, registry, run_directory, tree
from llm.checkpoint import Checkpoints, State
from llm.data import tokenizer as tokenizers
from llm.data import tokens
from llm.document import Document
from llm.errors import InputError
from llm.inference import load
from llm.losses import Head
from llm.nn.contract import Output, with_head
from llm.nn.embed import padded_vocab
from llm.objectives import masked_lm, span_corruption
from llm.precision import FLOAT32
from llm.workloads import plan, train

PIECES = (
    *(b"",) * 4, b"a", b"b", b"ing", b" a", b" the", b".", b"(", b"\n    ", b"_x", b" ",
    b"\xc3", b"\xa9", b"x1", b",y", b"self.", b" = ", b"foo", b"Bar", b"9", b"\t",
)  # fmt: skip
V = len(PIECES)
PAD, BOS, EOS = 0, 2, 3
TOKENIZER = types.SimpleNamespace(
    vocab_size=V, piece_bytes=PIECES, pad_id=PAD, unk_id=1, bos_id=BOS, eos_id=EOS,
    never=(PAD, 1, BOS),
)  # fmt: skip
# One model of each kind that is quick to compile.
MODEL = {"causal": "gpt", "masked": "bert", "encdec": "t5"}
NAMES = registry.choices("objectives")
CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def build(name, **knobs):
    tiny_knobs = registry.module("objectives", name).TINY
    return objective.build({"name": name, **tiny_knobs, **knobs}, V, TOKENIZER)


def bits(key, row):
    return np.random.Generator(np.random.Philox(key=key, counter=row << 128))


def record(T, lengths, seed=0):
    """A packed row of T + 1 tokens; the first document began in an earlier row."""
    rng = np.random.default_rng(seed)
    tokens, segments, positions = np.zeros((3, T + 1), np.int32)
    at = 0
    for segment, length in enumerate(lengths, 1):
        text = rng.integers(4, V, length)
        if segment > 1:
            text[0] = BOS
        text[-1] = EOS
        n = min(length, T + 1 - at)
        tokens[at : at + n] = text[:n]
        segments[at : at + n], positions[at : at + n] = segment, np.arange(n)
        at += n
    return {"tokens": tokens, "segments": segments, "positions": positions}


def random_record(T, seed):
    """Documents of any lengths, and sometimes padding."""
    rng = np.random.default_rng(seed)
    mean = rng.choice([2, 5, 20, 200])
    lengths = 1 + rng.geometric(1 / mean, size=rng.integers(1, T))
    return record(T, lengths, seed)


def batch_of(of, rows, T=64):
    made = [of.features(random_record(T, seed), bits(7, seed)) for seed in range(rows)]
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    return batch | {"index": np.arange(rows, dtype=np.int32)}


# --- the family


@pytest.mark.parametrize("name", NAMES)
def test_features_are_a_function_of_the_record_and_the_generator(name):
    of = build(name)
    shapes = objective.row_shapes(of, 64)
    differ = False
    for seed in range(20):
        given = random_record(64, seed)
        held = {n: x.copy() for n, x in given.items()}
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
    assert differ or name == "causal_lm"


@pytest.mark.parametrize("name", NAMES)
def test_no_tokenizer_same_shapes(name):
    spec = {"name": name, **registry.module("objectives", name).TINY}
    bare = objective.build(spec, V)
    assert objective.row_shapes(bare, 64) == objective.row_shapes(build(name), 64)
    assert bare.extra_tokens == build(name).extra_tokens
    made = build(name).features(objective.blank_record(64), bits(0, 0))
    assert not made["weights"].any()


@pytest.mark.parametrize("name", NAMES)
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


def small_model(of):
    name = MODEL[of.kinds[0]]
    knobs = registry.spec("models", name, **registry.module("models", name).TINY)
    model = registry.build("models", knobs, vocab_size=V + of.extra_tokens)
    return model, tiny.params(model, seed=3)


@pytest.mark.parametrize("name", NAMES)
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
    run_directory.claim(str(tmp_path / "run"), c.to_dict(), device="cpu", devices=1)
    made = registry.build("models", c.model, vocab_size=rows)
    params = jax.tree.map(jnp.asarray, tiny.params(made))
    checkpoints = Checkpoints(str(tmp_path / "run"))
    checkpoints.save(State(jnp.int32(1), params, None, {"x": jnp.ones(1)}), {}, 1.0)
    checkpoints.close()
    loaded = load.load(str(tmp_path / "run"), jax.devices()[0])
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
    loaded = load.load(str(tmp_path / "run"), jax.devices()[0])
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
    of = objective.build(c.objective, c.tokenizer.vocab_size)
    vocab_size = padded_vocab(c.tokenizer.vocab_size + of.extra_tokens)
    model = registry.build("models", c.model, vocab_size=vocab_size)
    assert tree.count(jax.eval_shape(lambda: tiny.init(model, jax.random.key(0)))) == (
        parameters
    )
    doc = (CONFIGS / f"{name}.py").read_text()
    assert f"{parameters:,}" in doc
    train.check_pair(c, of)


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
        objective.build(knobs, V, TOKENIZER)


def test_uniform_numbers_are_numpys_raw_bits():
    got = objective.uniform(bits(5, 6), 4)
    raw = bits(5, 6).bit_generator.random_raw(4)
    assert list(got) == [(int(r) >> 32) / 2**32 for r in raw]


# --- causal and prefix language modelling


def test_prefix_lm_against_a_loop():
    of = build("prefix_lm")
    shares = []
    for seed in range(300):
        given = random_record(48, seed)
        made = of.features(given, bits(3, seed))
        tokens, segments = given["tokens"], given["segments"]
        for segment in range(1, segments.max() + 1):
            (where,) = np.nonzero(segments == segment)
            inside = [t for t in where if t < 48]
            prefix = sum(made["prefix"][t] for t in inside)
            # It begins the document, and something is left to predict.
            assert all(made["prefix"][t] for t in inside[:prefix])
            assert 1 <= prefix <= max(len(where) - 1, 1) or not inside
            for n, t in enumerate(inside):
                predicted = n + 1 >= prefix and n + 1 < len(where)
                assert made["weights"][t] == predicted
                if predicted:
                    assert made["targets"][t] == tokens[t + 1]
            if len(where) > 10:
                shares.append((prefix - 1) / (len(where) - 1))
        assert not made["prefix"][made["segments"] == 0].any()
        assert not made["weights"][made["segments"] == 0].any()
    assert np.mean(shares) == pytest.approx(0.5 - 0.5 / 25, abs=0.06)
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.04)


def test_no_target_is_seen_before_it_is_predicted():
    """Other tokens from k on change no loss of a target up to k; the prefix does."""
    of = build("prefix_lm")
    model, params = small_model(of)
    row = of.features(record(32, [40], seed=2), bits(0, 5))
    prefix = int(row["prefix"].sum())
    assert 2 < prefix < 28
    batch = {n: x[None] for n, x in row.items()} | {"index": np.zeros(1, np.int32)}

    @jax.jit
    def total(tokens, upto):
        mine = batch["weights"] * (jnp.arange(32)[None] < upto)
        new = {**batch, "tokens": tokens, "weights": mine}
        return of.loss(with_head(model), params, new, policy=FLOAT32)[0]

    def loss(tokens, upto):
        return float(total(tokens, upto))

    tokens = batch["tokens"]
    for k in (prefix, prefix + 2, 31):
        later = tokens.copy()
        later[:, k:] = 4 + (tokens[:, k:] + 3) % 9
        assert loss(tokens, k) == pytest.approx(loss(later, k), rel=1e-6)
    first = tokens.copy()
    first[:, prefix - 1] = 4 + (tokens[:, prefix - 1] + 3) % 9
    assert loss(first, 32) != pytest.approx(loss(tokens, 32), rel=1e-4)


# --- masked language modelling


@pytest.fixture(scope="module")
def masked_rows():
    of = build("masked_lm")
    given = [random_record(64, seed) for seed in range(1500)]
    made = [of.features(row, bits(4, seed)) for seed, row in enumerate(given)]
    return given, made


def test_masked_share_is_exact(masked_rows):
    for given, made in zip(*masked_rows, strict=True):
        tokens, segments = given["tokens"][:-1], given["segments"][:-1]
        free = (segments > 0) & (tokens > EOS)
        chosen = made["weights"] == 1
        assert not chosen[~free].any()
        count = 0.15 * free.sum()
        assert abs(chosen.sum() - count) <= 0.5 or chosen.sum() == 1
        assert chosen.any() == free.any()
        np.testing.assert_array_equal(made["targets"], tokens)
        np.testing.assert_array_equal(made["tokens"][~chosen], tokens[~chosen])
        np.testing.assert_array_equal(made["segments"], segments)


def test_eighty_ten_ten(masked_rows):
    fates = {"mask": 0, "same": 0, "other": 0}
    drawn = np.zeros(V + 1, int)
    for made in masked_rows[1]:
        for shown, target in zip(
            made["tokens"][made["weights"] == 1],
            made["targets"][made["weights"] == 1],
            strict=True,
        ):
            fate = "mask" if shown == V else "same" if shown == target else "other"
            fates[fate] += 1
            drawn[shown] += fate == "other"
    total = sum(fates.values())
    assert total > 8000
    # A random token may be the same one.
    same = 0.1 + 0.1 / (V - 4)
    wanted = {"mask": 0.8, "same": same, "other": 0.2 - same}
    for fate, share in wanted.items():
        assert fates[fate] / total == pytest.approx(share, abs=0.015), fate
    assert not drawn[:4].any() and drawn[4:V].all()


def test_every_token_is_as_likely_to_be_chosen():
    of = build("masked_lm")
    given = record(20, [20], seed=9)
    given["tokens"][:] = 4 + np.arange(21) % (V - 4)
    counts = sum(of.features(given, bits(8, i))["weights"] for i in range(4000))
    assert counts.sum() == 3 * 4000
    # Five standard deviations of a count.
    assert np.abs(counts - 600).max() < 5 * np.sqrt(600 * 0.85)


def words(tokens, segments):
    """Sets of positions, found in the text of each document by a regular expression."""
    found = []
    for segment in range(1, segments.max(initial=0) + 1):
        run = []
        for t in [*np.flatnonzero(segments == segment), None]:
            if t is not None and tokens[t] > EOS:
                run.append(t)
                continue
            content = b"".join(PIECES[tokens[t]] for t in run)
            inside = [m.span() for m in re.finditer(rb"[\w\x80-\xff]+", content)]
            at, groups = 0, []
            for t in run:
                # A token goes on where the word around its first byte began before it.
                if groups and any(a < at < z for a, z in inside):
                    groups[-1].append(t)
                else:
                    groups.append([t])
                at += len(PIECES[tokens[t]])
            found += groups
            run = []
    return found


def test_whole_words_are_whole():
    of = build("masked_lm", whole_words=True)
    chosen_tokens = free_tokens = long = 0
    for seed in range(400):
        given = random_record(64, seed)
        made = of.features(given, bits(5, seed))
        found = words(given["tokens"][:-1], given["segments"][:-1])
        for word in found:
            assert len({int(made["weights"][t]) for t in word}) == 1, word
            long += len(word) > 1 and made["weights"][word[0]]
        assert made["weights"].any() == bool(found)
        assert not made["weights"][made["targets"] <= EOS].any()
        if sum(map(len, found)) >= 30:
            chosen_tokens += made["weights"].sum()
            free_tokens += sum(map(len, found))
    assert long > 200
    assert chosen_tokens / free_tokens == pytest.approx(0.15, abs=0.01)


def test_words_need_bytes():
    unknown = types.SimpleNamespace(**{**vars(TOKENIZER), "piece_bytes": None})
    with pytest.raises(InputError, match="whole_words"):
        masked_lm.make(whole_words=True, vocab_size=V, tokenizer=unknown)
    # Single tokens can be masked without.
    made = masked_lm.make(vocab_size=V, tokenizer=unknown).features(
        record(64, [50]), bits(0, 0)
    )
    assert made["weights"].any() and not made["weights"][made["targets"] <= EOS].any()


# --- span corruption


def test_published_lengths():
    """T5's own configs: 568 tokens for sources of 512, targets of 114."""
    assert span_corruption.lengths(568, 0.15, 3.0) == (512, 114)
    assert span_corruption.lengths(569, 0.15, 3.0)[0] == 513


def test_the_papers_example():
    text = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last"]
    ids = np.arange(10, dtype=np.int32)
    source, target = span_corruption.corrupt(ids, np.array([[2, 4], [2, 1]]), 101)
    names = dict(enumerate([*text, "week"])) | {101: "<X>", 100: "<Y>"}
    shown = [" ".join(names[i] for i in part) for part in (source, target)]
    assert shown == [
        "Thank you <X> me to your party <Y> week",
        "<X> for inviting <Y> last",
    ]
    restored = span_corruption.restore(source, np.append(target, EOS), vocab_size=90)
    np.testing.assert_array_equal(restored, ids)


@pytest.mark.parametrize("T", [8, 64, 200])
def test_restore_is_the_exact_inverse(T):
    """Every document of every packed row comes back, and all of it fits."""
    of = build("span_corruption")
    kept = documents = 0
    for seed in range(200):
        given = random_record(T, seed)
        made = of.features(given, bits(6, seed))
        tokens, segments = given["tokens"][:-1], given["segments"][:-1]
        for segment in range(1, segments.max() + 1):
            text = tokens[segments == segment]
            source = made["source_tokens"][made["source_segments"] == segment]
            here = made["segments"] == segment
            target, inputs = made["targets"][here], made["tokens"][here]
            documents += len(text) > 0
            assert (len(source) > 0) == (len(target) > 0)
            if not len(source):
                continue
            kept += 1
            assert target[-1] == EOS and inputs[0] == PAD
            np.testing.assert_array_equal(inputs[1:], target[:-1])
            restored = span_corruption.restore(source, target, vocab_size=V)
            np.testing.assert_array_equal(restored, text)
            # Sentinels count down from the last id, the same in source and target.
            marks = [i for i in source if i >= V]
            assert marks == [V + 99 - n for n in range(len(marks))]
            assert marks == [i for i in target if i >= V]
            assert len(marks) and target[0] == V + 99
        for prefix in ("", "source_"):
            s, p = made[f"{prefix}segments"], made[f"{prefix}positions"]
            for t in range(len(s)):
                begins = t == 0 or s[t] != s[t - 1]
                assert p[t] == (0 if begins or not s[t] else p[t - 1] + 1)
        np.testing.assert_array_equal(made["weights"], made["segments"] > 0)
    assert kept > 100 and documents >= kept


def test_share_and_spans():
    of = build("span_corruption")
    noise, spans, free = 0, 0, 0
    for seed in range(300):
        one = np.random.default_rng(seed)
        lengths = one.integers(30, 150, 10)
        given = record(256, lengths, seed)
        made = of.features(given, bits(9, seed))
        tokens = given["tokens"][:-1]
        free += (tokens > EOS).sum()
        noise += ((made["targets"] > EOS) & (made["targets"] < V)).sum()
        spans += (made["targets"] >= V).sum()
    # A few tokens less than 15 %: documents of one or two tokens at the ends of a row.
    assert noise / free == pytest.approx(0.15, abs=0.002)
    assert 3 < noise / spans < 3.7  # fewer and longer where documents need ends


def test_one_document_has_the_authors_numbers():
    of = build("span_corruption")
    given = record(568, [900], seed=3)
    for i in range(20):
        made = of.features(given, bits(i, 0))
        sentinels = made["source_tokens"] >= V
        assert sentinels.sum() == 28 and made["weights"].sum() == 114
        assert (made["source_segments"] > 0).sum() == 511
        # Text comes first, a span last, and no two spans touch.
        assert not sentinels[0] and sentinels[510]
        assert not (sentinels[1:] & sentinels[:-1]).any()


def test_all_ways_to_cut_are_as_likely():
    counts = {}
    for i in range(3000):
        cuts = span_corruption._lengths_of_spans(6, 3, 2, bits(i, 1))
        assert cuts.min() >= 1 and list(cuts.sum(axis=1)) == [3, 3]
        counts[tuple(cuts.ravel())] = counts.get(tuple(cuts.ravel()), 0) + 1
    assert len(counts) == 4 and min(counts.values()) > 750 - 5 * np.sqrt(750 * 0.75)


def test_a_long_row_needs_more_sentinels():
    of = build("span_corruption")
    with pytest.raises(InputError, match=r"sentinels 100 .*seq_len 4096.*want 205"):
        objective.row_shapes(of, 4096)
    more = build("span_corruption", sentinels=205)
    assert more.extra_tokens == 205
    made = more.features(record(4096, [5000]), bits(0, 0))
    assert (made["source_tokens"] >= V).sum() == 205
