"""GRPO by hand: advantages, losses and their denominators, in plain loops of numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import PAD, TOKENIZER, V, build, small_model
from scipy.special import log_softmax

from llm.errors import InputError
from llm.losses import Head, policy_scores
from llm.nn.contract import Output, with_head
from llm.objectives import grpo, never_sampled
from llm.precision import FLOAT32
from llm.training import train_step
from llm.training.train_step import Frozen, Knobs

B, T, D, GROUP = 8, 12, 6, 4
# Of each answer: tokens of its prompt and of itself; one is empty, one fills its row.
SIZES = ((3, 4), (3, 9), (3, 1), (3, 0), (2, 5), (2, 2), (2, 3), (2, 7))
REWARDS = np.array([1.0, 0.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0])  # the second group is dead


def batch_of(seed=0, rewards=REWARDS, **knobs):
    """(objective, batch after `learn`) of random answers, sampled by an older model."""
    of = build("grpo", group=GROUP, max_tokens=9, **knobs)
    rng = np.random.default_rng(seed)
    batch = {
        name: np.zeros((B, T), np.int32)
        for name in ("tokens", "targets", "positions", "segments", "weights")
    }
    for row, (prompt, answer) in enumerate(SIZES):
        ids, size = rng.integers(4, V, prompt + answer), prompt + answer - 1
        batch["tokens"][row, :size], batch["targets"][row, :size] = ids[:-1], ids[1:]
        batch["positions"][row, :size] = np.arange(size)
        batch["segments"][row, :size] = 1
        batch["weights"][row, prompt - 1 : size] = 1
    mask = batch["weights"]
    batch["sampled"] = (-rng.uniform(0.5, 4, (B, T)) * mask).astype(np.float32)
    off = rng.normal(0, 0.5, (B, T)) * mask
    batch["logprobs"] = (batch["sampled"] + off).astype(np.float32)
    batch["ended"] = np.arange(B) % 3 > 0
    learned, _ = of.online.learn(np.array(rewards), slice(0, B), batch)
    batch = batch | learned
    del batch["ended"]
    return of, batch | {"index": np.arange(B, dtype=np.int32)}


def heads(seed=1):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    return hidden, rng.normal(size=(D, V + 8)).astype(np.float32)


def by_hand(batch, logprobs, reference, knobs):
    """(sum of losses, weight) token by token."""
    numbers, weights = [], []
    for row in range(B):
        places = np.flatnonzero(batch["weights"][row])
        ratios = [np.exp(logprobs[row, t] - batch["logprobs"][row, t]) for t in places]
        if knobs["ratio"] == "sequence" and len(places):
            ratios = [np.prod(ratios) ** (1 / len(places))] * len(places)
        total = 0.0
        for t, ratio in zip(places, ratios, strict=True):
            A = batch["advantages"][row, t]
            clipped = min(max(ratio, 1 - knobs["clip_low"]), 1 + knobs["clip_high"])
            loss = -min(ratio * A, clipped * A)
            if knobs["beta"]:
                d = reference[row, t] - logprobs[row, t]
                loss += knobs["beta"] * {
                    "k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1
                }[knobs["kl"]]  # fmt: skip
            if knobs["cap"]:
                off = np.exp(batch["logprobs"][row, t] - batch["sampled"][row, t])
                loss *= min(off, knobs["cap"])
            total += loss
        if len(places):
            numbers.append(total)
            weights.append(len(places))
    if knobs["mean"] == "token":
        return sum(numbers), sum(weights)
    if knobs["mean"] == "constant":
        return sum(numbers) / 9, len(numbers)
    return sum(n / w for n, w in zip(numbers, weights, strict=True)), len(numbers)


@pytest.mark.parametrize(
    "mean, ratio, kl",
    [
        *itertools.product(
            ("token", "sequence", "constant"),
            ("token", "sequence"),
            ("k1", "k2", "k3", ""),
        )
    ],
)
def test_loss_by_hand(mean, ratio, kl):
    knobs = {
        "mean": mean, "ratio": ratio, "clip_low": 0.1, "clip_high": 0.3, "cap": 1.2,
        "beta": 0.2 if kl else 0.0, "kl": kl or "k3",
    }  # fmt: skip
    of, batch = batch_of(**knobs)
    (ours, kernel), (theirs, _) = heads(1), heads(2)

    def apply(hidden, inputs, train, rngs):
        return Output(hidden, None, {}), Head(hidden, kernel)

    total, weight, metrics = of.loss(
        apply, ours, batch, reference=theirs if kl else None, policy=FLOAT32
    )
    scores = []
    never = [*never_sampled(TOKENIZER), *range(V, V + 8)]
    for hidden in (ours, theirs):
        logits = (hidden.astype(np.float64) @ kernel) / 1.0
        logits[..., never] = -np.inf
        logprobs = log_softmax(logits, axis=-1)
        scores.append(
            np.take_along_axis(logprobs, batch["targets"][..., None], 2)[..., 0]
        )
    want, count = by_hand(batch, *scores, knobs)
    assert weight == count > 0
    assert total == pytest.approx(want, rel=1e-5)
    assert metrics["policy_loss"][0] == total
    assert ("kl" in metrics) == bool(kl) == of.reference


@pytest.mark.parametrize(
    "std, scale", [("group", None), ("batch", None), ("none", 1.0)]
)
def test_advantages_by_hand(std, scale):
    rewards = np.array([1, 0, 0.5, np.nan, 2, 2, 2, 2, np.nan, np.nan, np.nan, 3.0])
    made, dead = grpo.advantages(rewards, GROUP, std)
    first = np.array([1, 0, 0.5])
    known = rewards[np.isfinite(rewards)]
    scales = {"group": first.std(ddof=1), "batch": known.std(ddof=1)}
    scale = scales[std] + 1e-4 if std in scales else 1.0
    np.testing.assert_allclose(made[:3], (first - 0.5) / scale, rtol=1e-12)
    assert not made[3:].any()
    assert dead.tolist() == [False] * 3 + [True] * 9


def test_a_dead_group_counts_nowhere():
    """Its tokens are in no denominator; a gradient is that of the others alone."""
    of, batch = batch_of()
    assert not batch["weights"][GROUP:].any() and not batch["advantages"][GROUP:].any()
    hidden, kernel = heads()

    def apply(params, inputs, train, rngs):
        return Output(hidden, None, {}), Head(hidden * params, kernel)

    def mean(params, batch):
        total, weight, _ = of.loss(apply, params, batch, policy=FLOAT32)
        return total / weight

    alone = {name: x[:GROUP] for name, x in batch.items()}
    hidden_all = hidden
    both = float(jax.grad(mean)(1.0, batch))
    hidden = hidden_all[:GROUP]
    assert both == pytest.approx(float(jax.grad(mean)(1.0, alone)), rel=1e-5)
    assert both != 0


def test_answers_that_were_cut_off_may_be_left_out():
    _, batch = batch_of(learn_cut=False)
    learned = batch["weights"].any(axis=1)
    assert learned.tolist() == [False, True, True] + [False] * 5


@pytest.mark.parametrize("mean", ("token", "sequence", "constant"))
def test_micro_batches_are_one_batch(mean):
    """Whatever rows stand in which of them, and however many tokens each has."""
    of, batch = batch_of(mean=mean, rewards=np.arange(8) % 3)
    model, init = small_model(of)

    def step(accumulate):
        knobs = Knobs(steps=1, tokens_per_step=1, accumulate=accumulate, clip_norm=0.0)
        tx = optax.sgd(1.0)
        update = train_step.build_step(with_head(model), of, tx, knobs, FLOAT32)
        state = train_step.State(jnp.int32(0), init, None, tx.init(init))
        del_index = {n: x for n, x in batch.items() if n != "index"}
        state, metrics = jax.jit(update)(state, del_index, Frozen())
        return state.params, metrics

    (one, metrics), (four, again) = step(1), step(4)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert float(metrics["objective"]) == pytest.approx(
        float(again["objective"]), rel=1e-5
    )


@pytest.mark.parametrize("temperature", (0.5, 1.0, 2.0))
def test_scores_are_of_what_is_sampled_from(temperature):
    """In stretches or whole; entropy in nats; forbidden ids have no share."""
    hidden, kernel = heads()
    targets = np.random.default_rng(0).integers(4, V, (B, T))
    logprobs, entropy = policy_scores(
        Head(hidden, kernel), targets, temperature=temperature, vocab_size=V,
        forbidden=(PAD, 1), policy=FLOAT32,
    )  # fmt: skip
    logits = hidden.astype(np.float64) @ kernel / temperature
    logits = np.delete(logits, [PAD, 1, *range(V, V + 8)], axis=-1)
    want = log_softmax(logits, axis=-1)
    own = np.take_along_axis(want, targets[..., None] - 2, 2)[..., 0]
    np.testing.assert_allclose(logprobs, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(entropy, -(np.exp(want) * want).sum(-1), atol=1e-6)


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match="group 1"):
        build("grpo", group=1)
