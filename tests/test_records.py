"""Records as tokens, and what objectives of records make of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import bits, build, small_model, whole_records
from test_sentencepiece_tokenizer import CODE

from llm.data import chat, loader, record_tokens, tokens
from llm.document import Document
from llm.errors import InputError
from llm.losses import Head
from llm.nn.contract import Output, with_head
from llm.precision import FLOAT32
from llm.tokenizers import chat_template, sentencepiece_tokenizer

TALK = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "good day"},
    {"role": "user", "content": "again"},
]
G, A, RG, RA = range(4)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "t"
    sentencepiece_tokenizer.train([CODE], folder, vocab_size=600)
    (folder / sentencepiece_tokenizer.TEMPLATE).write_text(
        chat_template.TEMPLATES["plain"]
    )
    return sentencepiece_tokenizer.load(folder)


# --- records


def test_texts_are_taken_as_they_are(ours):
    ((ids, parts),) = record_tokens.encode({"prompt": "1 +", "completion": " 2"}, ours)
    given, answer = ours.encode("1 +"), ours.encode(" 2")
    assert ids == [ours.bos_id, *given, *answer, ours.eos_id]
    assert parts.tolist() == [G] * (1 + len(given)) + [A] * (1 + len(answer))
    ((ids, parts),) = record_tokens.encode({"source": "1 +", "target": " 2"}, ours)
    assert ids == [*given, ours.eos_id, *answer, ours.eos_id]
    assert parts.tolist() == [G] * (1 + len(given)) + [A] * (1 + len(answer))


@pytest.mark.parametrize("answer", ["yes", [{"role": "assistant", "content": "yes"}]])
def test_of_a_preference_only_the_last_answer_is_one(ours, answer):
    record = {"prompt": TALK, "chosen": answer, "rejected": "no"}
    ((ids, parts),) = record_tokens.encode(record, ours)
    prompt = chat.prompt_ids(ours, TALK)
    cut = int(np.argmax(parts >= RG))
    for side, text, start, stop in (
        (G, "yes", 0, cut),
        (RG, "no", cut, len(ids)),
    ):
        mine = parts[start:stop]
        assert ids[start:stop][: len(prompt)] == prompt
        assert (mine[: len(prompt)] == side).all()
        said = [i for i, p in zip(ids[start:stop], mine, strict=True) if p == side + 1]
        assert said == [*ours.encode(text), ours.eos_id]


@pytest.mark.parametrize(
    "record", [{}, {"a": 1}, {"prompt": "a"}, {"messages": [], "x": 1}]
)
def test_records_of_no_form(ours, record):
    with pytest.raises(InputError, match=r"messages \| prompt"):
        record_tokens.encode(record, ours)


def stored(folder, ours, made):
    documents = [
        Document(str(n), "a", "s", str(n), "record", 1, {"record": record})
        for n, record in enumerate(made)
    ]
    tokens.write(folder, {"train": documents}, ours, corpus_hash="x")
    return tokens.open_split(folder, "train")


def test_rows_hold_whole_records(ours, tmp_path):
    rng = np.random.default_rng(0)
    made = [
        {"prompt": CODE[:n], "completion": CODE[n : n + m]}
        for n, m in rng.integers(1, 40, (60, 2))
    ]
    made.append({"prompt": CODE * 9, "completion": "too long for a row"})
    split = stored(tmp_path / "t", ours, made)
    encoded = [record_tokens.encode(record, ours)[0] for record in made]
    of = build("sft")
    data = loader.batches(
        split, seq_len=64, batch_size=1, seed=0, features=lambda r, rng: r,
        room=of.room,
    )  # fmt: skip
    assert data.left_out == 1
    seen = []
    for step in range(data.rows_per_epoch):
        row = {name: x[0] for name, x in data[step].items() if name != "label_names"}
        for segment in range(1, row["segments"].max() + 1):
            mine = row["segments"] == segment
            found = (row["tokens"][mine].tolist(), row["labels"][mine].tolist())
            assert row["positions"][mine].tolist() == list(range(mine.sum()))
            seen.append(found)
    want = [(list(ids), parts.tolist()) for ids, parts in encoded[:-1]]
    assert sorted(seen) == sorted(want)
    for part in (G, A):
        sizes = record_tokens.sizes(split, (part,))
        assert sizes.tolist() == [int((e.parts == part).sum()) for e in encoded]


def test_texts_are_no_records(ours, tmp_path):
    document = Document("a", "text", "s", "g", "prose", 4)
    tokens.write(tmp_path / "t", {"train": [document]}, ours, corpus_hash="x")
    split = tokens.open_split(tmp_path / "t", "train")
    with pytest.raises(InputError, match="for an objective of records"):
        loader.layout_of(split, 64, build("sft").room)
    short = stored(tmp_path / "r", ours, [{"prompt": CODE, "completion": CODE}])
    with pytest.raises(InputError, match="rows that hold one"):
        loader.layout_of(short, 8, build("sft").room)


# --- objectives of records


@pytest.mark.parametrize("name", ["sft", "seq2seq", "dpo", "orpo", "reward"])
def test_records_of_a_row_do_not_meet(name):
    """The loss of a row of records is the sum of the losses of each on its own."""
    of = build(name)
    model, params = small_model(of)
    waves = lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)  # noqa: E731
    other = jax.tree.map(lambda x: x + 0.05 * waves(x), params)
    more = {"reference": other} if of.reference else {}

    @jax.jit
    def sums(row):
        batch = {n: x[None] for n, x in row.items()} | {"index": np.zeros(1, np.int32)}
        total, weight, _ = of.loss(
            with_head(model), params, batch, policy=FLOAT32, **more
        )
        return total, weight

    whole = whole_records(of, 64, seed=4)
    together = sums(of.features(whole, bits(0, 0)))
    alone = []
    for segment in range(1, whole["segments"].max() + 1):
        mine = whole["segments"] == segment
        row = {n: np.full_like(x, -1 if n == "labels" else 0) for n, x in whole.items()}
        for n, x in whole.items():
            row[n][: mine.sum()] = 1 if n == "segments" else x[mine]
        alone.append(sums(of.features(row, bits(0, 0))))
    assert len(alone) > 2
    np.testing.assert_allclose(together, np.sum(alone, axis=0), rtol=1e-4)


def test_only_answers_are_learned():
    of = build("sft")
    row = whole_records(of, 64, seed=1)
    made = of.features(row, bits(0, 0))
    learned = [
        (row["tokens"][t], row["tokens"][t + 1])
        for t in range(64)
        if row["labels"][t + 1] == A and row["segments"][t] == row["segments"][t + 1]
    ]
    on = made["weights"] > 0
    found = zip(made["tokens"][on], made["targets"][on], strict=True)
    assert list(found) == learned and len(learned) > 5


def test_sequences_to_sequences():
    """Written out: two records, the targets shifted behind a start of their own."""
    of = build("seq2seq")
    row = {
        "tokens": [5, 6, 7, 8, 9, 10, 11, 12, 0],
        "segments": [1, 1, 1, 1, 2, 2, 2, 2, 0],
        "labels": [G, G, A, A, G, A, A, A, -1],
    }
    row = {name: np.array(x, np.int32) for name, x in row.items()}
    from llm.objectives import seq2seq

    of = seq2seq.make(target_share=0.625)
    made = of.features(row, None)
    want = {
        "tokens": [0, 7, 0, 10, 11],
        "targets": [7, 8, 10, 11, 12],
        "positions": [0, 1, 0, 1, 2],
        "segments": [1, 1, 2, 2, 2],
        "weights": [1, 1, 1, 1, 1],
        "source_tokens": [5, 6, 9],
        "source_positions": [0, 1, 0],
        "source_segments": [1, 1, 2],
    }
    assert {name: x.tolist() for name, x in made.items()} == want
    assert of.room(8) == (((G,), 3), ((A,), 5))


def test_dpo_by_hand():
    """Loss, gradient and figures against the formula in numpy, a pair at a time."""
    beta, smoothing, V, D = 0.3, 0.1, 24, 6
    of = build("dpo", beta=beta, smoothing=smoothing)
    rows = [whole_records(of, 64, seed) for seed in range(3)]
    made = [of.features(row, bits(0, 0)) for row in rows]
    batch = {n: np.stack([row[n] for row in made]) for n in made[0]}
    batch["index"] = np.arange(3, dtype=np.int32)
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(3, 64, D)).astype(np.float32)
    kernels = rng.normal(size=(2, D, V)).astype(np.float32)

    def apply(params, inputs, train, rngs):
        return Output(hidden, None), Head(hidden, params)

    def loss(kernel):
        return of.loss(apply, kernel, batch, reference=kernels[1], policy=FLOAT32)

    total, weight, metrics = loss(kernels[0])

    def by_hand(kernel):
        """(sum of losses, number of pairs, sum of margins, of right ones)."""
        logps = [
            np.log(np.exp(x) / np.exp(x).sum(-1, keepdims=True))
            for x in ((hidden @ k).astype(np.float64) for k in (kernel, kernels[1]))
        ]
        losses, margins = [], []
        for b, row in enumerate(rows):
            for segment in range(1, row["segments"].max() + 1):
                rewards = []
                for side in (G, RG):
                    places = [
                        t
                        for t in range(1, 65)
                        if row["segments"][t] == segment
                        and row["labels"][t] == side + 1
                    ]
                    # The first token of a sequence is never predicted.
                    answer = [logp[b, t - 1, row["tokens"][t]] for logp in logps
                              for t in places]  # fmt: skip
                    half = len(answer) // 2
                    rewards.append(beta * (sum(answer[:half]) - sum(answer[half:])))
                margin = rewards[0] - rewards[1]
                down = np.log1p(np.exp(-margin))
                losses.append((1 - smoothing) * down + smoothing * (down + margin))
                margins.append(margin)
        return sum(losses), len(losses), sum(margins), sum(m > 0 for m in margins)

    want = by_hand(kernels[0])
    assert weight == want[1] > 5
    assert total == pytest.approx(want[0], rel=1e-4)
    assert metrics["margin"][0] == pytest.approx(want[2], rel=1e-4)
    assert metrics["accuracy"][0] == want[3]
    gradient = np.asarray(jax.grad(lambda k: loss(k)[0])(jnp.asarray(kernels[0])))
    step = 1e-5
    for d, v in ((0, 4), (3, 7), (5, 20)):
        moved = [kernels[0].astype(np.float64) for _ in range(2)]
        moved[0][d, v] += step
        moved[1][d, v] -= step
        slope = (by_hand(moved[0])[0] - by_hand(moved[1])[0]) / (2 * step)
        assert gradient[d, v] == pytest.approx(slope, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("knobs", [{"beta": 0.0}, {"smoothing": 0.5}])
def test_dpo_refuses(knobs):
    with pytest.raises(InputError, match=rf"objective\.{next(iter(knobs))} 0"):
        build("dpo", **knobs)
