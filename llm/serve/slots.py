"""A model with slots: what the scheduler drives, and the only owner of the engine.

Requests are put in slots one by one and go on together, a few tokens at a time. All
shapes are among a few that `warm_up` compiles: prompts are padded to a bucket, and the
state has as many rows, as long, as the slots in use need, for every step works on all
of it. One thread may use it.

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
from llm.inference.decoding import forbidden
from llm.inference.engine import LIKELIEST, NONE, PIECE, Engine, Prefix, key_data
from llm.inference.prompt_rows import check_generates, inputs_of
from llm.inference.prompt_scores import PromptScores, prompt_scores
from llm.nn.contract import reads_source

_PROMPT, _TEXT = 32, 256  # the smallest buckets of prompts and of texts
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
        most = -(-context // _PROMPT) * _PROMPT
        self._prompts = _buckets(_PROMPT, most, 2)
        self._lengths = _buckets(min(_TEXT, most), most, 4)
        self._batches = _buckets(1, count, 4)
        self._step_seconds = 0.0
        self.reset()

    def reset(self) -> None:
        """Empties all slots."""
        B = self.count
        self._tasks: list[Task | None] = [None] * B
        self._ended: set[int] = set()  # of those in use, whose end came
        self._stuck: set[int] = set()  # and whose grammar allows nothing more
        self._keys_B = np.asarray(key_data(0, [0] * B)).copy()
        self._left_B = np.zeros(B, np.int32)
        self._end_B = np.zeros(B, np.int32)  # tokens of the whole text so far
        self._size = self._batches[0], self._lengths[0]
        self._state = self._engine.empty(*self._size)
        self._knobs_changed()

    def warm_up(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Compiles every shape that a request may need."""
        start = time.perf_counter()
        sizes = [(batch, size) for batch in self._batches for size in self._lengths]
        key_data(0, [0])
        for bucket in self._prompts:
            say(f"compiling prompts of {bucket} tokens")
            prefix = self._read([0] * bucket)
            self._scores(prefix)
            for batch, length in sizes:
                if length >= bucket:
                    state = self._engine.empty(batch, length)
                    self._engine.insert(state, prefix, np.array([0], np.int32))
        for batch, length in sizes:
            say(f"compiling {batch} texts of {length} tokens")
            self._warm_up_size(batch, length)
        self.reset()
        say(f"compiled in {time.perf_counter() - start:.0f} s")

    def _warm_up_size(self, batch: int, length: int) -> None:
        """Compiles the steps of a size of the state, and what leads to others."""
        self.reset()
        self._state, self._size = self._engine.empty(batch, length), (batch, length)
        for other in self._batches:
            if other > batch or _shrinks(batch, other):
                self._engine.resize(self._state, other, length)
        for other in self._lengths:
            if other > length or _shrinks(length, other):
                self._engine.resize(self._state, batch, other)
        self._tasks[0], self._left_B[0] = Task([0], max_tokens=4), 4
        self._knobs_changed()
        self._piece(1)
        self._step_seconds = 0.0  # that one compiled
        self._piece(1)

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
        prefix = self._read(task.ids)
        self._grow(len(task.ids), slot)
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
        self._ended.discard(slot)
        self._stuck.discard(slot)
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
        B = self._size[0]
        allowed_BW = self._allowed_BW() if constrained else None
        start = time.perf_counter()
        self._state, made = self._engine.generate(
            self._params, self._state, self._rows, self._keys_B[:B], self._left_B[:B],
            steps, told_B=self._told_B[:B], endless_B=self._endless_B[:B],
            allowed_BW=allowed_BW,
        )  # fmt: skip
        tokens_BT = np.asarray(made.tokens_BT)
        taken = max(int((tokens_BT != NONE).sum(axis=1).max()), 1)
        self._note_time((time.perf_counter() - start) / taken)
        told = self._told_B[self._left_B > 0] if self._left_B.any() else [NONE]
        wanted = made[1:] if max(told) >= 0 else [np.zeros((B, 0))] * 3
        figures = [np.asarray(x) for x in wanted]
        found = {}
        for slot, task in enumerate(self._tasks[:B]):
            if task is None:
                continue
            tokens = tokens_BT[slot][tokens_BT[slot] != NONE].tolist()
            if task.matcher and tokens and not self._takes(slot, tokens[-1]):
                tokens = []
            found[slot] = Piece(tokens, *(x[slot][: len(tokens)] for x in figures))
            self._left_B[slot] -= len(tokens)
            self._end_B[slot] += len(tokens)
            ended = tokens and tokens[-1] in self._engine.ends and not task.endless
            if ended or (task.matcher and task.matcher.finished):
                self._left_B[slot] = 0
                self._ended.add(slot)
        return found

    def _takes(self, slot: int, token: int) -> bool:
        """Whether a slot's grammar goes on with a token; else the slot is stuck."""
        try:
            self._tasks[slot].matcher.take(token)
        except InputError:
            self._stuck.add(slot)
            self._left_B[slot] = 0
            return False
        return True

    def done(self, slot: int) -> str:
        """Why a task is over: 'stop' at its end, 'length' at its last token, 'grammar'
        where that allows no next one; or ''."""
        if slot in self._stuck:
            return "grammar"
        if slot in self._ended:
            return "stop"
        return "" if self._left_B[slot] else "length"

    def score(self, ids: Sequence[int]) -> PromptScores:
        """Likelihoods of the tokens of a prompt, of one row."""
        made = self._scores(self._read(ids))
        return PromptScores(*(np.asarray(x)[:, : len(ids)] for x in made))

    def _read(self, ids: Sequence[int]) -> Prefix:
        bucket = _bucket(self._prompts, len(ids))
        return self._engine.prefill(self._params, inputs_of([ids], multiple=bucket))

    def _scores(self, prefix: Prefix) -> PromptScores:
        K = min(LIKELIEST, self._vocab_size)
        model = self._engine.model
        return prompt_scores(model, self._params, prefix, self._vocab_size, K)

    def _quick(self) -> int:
        return max(int(_SECONDS / max(self._step_seconds, 1e-4)), 1)

    def _note_time(self, seconds: float) -> None:
        held = self._step_seconds
        self._step_seconds = 0.7 * held + 0.3 * seconds if held else seconds

    def _allowed_BW(self) -> np.ndarray:
        words = -(-self._engine.model.vocab_size // 32)
        B = self._size[0]
        allowed_BW = np.full((B, words), -1, np.int32)
        for slot, task in enumerate(self._tasks[:B]):
            if task and task.matcher and self._left_B[slot]:
                try:
                    allowed_BW[slot] = task.matcher.allowed_W()
                except InputError:  # its own affair: the others go on
                    self._stuck.add(slot)
                    self._left_B[slot] = 0
        return allowed_BW

    def _grow(self, tokens: int, slot: int = 0) -> None:
        """Room for so many tokens a text, and this slot; less where much is unused.

        Going back and forth costs more than a few rows: so it shrinks only by two
        buckets, or when one text is left.
        """
        used = [n for n, task in enumerate(self._tasks) if task is not None]
        wanted = (
            _bucket(self._batches, max([slot, *used]) + 1),
            _bucket(self._lengths, max(tokens, int(self._end_B.max()))),
        )
        batch, length = map(max, wanted, self._size)
        if _shrinks(batch, wanted[0]):
            batch = wanted[0]
        if _shrinks(length, wanted[1]):
            length = wanted[1]
        # One after the other: fewer pairs of sizes to compile.
        for size in ((batch, self._size[1]), (batch, length)):
            if size != self._size:
                self._state = self._engine.resize(self._state, *size)
                self._size = size
                self._knobs_changed()

    def _knobs_changed(self) -> None:
        tasks = [task or Task([]) for task in self._tasks]
        knobs = [task.knobs for task in tasks[: self._size[0]]]
        self._rows = jax.device_put(sampling.rows(knobs))
        self._told_B = np.array([task.told for task in tasks], np.int32)
        self._endless_B = np.array([task.endless for task in tasks])


def _shrinks(size: int, wanted: int) -> bool:
    """Whether so much less is wanted that a copy of the rest pays."""
    return wanted < size and (wanted * 8 <= size or wanted == 1)


def _bucket(sizes: Sequence[int], needed: int) -> int:
    return next((size for size in sizes if size >= needed), sizes[-1])


def _buckets(first: int, last: int, by: int) -> tuple[int, ...]:
    """Sizes from `first` to `last`, each `by` times the one before."""
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(min(sizes[-1] * by, last))
    return tuple(sizes)
