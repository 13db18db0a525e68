"""A model with slots: what the scheduler drives, and the only owner of the engine.

Requests are put in slots one by one and go on together, a few tokens at a time. All
shapes are among a few that `warm_up` compiles: prompts are padded to a bucket, and the
rows of the state are as long as the longest text in them needs, as every step reads
them whole. One thread may use it.

`B slots, T padded prompt, W words of 32 bits, K likeliest tokens`
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from llm.errors import InputError
from llm.inference import sampling
from llm.inference.constrain import Matcher
from llm.inference.engine import LIKELIEST, NONE, PIECE, Engine, key_data
from llm.inference.generate import forbidden
from llm.inference.prompt_scores import PromptScores, prompt_scores
from llm.inference.prompts import check_generates, inputs_of
from llm.nn.contract import reads_source

_SHORTEST, _FIRST = 32, 128  # the smallest bucket of prompts, and of rows
_SECONDS = 0.15  # that a piece may take while somebody waits for it
_GREEDY = sampling.Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class Task:
    """What a slot is to do.

    Attributes:
      ids: the prompt.
      number: of the answer, where several are made with one seed.
      told: how many of the likeliest tokens to tell; 0 tells the token's own
        likelihood, -1 nothing.
      endless: whether to go on after an end.
      matcher: the grammar of the answer, if it has one.
    """

    ids: Sequence[int]
    knobs: sampling.Sampling = _GREEDY
    seed: int = 0
    number: int = 0
    max_tokens: int = 16
    told: int = NONE
    endless: bool = False
    matcher: Matcher | None = None


class Piece(NamedTuple):
    """New tokens of a slot; with an end that came at last, and their likelihoods."""

    tokens: list[int]
    logprobs: np.ndarray
    likeliest_TK: np.ndarray
    likeliest_logprobs_TK: np.ndarray


class Slots:
    """See the module docstring.

    Attributes:
      count: slots.
      context: most tokens of a prompt and its answer.
    """

    def __init__(
        self, model: Any, params: Any, tokenizer: Any, *, count: int, context: int
    ):
        check_generates(model)
        if reads_source(model):
            raise InputError(
                got=f"a {type(model).__name__}, to serve",
                want="a decoder: encoder-decoders are for configs/generate.py",
            )
        self.count, self.context = count, context
        self._params, self._vocab_size = params, tokenizer.vocab_size
        self._engine = Engine(model, forbidden(model, tokenizer), tokenizer.ends)
        self._prompts = _buckets(_SHORTEST, context)
        self._lengths = _buckets(_FIRST, context)
        self._step_seconds = 0.0
        self.reset()

    def reset(self) -> None:
        """Empties all slots."""
        B = self.count
        self._tasks: list[Task | None] = [None] * B
        self._keys_B = np.asarray(key_data(0, [0] * B)).copy()
        self._left_B = np.zeros(B, np.int32)
        self._end_B = np.zeros(B, np.int32)  # tokens of the whole text so far
        self._length = self._lengths[0]
        self._state = self._engine.empty(B, self._length)
        self._knobs_changed()

    def warm_up(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Compiles every shape that a request may need."""
        start = time.perf_counter()
        slots_P = np.array([0], np.int32)
        for bucket in self._prompts:
            say(f"compiling prompts of {bucket} tokens")
            inputs = inputs_of([[0] * bucket])
            prefix = self._engine.prefill(self._params, inputs)
            for length in [size for size in self._lengths if size >= bucket]:
                state = self._engine.empty(self.count, length)
                self._engine.insert(state, prefix, slots_P)
        for length in self._lengths:
            say(f"compiling texts of {length} tokens")
            self.reset()
            self._fit(length)
            self._tasks[0], self._left_B[0] = Task([0], max_tokens=4), 4
            self._piece(1)
            self._step_seconds = 0.0  # that one compiled
            self._piece(1)
        self.reset()
        say(f"compiled in {time.perf_counter() - start:.0f} s")

    @property
    def busy(self) -> int:
        """Slots in use."""
        return sum(task is not None for task in self._tasks)

    def free(self) -> list[int]:
        """Slots not in use."""
        return [n for n, task in enumerate(self._tasks) if task is None]

    def start(self, slot: int, task: Task) -> None:
        """Reads a prompt and puts it in a free slot."""
        assert self._tasks[slot] is None
        bucket = next(size for size in self._prompts if size >= len(task.ids))
        prefix = self._engine.prefill(
            self._params, inputs_of([task.ids], multiple=bucket)
        )
        self._grow(len(task.ids))
        slots_P = np.array([slot], np.int32)
        self._state = self._engine.insert(self._state, prefix, slots_P)
        self._tasks[slot] = task
        self._keys_B[slot] = np.asarray(key_data(task.seed, [task.number]))[0]
        room = self.context - len(task.ids)
        self._left_B[slot] = min(task.max_tokens, room)
        self._end_B[slot] = len(task.ids)
        self._knobs_changed()

    def stop(self, slot: int) -> None:
        """Frees a slot."""
        self._tasks[slot] = None
        self._left_B[slot] = self._end_B[slot] = 0

    def step(self, steps: int = 0) -> dict[int, Piece]:
        """A few more tokens for every slot in use.

        A slot whose task is done stays in use until it is stopped.

        Args:
          steps: at most so many tokens; 0 is as many as take little time.
        """
        constrained = any(task and task.matcher for task in self._tasks)
        steps = 1 if constrained else min(steps or self._quick(), PIECE)
        self._grow(int(self._end_B.max()) + steps)
        return self._piece(steps)

    def _piece(self, steps: int) -> dict[int, Piece]:
        constrained = any(task and task.matcher for task in self._tasks)
        start = time.perf_counter()
        self._state, made = self._engine.generate(
            self._params, self._state, self._rows, self._keys_B, self._left_B, steps,
            told_B=self._told_B, endless_B=self._endless_B,
            allowed_BW=self._allowed_BW() if constrained else None,
        )  # fmt: skip
        tokens_BT = np.asarray(made.tokens_BT)
        taken = max(int((tokens_BT != NONE).sum(axis=1).max()), 1)
        self._note_time((time.perf_counter() - start) / taken)
        told = self._told_B[self._left_B > 0] if self._left_B.any() else [NONE]
        wanted = made[1:] if max(told) >= 0 else [np.zeros((self.count, 0))] * 3
        figures = [np.asarray(x) for x in wanted]
        found = {}
        for slot, task in enumerate(self._tasks):
            if task is None:
                continue
            tokens = tokens_BT[slot][tokens_BT[slot] != NONE].tolist()
            found[slot] = Piece(tokens, *(x[slot][: len(tokens)] for x in figures))
            self._left_B[slot] -= len(tokens)
            self._end_B[slot] += len(tokens)
            ended = tokens and tokens[-1] in self._engine.ends and not task.endless
            if task.matcher and tokens and not ended:
                task.matcher.take(tokens[-1])
                ended = task.matcher.finished
            if ended:
                self._left_B[slot] = 0
        return found

    def done(self, slot: int) -> bool:
        """Whether a task has made all it may: its end came, or its last token."""
        return bool(self._left_B[slot] == 0)

    def score(self, ids: Sequence[int]) -> PromptScores:
        """Likelihoods of the tokens of a prompt, of one row."""
        bucket = next(size for size in self._prompts if size >= len(ids))
        inputs = inputs_of([ids], multiple=bucket)
        K = min(LIKELIEST, self._vocab_size)
        made = prompt_scores(
            self._engine.model, self._params, inputs, self._vocab_size, K
        )
        return PromptScores(*(np.asarray(x)[:, : len(ids)] for x in made))

    def _quick(self) -> int:
        return max(int(_SECONDS / max(self._step_seconds, 1e-4)), 1)

    def _note_time(self, seconds: float) -> None:
        held = self._step_seconds
        self._step_seconds = 0.7 * held + 0.3 * seconds if held else seconds

    def _allowed_BW(self) -> np.ndarray:
        words = -(-self._engine.model.vocab_size // 32)
        allowed_BW = np.full((self.count, words), -1, np.int32)
        for slot, task in enumerate(self._tasks):
            if task and task.matcher and self._left_B[slot]:
                allowed_BW[slot] = task.matcher.allowed_W()
        return allowed_BW

    def _grow(self, needed: int) -> None:
        """Rows long enough for so many tokens; shorter ones where much is unused."""
        needed = max(needed, int(self._end_B.max()))
        length = next(size for size in (*self._lengths, needed) if size >= needed)
        if length > self._length or length * 4 <= self._length:
            self._fit(max(length, self._lengths[0]))

    def _fit(self, length: int) -> None:
        self._state = self._engine.resize(self._state, length)
        self._length = length

    def _knobs_changed(self) -> None:
        tasks = [task or Task([]) for task in self._tasks]
        self._rows = jax.device_put(sampling.rows([task.knobs for task in tasks]))
        self._told_B = np.array([task.told for task in tasks], np.int32)
        self._endless_B = np.array([task.endless for task in tasks])


def _buckets(first: int, last: int) -> tuple[int, ...]:
    """Sizes that double, up to the multiple of `first` that `last` needs."""
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(sizes[-1] * 2)
    most = -(-last // _SHORTEST) * _SHORTEST
    return tuple(min(size, most) for size in sizes)
