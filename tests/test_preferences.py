"""Objectives of preferences against their formulas, an answer at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_records
import tiny
from ml_collections import ConfigDict
from rows import EOS, PAD, V, bits, build, small_model
from test_records import stored

from llm import adapters, registry, tree
from llm.checkpoint import State
from llm.data import loader, record_tokens
from llm.document import Document
from llm.errors import InputError
from llm.evals import Context
from llm.inference import load_model, reward_scores
from llm.inference.requests import Reward
from llm.losses import Head
from llm.nn.contract import Output, with_head
from llm.precision import FLOAT32
from llm.training.train_step import Frozen, Knobs, build_step

ours = test_records.ours  # a tokenizer
G, A, RG, RA = range(4)
T, D = 64, 6
# Tokens of (prompt, good answer, bad answer) of the records of each row.
PAIRS = (
    ((5, 3, 7), (2, 6, 1), (9, 2, 2)),
    ((4, 20, 5), (1, 1, 2)),
    ((8, 8, 8),),
    ((3, 1, 9), (6, 4, 2), (2, 2, 2), (1, 5, 3)),
)  # fmt: skip
# Records of one answer beside pairs.
MIXED = (
    ((5, 3, 0), (2, 0, 4), (9, 2, 2)),
    ((4, 0, 5), (4, 6, 0)),
    ((8, 0, 8),),
    ((3, 1, 0), (6, 4, 0), (2, 0, 2)),
)


def row_of(records, pad=PAD, seed=0):
    """A row as the loader gives it, and its answers as (prompt, answer, good)."""
    rng = np.random.default_rng(seed)
    row = {name: [] for name in ("tokens", "segments", "labels")}
    answers = []
    for number, (prompt, *sizes) in enumerate(records, 1):
        asked = rng.integers(4, V, prompt)
        for side, size in enumerate(sizes):
            if not size:
                continue
            said = rng.integers(4, V, size)
            said[-1] = EOS
            row["tokens"] += [*asked, *said]
            row["segments"] += [number] * (prompt + size)
            row["labels"] += [2 * side] * prompt + [2 * side + 1] * size
            answers.append((number, asked.tolist(), said.tolist(), side == 0))
    blank = {"tokens": pad, "segments": 0, "labels": -1}
    return {
        n: np.array(x + [blank[n]] * (T + 1 - len(x)), np.int32) for n, x in row.items()
    } | {"positions": np.zeros(T + 1, np.int32)}, answers


def batch_of(of, rows, pad=PAD):
    """(a batch, the answers of each of its rows)."""
    made, answers = zip(*(row_of(r, pad, n) for n, r in enumerate(rows)), strict=True)
    made = [of.features(row, bits(0, 0)) for row in made]
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    return batch | {"index": np.arange(len(rows), dtype=np.int32)}, answers


# A model that is a table: the logits of a token depend on the token before it alone, so
# that no row, padding or neighbour can matter. Two of them: the policy, its reference.
EMBED = np.random.default_rng(1).normal(size=(V, D)).astype(np.float32)
KERNELS = np.random.default_rng(2).normal(size=(2, D, V)).astype(np.float32)


def apply(params, inputs, train=False, rngs=None):
    hidden = jnp.asarray(EMBED)[inputs.tokens_BT]
    return Output(hidden, None), Head(hidden, params)


def logprobs(prompt, answer, kernel):
    """log p of each token of an answer, float64."""
    found = []
    for before, token in zip([*prompt, *answer][len(prompt) - 1 :], answer):  # noqa: B905
        logits = EMBED[before].astype(np.float64) @ kernel.astype(np.float64)
        found.append(logits[token] - math.log(np.exp(logits).sum()))
    return found


def pairs_of(answers):
    """{record: (chosen, rejected)} of a row, each (prompt, answer)."""
    found = {}
    for number, prompt, answer, good in answers:
        found.setdefault(number, {})[good] = (prompt, answer)
    return [(p[True], p[False]) for p in found.values() if len(p) == 2]


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def compiled(of):
    """From a kernel and a batch to ((loss sum, (weight, metrics)), gradient)."""
    more = {"reference": KERNELS[1]} if of.reference else {}

    def loss(kernel, batch):
        total, *others = of.loss(apply, kernel, batch, policy=FLOAT32, **more)
        return total, others

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def check_gradient(gradient, by_hand):
    """Of single numbers of the kernel, by differences of what is computed by hand."""
    for place in ((0, 4), (3, 7), (5, 20), (2, EOS)):
        moved = [KERNELS[0].astype(np.float64) for _ in range(2)]
        moved[0][place] += 1e-5
        moved[1][place] -= 1e-5
        slope = (by_hand(moved[0]) - by_hand(moved[1])) / 2e-5
        assert gradient[place] == pytest.approx(slope, rel=2e-5, abs=2e-5)


def dpo_by_hand(answers, kernel, *, beta, form, length, margin, smoothing, reference):
    losses, ratios = [], []
    for pair in (pair for row in answers for pair in pairs_of(row)):
        scores = []
        for prompt, answer in pair:
            score = sum(logprobs(prompt, answer, kernel))
            if reference:
                score -= sum(logprobs(prompt, answer, KERNELS[1]))
            scores.append(score / (len(answer) if length == "mean" else 1))
        ratio = scores[0] - scores[1]
        z = beta * ratio - margin
        losses.append(
            {
                "sigmoid": (1 - smoothing) * softplus(-z) + smoothing * softplus(z),
                "hinge": max(0.0, 1 - z),
                "ipo": (ratio - 1 / (2 * beta)) ** 2,
            }[form]
        )
        ratios.append(ratio)
    return losses, ratios


DPO = {"beta": 0.3, "form": "sigmoid", "length": "sum", "margin": 0.0,
       "smoothing": 0.0, "reference": True}  # fmt: skip
FORMS = {
    "dpo": {},
    "conservative": {"smoothing": 0.2},
    "ipo": {"form": "ipo"},
    "ipo of TRL": {"form": "ipo", "length": "mean", "beta": 0.1},
    "slic": {"form": "hinge", "margin": 0.5},
    "simpo": {"beta": 2.0, "length": "mean", "margin": 1.0, "reference": False},
}


PADS = (PAD, EOS)  # what fills a row may be the token that ends an answer


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_dpo(name):
    knobs = DPO | FORMS[name]
    of = build("dpo", **knobs)
    assert of.reference == knobs["reference"]
    run = compiled(of)
    for pad in PADS:
        batch, answers = batch_of(of, PAIRS, pad)
        (total, (weight, metrics)), gradient = run(KERNELS[0], batch)
        losses, ratios = dpo_by_hand(answers, KERNELS[0], **knobs)
        assert weight == len(losses) == 10
        assert total == pytest.approx(sum(losses), rel=2e-6)
        margins = knobs["beta"] * sum(ratios)
        assert metrics["margin"][0] == pytest.approx(margins, rel=1e-5)
        assert metrics["accuracy"][0] == sum(r > 0 for r in ratios)
    check_gradient(
        gradient, lambda kernel: sum(dpo_by_hand(answers, kernel, **knobs)[0])
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"form": "ipo", "margin": 0.5}, "margin 0.5 with objective.form 'ipo'"),
        ({"form": "hinge", "smoothing": 0.1}, "smoothing 0.1 with objective.form"),
        ({"form": "ipo", "smoothing": 0.1}, "smoothing 0.1 with objective.form"),
        ({"form": "robust"}, "one of sigmoid, ipo, hinge"),
        ({"length": "median"}, "one of sum, mean"),
        ({"margin": -1.0}, "objective.margin -1.0"),
    ],
)
def test_knobs_that_do_not_go_together(knobs, message):
    with pytest.raises(InputError, match=message):
        build("dpo", **knobs)


def orpo_by_hand(answers, kernel, beta):
    losses, nlls, ratios = [], [], []
    for pair in (pair for row in answers for pair in pairs_of(row)):
        means = [np.mean(logprobs(*side, kernel)) for side in pair]
        odds = [math.log(math.exp(m) / (1 - math.exp(m))) for m in means]
        ratios.append(odds[0] - odds[1])
        nlls.append(-means[0])
        losses.append(-means[0] + beta * softplus(-ratios[-1]))
    return losses, nlls, ratios


def test_orpo_by_hand():
    of = build("orpo", beta=0.4)
    run = compiled(of)
    for pad in PADS:
        batch, answers = batch_of(of, PAIRS, pad)
        (total, (weight, metrics)), gradient = run(KERNELS[0], batch)
        losses, nlls, ratios = orpo_by_hand(answers, KERNELS[0], 0.4)
        assert weight == len(losses) and not of.reference
        assert total == pytest.approx(sum(losses), rel=2e-6)
        assert metrics["nll"][0] == pytest.approx(sum(nlls), rel=2e-6)
        assert metrics["log_odds_ratio"][0] == pytest.approx(sum(ratios), rel=1e-5)
        assert metrics["accuracy"][0] == sum(r > 0 for r in ratios)
    check_gradient(gradient, lambda kernel: sum(orpo_by_hand(answers, kernel, 0.4)[0]))


def test_orpo_of_a_model_that_is_sure():
    """The odds of a probability that rounds to 1 are finite, and so is the gradient."""
    of = build("orpo")
    batch, _ = batch_of(of, PAIRS)
    kernel = jnp.zeros((D, V))

    def sure(params, inputs, train=False, rngs=None):
        hidden = 100.0 * jax.nn.one_hot(jnp.asarray(batch["targets"]), V)
        return Output(hidden, None), Head(hidden, jnp.eye(V) + params.sum())

    loss, gradient = jax.value_and_grad(
        lambda k: of.loss(sure, k, batch, policy=FLOAT32)[0]
    )(kernel)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def kto_by_hand(answers, kernel, *, beta, desirable, undesirable, kl=None):
    """(losses, rewards of good answers, of bad ones, kl); kl as for other questions."""

    def ratio(prompt, answer):
        ours, theirs = (sum(logprobs(prompt, answer, k)) for k in (kernel, KERNELS[1]))
        return ours - theirs

    others = []
    for row in answers:
        step = 2 if len({n for n, *_ in row}) < len(row) else 1
        for n, (_, prompt, _, _) in enumerate(row):
            _, other, answer, _ = row[(n + step) % len(row)]
            if prompt != other:
                others.append(ratio(prompt, answer))
    if kl is None:
        kl = max(np.mean(others), 0.0) if others else 0.0
    losses, rewards = [], {True: [], False: []}
    for _, prompt, answer, good in (one for row in answers for one in row):
        reward = beta * ratio(prompt, answer)
        rewards[good].append(reward)
        z = reward - beta * kl
        if good:
            losses.append(desirable * (1 - 1 / (1 + math.exp(-z))))
        else:
            losses.append(undesirable * (1 - 1 / (1 + math.exp(z))))
    return losses, rewards[True], rewards[False], kl, others


KTO = {"beta": 0.2, "desirable": 1.5, "undesirable": 0.5}
ONE_KIND = (((5, 3, 0), (2, 4, 0)), ((4, 6, 0),))


@pytest.mark.parametrize("rows", [PAIRS, MIXED, ONE_KIND, (((3, 0, 2),),)])
def test_kto_by_hand(rows):
    of = build("kto", **KTO)
    run = compiled(of)
    for pad in PADS:
        batch, answers = batch_of(of, rows, pad)
        (total, (weight, metrics)), gradient = run(KERNELS[0], batch)
        losses, good, bad, kl, others = kto_by_hand(answers, KERNELS[0], **KTO)
        assert weight == len(losses)
        assert total == pytest.approx(sum(losses), rel=3e-6)
        assert metrics["mismatched"] == (len(others), weight)
        for name, each in (
            ("kl", others), ("chosen_reward", good), ("rejected_reward", bad),
        ):  # fmt: skip
            assert metrics[name] == pytest.approx((sum(each), len(each)), rel=1e-5)
    # No gradient passes through the divergence.
    check_gradient(
        gradient, lambda kernel: sum(kto_by_hand(answers, kernel, **KTO, kl=kl)[0])
    )


def test_a_divergence_below_0_counts_as_0():
    """Where answers to other questions are less likely than under the reference."""
    of = build("kto", **KTO)
    batch, answers = batch_of(of, MIXED)
    *_, others = kto_by_hand(answers, KERNELS[0], **KTO)
    sign = np.sign(np.mean(others))
    kernels = KERNELS if sign > 0 else KERNELS[::-1]
    above, below = (
        of.loss(apply, a, batch, reference=b, policy=FLOAT32)
        for a, b in (kernels, kernels[::-1])
    )
    assert above[2]["kl"][0] > 0 > below[2]["kl"][0]
    batch["kl"] = jnp.float32(0.0)
    zero = of.loss(apply, kernels[1], batch, reference=kernels[0], policy=FLOAT32)
    assert below[0] == pytest.approx(float(zero[0]), rel=1e-7)


def reward_by_hand(answers, kernel, vector, centre):
    losses, scores = [], []
    for pair in (pair for row in answers for pair in pairs_of(row)):
        chosen, rejected = (
            float(EMBED[answer[-1]].astype(np.float64) @ vector) for _, answer in pair
        )
        losses.append(softplus(rejected - chosen) + centre * (chosen + rejected) ** 2)
        scores.append((chosen, rejected))
    return losses, scores


@pytest.mark.parametrize("pad", PADS)
def test_reward_by_hand(pad):
    """At the last token of an answer, where answers end with different tokens."""
    of = build("reward", centre=0.01)
    rows = [row_of(r, pad, n) for n, r in enumerate(PAIRS)]
    rng, changed = np.random.default_rng(5), []
    for row, answers in rows:
        learned = np.isin(row["labels"], (A, RA))
        ends = np.flatnonzero(learned & (np.diff(row["labels"], append=-1) != 0))
        row["tokens"][ends] = rng.integers(4, V, len(ends))
        changed.append(
            [
                (number, prompt, [*answer[:-1], int(row["tokens"][end])], good)
                for (number, prompt, answer, good), end in zip(
                    answers, ends, strict=True
                )
            ]
        )
    made = [of.features(row, bits(0, 0)) for row, _ in rows]
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    batch["index"] = np.arange(len(rows), dtype=np.int32)
    vector = rng.normal(size=D).astype(np.float32)

    def model(params, inputs, train=False, rngs=None):
        return Output(jnp.asarray(EMBED)[inputs.tokens_BT], None), None

    params = {"reward": {"kernel": vector}}
    total, weight, metrics = of.loss(model, params, batch, policy=FLOAT32)
    losses, scores = reward_by_hand(changed, None, vector.astype(np.float64), 0.01)
    assert weight == len(losses) == 10
    assert total == pytest.approx(sum(losses), rel=1e-6)
    chosen, rejected = map(sum, zip(*scores, strict=True))
    assert metrics["chosen_reward"][0] == pytest.approx(chosen, rel=1e-5)
    assert metrics["margin"][0] == pytest.approx(chosen - rejected, rel=1e-5)
    assert metrics["accuracy"][0] == sum(c > r for c, r in scores)


def test_a_row_that_a_record_fills_has_a_reward():
    """Its last token is an input, which that of other objectives is not."""
    of = build("reward")
    assert of.room(T) == (((G, A, RG, RA), T),)
    row, _ = row_of([(12, 20, 20)])
    made = of.features(row, bits(0, 0))
    assert np.flatnonzero(made["weights"]).tolist() == [31, T - 1]


def test_the_formulas_of_trl():
    """As TRL 1.16 has them, written in torch, of likelihoods from numpy."""
    torch = pytest.importorskip("torch")
    log_sigmoid, sigmoid = torch.nn.functional.logsigmoid, torch.sigmoid
    _, answers = batch_of(build("dpo"), PAIRS)
    pairs = [pair for row in answers for pair in pairs_of(row)]
    score_KP2 = torch.tensor(
        [[[sum(logprobs(*a, k)) for a in pair] for pair in pairs] for k in KERNELS],
        dtype=torch.float64,
    )
    size_P2 = torch.tensor([[len(answer) for _, answer in pair] for pair in pairs])
    ratio_P2, mean_P2 = score_KP2[0] - score_KP2[1], score_KP2[0] / size_P2

    def gap(x_P2):
        return x_P2[:, 0] - x_P2[:, 1]

    odds = gap(mean_P2 - torch.log1p(-torch.exp(mean_P2)))
    (*_, kl, _) = kto_by_hand(answers, KERNELS[0], **KTO)
    good, bad = 0.2 * (ratio_P2[:, 0] - kl), 0.2 * (kl - ratio_P2[:, 1])
    simpo = {"beta": 2.0, "length": "mean", "margin": 1.0, "reference": False}
    for name, knobs, want in (
        ("dpo", {"beta": 0.3}, -log_sigmoid(0.3 * gap(ratio_P2))),
        ("dpo", {"form": "hinge"}, torch.relu(1 - 0.1 * gap(ratio_P2))),
        ("dpo", {"form": "ipo", "length": "mean"},
         (gap(ratio_P2 / size_P2) - 1 / 0.2) ** 2),
        ("dpo", simpo, -log_sigmoid(2.0 * (gap(mean_P2) - 1.0 / 2.0))),
        ("orpo", {}, -mean_P2[:, 0] - 0.1 * log_sigmoid(odds)),
        ("kto", KTO, torch.cat([1.5 * (1 - sigmoid(good)), 0.5 * (1 - sigmoid(bad))])),
    ):  # fmt: skip
        of = build(name, **knobs)
        more = {"reference": KERNELS[1]} if of.reference else {}
        batch, _ = batch_of(of, PAIRS)
        total, weight, _ = of.loss(apply, KERNELS[0], batch, policy=FLOAT32, **more)
        assert total / weight == pytest.approx(want.mean().item(), rel=1e-6), name


# --- parts of a batch


@pytest.mark.parametrize(
    ("name", "knobs"),
    [("dpo", {}), ("orpo", {}), ("kto", KTO), ("reward", {})],
)
def test_parts_of_a_batch_are_the_batch(name, knobs):
    """One batch of four rows, or four parts of one: the same gradient and figures."""
    of = build(name, **knobs)
    batch, _ = batch_of(of, MIXED if of.unpaired else PAIRS)
    model, params = small_model(of)
    waves = lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)  # noqa: E731
    moved = jax.tree.map(lambda x: x + 0.1 * waves(x), params)
    frozen = Frozen(reference=moved) if of.reference else Frozen()
    tx = optax.sgd(1.0)
    state = State(jnp.int32(0), params, None, tx.init(params))
    del batch["index"]
    results = []
    for accumulate in (1, 4):
        knobs = Knobs(steps=9, tokens_per_step=1, accumulate=accumulate, clip_norm=0.0)
        step = jax.jit(build_step(with_head(model), of, tx, knobs, FLOAT32))
        made, metrics = step(state, batch, frozen)
        update = jax.tree.map(jnp.subtract, made.params, params)
        results.append((update, metrics))
    (one, figures), (other, again) = results
    for name, value in figures.items():
        assert value == pytest.approx(float(again[name]), rel=2e-5, abs=1e-6), name
    error = tree.global_norm(jax.tree.map(jnp.subtract, one, other))
    assert float(error) < 1e-5 * float(tree.global_norm(one))
    if of.whole:  # it is not the 0 that a negative one counts as
        assert figures["kl"] > 0.01


# --- records of one answer


def test_an_answer_is_good_or_bad(ours):
    """Of texts and of conversations, of which only the last answer has the label."""
    texts = {"prompt": "1 +", "completion": " 2"}
    asked = {"role": "user", "content": "hello"}
    said = {"role": "assistant", "content": "good day"}
    talk = {"messages": [asked, said, asked, said]}
    for record in (texts, talk):
        ((ids, good),) = record_tokens.encode(record | {"label": True}, ours)
        ((again, bad),) = record_tokens.encode(record | {"label": False}, ours)
        assert ids == again and (bad == good + RG).all() and set(good) == {G, A}
    pair = {"prompt": talk["messages"][:3], "chosen": [said], "rejected": "no"}
    ((_, parts),) = record_tokens.encode(pair, ours)
    assert parts[: len(good)].tolist() == good.tolist()


def test_records_that_an_objective_cannot_use(ours, tmp_path):
    pair = {"prompt": "1 +", "chosen": " 2", "rejected": " 3"}
    good = {"prompt": "1 +", "completion": " 2", "label": True}
    bad = good | {"completion": " 3", "label": False}
    refused = {
        ("sft", "pair"): "1 of 1 records with a rejected answer",
        ("sft", "bad"): "1 of 1 records with a rejected answer",
        ("dpo", "good"): "1 of 1 records without a rejected answer",
        ("orpo", "bad"): "1 of 1 records without a chosen answer",
        ("reward", "mixed"): "1 of 3 records without a rejected answer",
    }
    splits = {"pair": [pair], "good": [good], "bad": [bad], "mixed": [pair, good, bad]}
    for kind, records in splits.items():
        split = stored(tmp_path / kind, ours, records)
        for name in ("sft", "dpo", "orpo", "reward", "kto"):
            of = build(name)
            knobs = {"seq_len": 64, "batch_size": 1, "features": of.features,
                     "room": of.room, "unpaired": of.unpaired}  # fmt: skip
            message = refused.get((name, kind))
            if message:
                with pytest.raises(InputError, match=message):
                    loader.batches(split, seed=0, **knobs)
                with pytest.raises(InputError, match=message):
                    loader.eval_batches(split, **knobs)
        data = loader.batches(split, seed=0, **knobs)  # of kto, which takes all
        answers = data[0]["segments"][0]
        assert len(set(answers[answers > 0])) == {"pair": 2, "mixed": 4}.get(kind, 1)


# --- a reward model that is asked


def asked(name):
    """A small model as it is loaded."""
    of = build(name)
    model, params = small_model(of)
    config = ConfigDict({"objective": {"name": name}, "train": {"seq_len": T}})
    return load_model.Loaded(model, of, params, None, config, 1)


def test_rewards_of_rows_are_those_of_training():
    """Alone in a padded row, in any order, or packed behind others: the same number."""
    loaded = asked("reward")
    batch, answers = batch_of(loaded.objective, PAIRS)
    _, _, metrics = loaded.objective.loss(
        with_head(loaded.model), loaded.params, batch, policy=FLOAT32
    )
    rows = [(prompt + said, good) for row in answers for _, prompt, said, good in row]
    rewards = reward_scores.scorer(loaded, batch_size=3)([row for row, _ in rows])
    for name, side in (("chosen_reward", True), ("rejected_reward", False)):
        mine = [r for r, (_, good) in zip(rewards, rows, strict=True) if good == side]
        assert sum(mine) == pytest.approx(float(metrics[name][0]), rel=1e-4, abs=1e-4)
    assert len(set(rewards.tolist())) == len(rows)
    with pytest.raises(InputError, match="trained by dpo, for rewards"):
        reward_scores.scorer(asked("dpo"))


def test_a_row_ends_where_the_answer_does(ours):
    said = {"role": "assistant", "content": "good day"}
    row = reward_scores.reward_row(ours, "1 +", " 2")
    assert row == [*ours.start(), *ours.encode("1 +"), *ours.encode(" 2"), ours.eos_id]
    whole = reward_scores.reward_row(ours, [said | {"role": "user"}], [said])
    assert whole[-1] == ours.eos_id
    ends = len(ours.encode("good day")) + 1
    assert ours.decode(whole[-ends:-1]) == "good day"


def test_the_evaluation_of_held_out_pairs():
    """Figures of written-out margins, of which 3 in 4 are right."""
    margins = (2.0, 0.5, -1.0, 3.0)
    record = {"prompt": "1 +", "chosen": " 2", "rejected": " 3"}
    documents = [
        Document(str(n), "a", "s", str(n), "record", 1, {"record": record})
        for n in range(4)
    ]
    context = Context(documents, list, len)
    task = registry.build("evals", {"name": "preferences"}, context=context)
    assert task.requests(documents[0])[1] == Reward("1 +", " 3", ((), {}))
    figures = [
        task.measure(d, [m + 1, 1.0]) for d, m in zip(documents, margins, strict=True)
    ]
    made = task.summarise(figures)
    assert made["accuracy"] == 0.75 and made["n"] == 4
    # Wilson's interval of three in four, and each margin in a bin of its own.
    assert made["interval"]["accuracy"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    sure = [1 / (1 + math.exp(-abs(m))) for m in margins]
    gaps = [abs(p - (m > 0)) for p, m in zip(sure, margins, strict=True)]
    assert made["calibration_error"] == pytest.approx(np.mean(gaps))
    losses = [softplus(-m) for m in margins]
    assert made["log_loss"] == pytest.approx(np.mean(losses))
    with pytest.raises(InputError, match="no preferences among 0 documents"):
        registry.build("evals", {"name": "preferences"}, context=Context([], list, len))


def test_low_rank_updates_and_the_vector_as_it_is():
    of = build("reward")
    model, _ = small_model(of)
    boxed = of.extend(jax.random.key(1), tiny.init(model, jax.random.key(0)), D)
    adapter = adapters.build({"name": "lora", "rank": 2, "full": "reward/.*"})
    trained, own = jax.tree.map(
        lambda x: x.value,
        adapter.split(jax.random.key(2), boxed),
        is_leaf=adapters.is_box,
    )
    assert trained["reward"]["kernel"].shape == (D,)
    trained["reward"]["kernel"] = trained["reward"]["kernel"] + 1.0
    joined = adapter.plain(adapter.join(trained, own))
    kernel = own["reward"]["kernel"]
    np.testing.assert_array_equal(joined["reward"]["kernel"], kernel + 1.0)
    for full in ("rewards", r".*/query/kernel"):
        bad = adapters.build({"name": "lora", "full": full})
        with pytest.raises(InputError, match=r"adapter\.full"):
            bad.split(jax.random.key(2), boxed)
