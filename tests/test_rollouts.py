"""Answers that a model makes while it trains: those of the weights that train, kept
over a kill, on any mesh, and worth what the rewards say."""

import json
import shutil

import jax
import numpy as np
import pytest

from llm import config, registry, rewards
from llm.data import answer_rows
from llm.errors import InputError
from llm.training import rollouts
from llm.workloads import prepare_data, train, train_tokenizer

TIMES = {
    "tokens_per_s", "model_flops_per_s", "mfu", "eta_s", "seconds", "wall_seconds",
    "goodput", "input_s", "sampling_s", "sampled_tokens_per_s",
}  # fmt: skip
# The bound on |log p of the engine - log p of the trainer| in float32.
GAP = 1e-4


def settings(**changes):
    c = config.base("train")
    c.data.source = registry.spec("sources", "arithmetic", most=12)
    c.data.stages = ()
    c.data.validation_fraction = c.data.test_fraction = 0.1
    c.tokenizer.update(kind="char", vocab_size=300)
    tiny = registry.module("models", "llama").TINY
    c.model = registry.spec("models", "llama", **tiny)
    c.objective = registry.spec("objectives", "grpo", group=4, max_tokens=12)
    # Some letters: a model with random weights writes no number that is right.
    c.rollouts.rewards = ("match",)
    c.rollouts.reward.match.pattern = ".*[a-m].*"
    c.train.update(steps=4, batch_size=16, seq_len=24, log_every=1)
    c.train.update(dtype="float32", validate_every=0, validation_sequences=8)
    c.optimizer.update(learning_rate=0.001, weight_decay=0.0)
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollouts") / "data"
    folder.mkdir()
    prepare_data.run(settings(), folder)
    train_tokenizer.run(settings(), folder)
    return folder


def trained(data, name, **changes):
    workdir = data.parent / name
    if not workdir.exists():
        shutil.copytree(data, workdir)
    train.run(settings(**changes), str(workdir))
    return workdir


def logged(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines
    ]


def digests(workdir, step):
    loop = workdir / "checkpoints" / str(step) / "loop" / "metadata"
    return json.loads(loop.read_text())["digests"]


@pytest.fixture(scope="module")
def whole(data):
    """A run of 8 steps whose answers are learned from four times each."""
    return trained(data, "whole", **SPANS)


SPANS = {
    "rollouts.batches": 2, "objective.epochs": 2, "train.steps": 8,
    "train.checkpoint_every": 3, "train.keep_last": 9,
}  # fmt: skip


def test_the_engine_sees_what_the_trainer_sees(whole):
    records = logged(whole)
    assert len(records) == 8
    assert max(r["logprob_gap_max"] for r in records) < GAP
    assert all(0 <= r["logprob_gap"] <= r["logprob_gap_max"] for r in records)


def test_what_is_logged(whole):
    for record in logged(whole):
        assert record["loss"] == -record["reward"] <= 0
        assert record["answer_tokens_min"] <= record["answer_tokens"] <= 12
        assert 0 <= record["dead_groups"] <= 1 and 0 <= record["cut_off"] <= 1
        assert record["entropy"] > 0 and record["reward_failed"] == 0
        assert record["reward_match"] == record["reward"] > 0
    shown = json.loads((whole / "rollouts" / "5.json").read_text())["answers"]
    assert len({one["prompt"] for one in shown}) == 4
    assert all(one["reference"].startswith('{"answer"') for one in shown)


def test_answers_are_learned_from_as_often_as_asked(whole):
    """Two batches, twice each: new answers come after four steps."""
    rewards_of = [record["reward"] for record in logged(whole)]
    assert len(set(rewards_of[:4])) == len(set(rewards_of[4:])) == 1
    assert rewards_of[0] != rewards_of[4]
    moved = [r["policy_loss"] for r in logged(whole)]
    assert len(set(moved)) == 8


@pytest.mark.parametrize("step", (3, pytest.param(6, marks=pytest.mark.long)))
def test_a_run_that_was_killed_makes_the_same(data, whole, step):
    """In the middle of what is learned from: the rest of it is in the checkpoint."""
    name = f"killed-{step}"
    shutil.copytree(whole, data.parent / name)
    for path in (data.parent / name / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path)
    (data.parent / name / "train.json").unlink()
    again = trained(data, name, **SPANS)
    assert digests(again, 8) == digests(whole, 8)
    assert logged(again) == logged(whole)


@pytest.mark.long
@pytest.mark.parametrize(
    "mesh, rules, changes",
    [
        ((("data", 2), ("fsdp", 2), ("tensor", 2)), "fsdp", {}),
        ((("fsdp", -1),), "fsdp", {"adapter": registry.spec("adapters", "lora")}),
    ],
)
def test_on_meshes_and_with_adapters(data, mesh, rules, changes):
    """The same answers of the same weights, cut or whole, and the same bound."""
    short = {"train.steps": 2}
    alone, name = trained(data, "alone", **short), f"{mesh[0][0]}-{len(mesh)}"
    c = settings(**short)
    c.update({"mesh": mesh, "rules": rules} | changes)
    workdir = shutil.copytree(data, data.parent / name)
    train.run(c, str(workdir))
    for one, other in zip(logged(alone), logged(workdir), strict=True):
        assert other["logprob_gap_max"] < GAP
        if not changes:
            assert other["reward"] == pytest.approx(one["reward"], abs=1e-5)


def test_other_weights_would_show(data, monkeypatch):
    """Were the engine to sample of weights that do not train, the gap would say so."""
    collect = rollouts.Rollouts._sample
    first = {}

    def stale(self, prompts, params, at, T):
        return collect(self, prompts, first.setdefault("params", _copy(params)), at, T)

    monkeypatch.setattr(rollouts.Rollouts, "_sample", stale)
    workdir = trained(data, "stale", **{"optimizer.learning_rate": 0.01})
    gaps = [record["logprob_gap_max"] for record in logged(workdir)]
    assert gaps[0] < GAP < min(gaps[1:])


def _copy(params):
    return jax.tree.map(lambda x: x.copy(), params)


@pytest.mark.long
def test_rewards_are_learned(data):
    """Answers come to have what they are rewarded for."""
    workdir = trained(
        data, "learns", **{"train.steps": 30, "optimizer.learning_rate": 0.02}
    )
    records = logged(workdir)
    assert records[-1]["reward"] > 0.9 > 0.7 > records[0]["reward"]
    assert records[-1]["validation_reward"] == -records[-1]["validation_loss"]


def test_what_pads_a_validation_is_not_judged(data):
    """Ten held-out sums in batches of sixteen."""
    workdir = trained(data, "padded", **{"train.validation_sequences": 0})
    result = json.loads((workdir / "train.json").read_text())
    assert 0 <= -result["validation_loss"] <= 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rollouts.rewards": ()}, "rollouts.rewards"),
        ({"rollouts.weights": (1.0, 2.0)}, "one for each"),
        ({"rollouts.rewards": ("no_such",)}, "no_such"),
        ({"objective.group": 3}, "multiple of objective.group"),
        ({"objective.max_tokens": 64}, "room for a prompt"),
        (
            {"rollouts.rewards": ("length",), "rollouts.reward.length.margin": 999},
            "margin 999",
        ),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        train.check(settings(**changes))


def test_a_reward_that_judges_nothing_ends_the_run(data, monkeypatch):
    def broken(*, pattern="", exact=False):
        return rewards.each(lambda answer: answer.nothing)

    monkeypatch.setattr(registry.module("rewards", "match"), "make", broken)
    with pytest.raises(InputError, match="'match', which fails for every answer"):
        trained(data, "broken")


def test_rows_of_prompts():
    """The last answer is the reference; what the template writes behind it is not."""
    tokens = np.arange(3, 15, dtype=np.int32)
    parts = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, -1])
    record = {
        "tokens": tokens, "labels": parts, "segments": (parts >= 0).astype(np.int32),
        "positions": np.arange(12, dtype=np.int32),
    }  # fmt: skip
    row = answer_rows.features(record, None)
    batch = {name: x[None] for name, x in row.items()}
    assert answer_rows.prompts(batch) == [tokens[:7].tolist()]
    assert answer_rows.references(batch) == [tokens[7:10].tolist()]
    made = answer_rows.with_answers(batch, [[90, 2]], [np.array([-1.0, -2.0])])
    assert made["tokens"][0, :8].tolist() == [*tokens[:7], 90]
    assert made["targets"][0, 6:8].tolist() == [90, 2]
    assert made["weights"][0].tolist() == [0] * 6 + [1, 1] + [0] * 3
    assert made["sampled"][0, 6:8].tolist() == [-1.0, -2.0]
    assert made["segments"][0].sum() == 8 and made["positions"][0, 7] == 7


@pytest.mark.long
def test_a_reward_model_judges(data):
    """The number that it gives to the very tokens; another tokenizer is refused."""
    c = settings(**{"train.steps": 2})
    c.objective = registry.spec("objectives", "reward")
    c.data.source = registry.spec("sources", "records", path=str(_pairs(data.parent)))
    folder = data.parent / "reward"
    folder.mkdir()
    prepare_data.run(c, folder)
    for name in ("tokenizer", "tokens"):
        assert not (folder / name).exists()
    c.init_from, begun = str(trained(data, "begun", **{"train.steps": 1})), folder
    train_tokenizer.run(c, begun)
    train.run(c, str(begun))
    workdir = trained(
        data, "judged",
        **{
            "train.steps": 2, "rollouts.rewards": ("model",),
            "rollouts.reward.model.model_dir": str(begun),
        },
    )  # fmt: skip
    assert all(np.isfinite(r["reward_model"]) for r in logged(workdir))
    with pytest.raises(InputError, match="of a reward model"):
        train.check(settings(**{"rollouts.rewards": ("model",)}))


def _pairs(folder):
    path = folder / "pairs.jsonl"
    lines = [
        {"prompt": f"{n}+1=", "chosen": str(n + 1), "rejected": "no"} for n in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path
