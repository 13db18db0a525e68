"""Answers that the model makes while it trains, and what it learns from them.

For an objective that is `online`, a batch of the loader holds prompts. Here the engine
answers them, from the arrays that train and in the same process, so that there are no
other weights to be kept in step; rewards judge the answers; and the objective makes of
that what its loss reads. Token ids go in and come out: text is never encoded again.

Everything is a function of (parameters, seed, step): a run that was killed makes the
same answers again. Where answers are learned from for several steps, what is left of
them is in the checkpoint (`Rollouts.kept`).

Each collection measures max and mean |log p of the engine - log p of the trainer|: were
they of different weights, or positions, or masks, it would show here first.

`B answers, T tokens`
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from llm import rewards, sharding
from llm.checkpoint import LoopState, State
from llm.data import answer_rows
from llm.errors import InputError
from llm.inference import sampling
from llm.inference.decoding import forbidden, text_of
from llm.inference.engine import NONE, PIECE, Engine
from llm.inference.prompt_rows import inputs_of
from llm.knobs import Amount, Count, Positive, section
from llm.nn.contract import with_head
from llm.objectives import Online
from llm.registry import every_plugin
from llm.training.train_step import numbered

_VALIDATION = 1 << 30  # a step that training never reaches
Batch = dict[str, np.ndarray]
Figures = dict[str, float]


@section("rollouts")
class Config:
    """Answers that the model makes while it trains, for objectives that learn from
    them."""

    # Rewards that judge an answer: files of llm/rewards/, and the weight of each in
    # their sum; () is 1 for each.
    rewards: tuple[str, ...] = ("number",)
    weights: tuple[float, ...] = ()
    # The sum of the rewards is cut to at most so much, up and down; 0 does not cut.
    clip: Amount = 0.0
    # Batches of answers that are made at once and then learned from one by one: the
    # later ones are of older weights.
    batches: Positive = 1
    # Answers of a logged step that are written to rollouts/STEP.json.
    shown: Count = 4
    # Knobs of the rewards, by their names.
    reward: dict = every_plugin("rewards")


def check(c: Any, online: Online | None) -> None:
    """Raises InputError for rewards that cannot be built."""
    if online is None:
        return
    r = c.rollouts
    if not r.rewards:
        raise InputError(got="rollouts.rewards ()", want="one or more")
    if r.weights and len(r.weights) != len(r.rewards):
        raise InputError(
            got=f"{len(r.weights)} rollouts.weights for {len(r.rewards)} rewards",
            want="one for each",
        )
    if len(set(r.rewards)) < len(r.rewards):
        raise InputError(got=f"rollouts.rewards {r.rewards}", want="each of them once")
    _build(r)
    if c.train.seq_len < online.max_tokens:
        raise InputError(
            got=f"objective.max_tokens {online.max_tokens} in rows of train.seq_len "
            f"{c.train.seq_len}",
            want="room for a prompt, too",
        )
    if c.train.batch_size % online.group:
        raise InputError(
            got=f"train.batch_size {c.train.batch_size} answers in groups of "
            f"{online.group}",
            want="a multiple of objective.group",
        )


def _build(r: Any, device: Any = None) -> dict[str, rewards.Reward]:
    specs = {}
    for name in r.rewards:
        knobs = r.reward[name].to_dict() if name in r.reward else {}
        specs[name] = {"name": name, **knobs}
    return rewards.build(specs, device)


@dataclasses.dataclass
class Rollouts:
    """What makes the batches of an objective that is online.

    Attributes:
      apply: of the model, with its head.
      join: from what is trained to all parameters.
      show: is given a step and answers of it, for people to read.
      kept: batches that are learned from for several steps, {name: [B, batches, T]} on
        the mesh; None where each is learned from at once, and gone.
      figures: of the newest collection.
    """

    engine: Engine
    tokenizer: Any
    online: Online
    apply: Callable
    policy: Any
    join: Callable[[Any], Any]
    mesh: Mesh
    config: Any
    seed: int
    show: Callable[[int, list[dict[str, Any]]], None]
    kept: dict[str, jax.Array] | None = None
    figures: Figures = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._rewards = _build(self.config, self.mesh.local_devices[0])
        self._weights = self.config.weights or (1.0,) * len(self._rewards)
        self._part, self._parts = sharding.row_part(self.mesh)
        self._score = jax.jit(
            lambda params, batch: self.online.score(
                self.apply, params, numbered(batch), self.policy
            )
        )

    @property
    def span(self) -> int:
        """Steps that learn from what is made at once."""
        return self.config.batches * self.online.epochs

    def resume(self, state: State, loop: LoopState) -> State:
        """Takes the answers of a checkpoint over; what is left is what trains."""
        self.kept, self.figures = state.rollouts, loop.collected
        return state._replace(rollouts=None)

    def first_batch(self, step: int) -> int:
        """The batch of the loader that the next collection after a step begins with."""
        return -(-step // self.span) * self.config.batches

    def next_batch(self, take: Callable[[], Batch], params: Any, at: int) -> dict:
        """What step `at` learns from, on the mesh.

        Args:
          take: gives the next batch of prompts.
          params: what is trained.
        """
        place = (at - 1) % self.span
        if place == 0:
            params = self.join(params)
            made = [
                self._collect(take(), params, at + n)
                for n in range(self.config.batches)
            ]
            self.figures = _mean_figures([figures for _, figures in made])
            if self.span == 1:
                return sharding.placed(made[0][0], self.mesh)
            stacked = {n: np.stack([b[n] for b, _ in made], 1) for n in made[0][0]}
            self.kept = sharding.placed(stacked, self.mesh)
        which = place % self.config.batches
        return {name: x[:, which] for name, x in self.kept.items()}

    def validate(self, params: Any, batch: Batch) -> dict[str, tuple[float, float]]:
        """Sums of the rewards of answers to a validation batch."""
        made = self._answered(batch, self.join(params), _VALIDATION)
        rewards_B = self._gathered(made.rewards_B)
        known = rewards_B[np.isfinite(rewards_B)]
        total, count = float(known.sum()), float(len(known))
        return {"loss": (-total, count), "reward": (total, count)}

    def _collect(self, batch: Batch, params: Any, at: int) -> tuple[Batch, Figures]:
        """A batch to learn from, of this process, and figures of all processes."""
        start = time.perf_counter()
        made = self._answered(batch, params, at)
        seconds = time.perf_counter() - start
        batch, mask = made.batch, made.batch["weights"] > 0
        scores = self._score(params, sharding.placed(batch, self.mesh))
        scores = {
            name: np.where(mask, self._own(x), 0).astype(np.float32)
            for name, x in scores.items()
        }
        gap = np.abs(scores["logprobs"] - batch["sampled"])[mask]
        ended_B = np.array([answer.ended for answer in made.answers])
        rewards_B, own = self._gathered(made.rewards_B), self._slice(len(ended_B))
        learned, sums = self.online.learn(
            rewards_B, own, batch | scores | {"ended": ended_B}
        )
        self.show(at, made.table(self.online.group, self.config.shown))
        figures = self._figures_of(made) | {
            name: value / max(weight, 1.0) for name, (value, weight) in sums.items()
        }
        figures |= {
            "logprob_gap": float(gap.mean()) if gap.size else 0.0,
            "logprob_gap_max": float(gap.max(initial=0.0)),
            "sampling_s": seconds,
            "sampled_tokens_per_s": figures["answer_tokens"] * len(rewards_B) / seconds,
        }
        return batch | scores | learned, figures

    def _answered(self, batch: Batch, params: Any, at: int) -> "_Answered":
        """A batch with answers to its prompts, and their rewards."""
        prompts = answer_rows.prompts(batch)
        ids, logprobs = self._sample(prompts, params, at, batch["tokens"].shape[1])
        references = answer_rows.references(batch)
        rows = zip(prompts, ids, references, strict=True)
        answers = [self._answer(*row) for row in rows]
        real = [n for n, prompt in enumerate(prompts) if prompt]
        judged = rewards.judge(self._rewards, self._weights, [answers[n] for n in real])
        _check_judged(judged)
        rewards_B = np.full(len(prompts), np.nan)
        rewards_B[real] = [np.nan if x is None else x for x in judged.total]
        if limit := self.config.clip:
            rewards_B = np.clip(rewards_B, -limit, limit)
        batch = answer_rows.with_answers(batch, ids, logprobs)
        return _Answered(batch, answers, real, judged, rewards_B)

    def _answer(
        self, prompt: list[int], ids: list[int], reference: list[int]
    ) -> rewards.Answer:
        ends = self.tokenizer.ends
        marks = {*ends, *self.tokenizer.start(), *self.tokenizer.never}
        text = lambda row: text_of(  # noqa: E731
            self.tokenizer, [token for token in row if token not in marks]
        )
        return rewards.Answer(
            text(prompt), text(ids), text(reference), tuple(ids),
            ended=bool(ids) and ids[-1] in ends, prompt_ids=tuple(prompt),
            tokenizer=self.tokenizer.fingerprint,
        )  # fmt: skip

    def _sample(
        self, prompts: Sequence[list[int]], params: Any, at: int, T: int
    ) -> tuple[list[list[int]], list[np.ndarray]]:
        """The ids of an answer to each prompt, and their log-probabilities."""
        B, most = len(prompts), self.online.max_tokens
        width = -(-(T + 1 - most) // PIECE) * PIECE  # of any batch: one program
        inputs = inputs_of([prompt or [0] for prompt in prompts], multiple=width)
        place = lambda x: sharding.placed(x, self.mesh)  # noqa: E731
        own = self._slice(B)
        index_B = np.arange(own.start, own.stop, dtype=np.int32)
        knobs = sampling.Sampling(temperature=self.online.temperature)
        inputs, how, keys_B, left_B, told_B = place((
            inputs._replace(index_B=index_B), sampling.rows([knobs] * B),
            np.asarray(_keys(self.seed, at, index_B)), np.full(B, most, np.int32),
            np.zeros(B, np.int32),
        ))  # fmt: skip
        pieces = -(-most // PIECE)
        state = self.engine.empty(B * self._parts, width + pieces * PIECE)
        prefix = self.engine.prefill(params, inputs)
        state = self.engine.insert(state, prefix, np.arange(B * self._parts))
        made = []
        for _ in range(pieces):
            state, piece = self.engine.generate(
                params, state, how, keys_B, left_B, told_B=told_B
            )
            made.append((piece.tokens_BT, piece.logprobs_BT))
            left_B, more = _left(left_B, piece.tokens_BT, self.engine.ends)
            if not bool(more):
                break
        tokens_BT, logprobs_BT = (
            np.concatenate([self._own(x) for x in of], axis=1)
            for of in zip(*made, strict=True)
        )
        kept_BT = (tokens_BT != NONE) & np.array([[bool(p)] for p in prompts])
        return (
            [row[kept].tolist() for row, kept in zip(tokens_BT, kept_BT, strict=True)],
            [row[kept] for row, kept in zip(logprobs_BT, kept_BT, strict=True)],
        )

    def _figures_of(self, made: "_Answered") -> Figures:
        """What is logged of answers, over all processes."""
        columns = {
            "reward": made.rewards_B,
            "tokens": np.array([float(len(answer.ids)) for answer in made.answers]),
            "ended": np.array([float(answer.ended) for answer in made.answers]),
        }
        for label, values in made.judged.values.items():
            columns[f"reward_{label}"] = np.full(len(made.answers), np.nan)
            columns[f"reward_{label}"][made.real] = [
                np.nan if x is None else x for x in values
            ]
        columns = {name: self._gathered(x) for name, x in columns.items()}
        rewards_B, sizes_B = columns.pop("reward"), columns.pop("tokens")
        ended_B = columns.pop("ended")
        known = rewards_B[np.isfinite(rewards_B)]
        mean = float(known.mean()) if known.size else 0.0
        return {
            "loss": -mean,
            "reward": mean,
            "reward_std": float(known.std()) if known.size else 0.0,
            "reward_min": float(known.min(initial=np.inf)) if known.size else 0.0,
            "reward_failed": float(np.mean(~np.isfinite(rewards_B))),
            "answer_tokens": float(sizes_B.mean()),
            "answer_tokens_min": float(sizes_B.min()),
            "answer_tokens_max": float(sizes_B.max()),
            "cut_off": float(1 - ended_B.mean()),
        } | {
            name: float(np.nanmean(x)) if np.isfinite(x).any() else 0.0
            for name, x in columns.items()
        }

    def _slice(self, B: int) -> slice:
        """The rows of this process, of those of all."""
        return slice(self._part * B, self._part * B + B)

    def _own(self, x: jax.Array) -> np.ndarray:
        """The rows of this process of an array on the mesh."""
        if x.is_fully_addressable:
            return np.asarray(x)
        whole = multihost_utils.process_allgather(x, tiled=True)
        return whole[self._slice(len(whole) // self._parts)]

    def _gathered(self, x_B: np.ndarray) -> np.ndarray:
        """Values of the rows of all processes."""
        if jax.process_count() == 1:
            return x_B
        every = multihost_utils.process_allgather((np.int32(self._part), x_B))
        return np.concatenate(
            [every[1][list(every[0]).index(part)] for part in range(self._parts)]
        )


class _Answered(NamedTuple):
    """A batch with answers.

    Attributes:
      real: rows that are no padding.
      judged: rewards of these.
      rewards_B: what each row is worth, nan where that is not known.
    """

    batch: Batch
    answers: list[rewards.Answer]
    real: list[int]
    judged: rewards.Judged
    rewards_B: np.ndarray

    def table(self, group: int, count: int) -> list[dict[str, Any]]:
        """Answers to show, of different prompts as far as there are."""
        places = sorted(range(len(self.real)), key=lambda n: (self.real[n] % group, n))
        return [
            {
                "prompt": self.answers[self.real[n]].prompt[-500:],
                "answer": self.answers[self.real[n]].text[-2000:],
                "reference": self.answers[self.real[n]].reference[:500],
                "ended": self.answers[self.real[n]].ended,
                "reward": self.judged.total[n],
                "rewards": {k: of[n] for k, of in self.judged.values.items()},
            }
            for n in places[:count]
        ]


def build(assembly: Any, tokenizer: Any, own: Any, show: Callable) -> Rollouts:
    """The rollouts of a training; `own` are parameters that it does not change."""
    c, (model, objective, _) = assembly.c, assembly.network
    return Rollouts(
        engine=Engine(
            model, forbidden(model, tokenizer), tokenizer.ends, tempered=True
        ),
        tokenizer=tokenizer, online=objective.online, apply=with_head(model),
        policy=assembly.policy,
        join=lambda params: assembly.adapter.join(params, own),
        mesh=assembly.mesh, config=c.rollouts, seed=c.seed, show=show,
    )  # fmt: skip


def _check_judged(judged: rewards.Judged) -> None:
    for label, values in judged.values.items():
        if values and all(x is None for x in values):
            raise InputError(
                got=f"the reward {label!r}, which fails for every answer: "
                f"{judged.reasons[label][:200]}",
                want="a number for an answer",
                do=f"see what llm/rewards/{label}.py expects of a record",
            )


@functools.partial(jax.jit, static_argnames="ends")
def _left(left_B, tokens_BT, ends):
    """Tokens that each row may still make after a piece, and whether any may."""
    ended_B = jnp.isin(tokens_BT, jnp.array(ends, jnp.int32)).any(axis=1)
    count_B = (tokens_BT != NONE).sum(axis=1, dtype=jnp.int32)
    left_B = jnp.where(ended_B, 0, left_B - count_B)
    return left_B, (left_B > 0).any()


def _keys(seed: int, at: int, index_B: np.ndarray) -> jax.Array:
    """The keys of the answers of a step, as their data."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 3), at)
    keys_B = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(index_B))
    return jax.random.key_data(keys_B)


def _mean_figures(made: list[Figures]) -> Figures:
    together = {name: np.array([one[name] for one in made]) for name in made[0]}
    return {
        name: float(values.max() if name.endswith("_max") else values.mean())
        for name, values in together.items()
    }
