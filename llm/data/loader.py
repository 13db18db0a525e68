"""Batches at random access: a batch is a function of (manifest, seed, step).

There is no state but the step. Row `r` of the batch of step `s` is row `s * batch_size
+ r` of an endless line of epochs, each planned by `packing`; a host computes its own
part of the rows, so that 1, 2 or 4 hosts see slices of the same global batch. With a
mixture there is such a line for each of its names, and `mixture` says which row of the
batch is the next of which. Grain reads ahead with threads; it stores nothing either.

    data = batches(split, seq_len=256, batch_size=32, seed=0, features=features)
    data[1000]                       # the batch of step 1000, on any machine
    for batch in data.iterate(1000): # the same and those after it, read ahead
        ...
"""

import collections
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from llm.data import mixture, packing, record_tokens
from llm.data.tokens import TokenSplit
from llm.errors import InputError

# record {"tokens", "segments", "positions"}: int32 [seq_len + 1] each, and {"labels",
# "label_names"} of labelled texts; and a generator.
Features = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
Batch = dict[str, np.ndarray]
Plan = packing.Lined | packing.Boxed
# From seq_len to ((parts of a record, tokens of them that a row holds), ...); no parts
# are all of a text, which is cut off where it is longer.
Room = Callable[[int], tuple[tuple[tuple[int, ...], int], ...]]

_FOREVER = 1 << 40  # steps
_THREADS, _AHEAD = 2, 8  # of the reading ahead; batches
_EVALUATION = 1 << 32  # an epoch that training never reaches


class Line(NamedTuple):
    """Documents that have epochs of their own; `documents` None is all of them."""

    name: str
    layout: packing.Line | packing.Boxes
    documents: np.ndarray | None = None

    def epoch(self, seed: int, epoch: int) -> Plan:
        """The rows of an epoch."""
        plan = self.layout.epoch(seed, epoch)
        return plan if self.documents is None else _Some(plan, self.documents)


class _Some(NamedTuple):
    """A plan of some documents of a split."""

    plan: Plan
    documents: np.ndarray

    def spans(self, row: int) -> list[packing.Span]:
        """What stands in a row, by the numbers of the split."""
        return [
            span._replace(document=int(self.documents[span.document]))
            for span in self.plan.spans(row)
        ]


class Batches(Sequence):
    """`batches[step]` is a dict of arrays [rows of this host, seq_len]."""

    def __init__(
        self, split, lines, seq_len, batch_size, seed, features, room, hosts, copies
    ):
        self.split, self.seq_len, self.batch_size = split, seq_len, batch_size
        self.lines: list[Line] = lines
        self._copies, self._alike = copies, max(copies, 1)
        self.rows_per_epoch = self._alike * sum(
            line.layout.rows_per_epoch for line in lines
        )
        self.left_out = sum(line.layout.left_out for line in lines)
        self.mixture: mixture.Mixture | None = None
        self._seed, self._features, self._room = seed, features, room
        self._hosts = host, count = hosts
        self._rows = range(host * batch_size // count, (host + 1) * batch_size // count)
        self._plans: dict[tuple[int, int], Plan] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._dataset = grain.MapDataset.source(_Steps(self.batch, _FOREVER))

    def __len__(self) -> int:
        return _FOREVER

    def __getitem__(self, step: int) -> Batch:
        return self._dataset[step]

    @property
    def records_per_batch(self) -> int:
        """Rows of a batch that differ, where each stands in it several times."""
        return self.batch_size // self._alike

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """The batches from `start_step` on, without end, computed ahead by threads."""
        ahead = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        return iter(self._dataset[start_step:].to_iter_dataset(ahead))

    def mixed(self, wanted: mixture.Wanted, steps: int) -> "Batches":
        """The same rows of documents in other proportions, for a run of so many steps.

        Raises:
          InputError: no such field, or weights that it cannot have.
        """
        values = np.array(self.split.values(wanted.by))
        lines = []
        for name in sorted(set(values)):
            documents = np.flatnonzero(values == name)
            if int(self.split.lengths[documents].sum()) > 1:
                layout = layout_of(
                    self.split, self.seq_len, self._room, documents,
                    alone=self._copies > 0,
                )  # fmt: skip
                lines.append(Line(name, layout, documents))
        made = Batches(
            self.split, lines, self.seq_len, self.batch_size, self._seed,
            self._features, self._room, self._hosts, self._copies,
        )  # fmt: skip
        rows = {line.name: line.layout.rows_per_epoch for line in lines}
        made.mixture = mixture.plan(wanted, rows, steps, self.records_per_batch)
        return made

    def batch(self, step: int) -> Batch:
        """The batch of a step; it reads nothing but its arguments and the split."""
        places = self._places(step)
        first = step * self.batch_size
        rows = [
            self._row(*places[row // self._alike], first + row) for row in self._rows
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def document_ids(self, step: int) -> list[str]:
        """Ids of the documents in the global batch of a step, as they appear."""
        found = {}
        for line, n in self._places(step):
            epoch, r = divmod(n, self.lines[line].layout.rows_per_epoch)
            for span in self._plan(line, epoch).spans(r):
                found[self.split.ids[span.document]] = None
        return list(found)

    def _places(self, step: int) -> list[tuple[int, int]]:
        """(line, row of that line) of each record of the global batch."""
        if self.mixture:
            return self.mixture.places(step)
        first = step * self.records_per_batch
        return [(0, first + row) for row in range(self.records_per_batch)]

    def _row(self, line: int, n: int, row: int) -> Batch:
        epoch, r = divmod(n, self.lines[line].layout.rows_per_epoch)
        record = read_row(self.split, self._plan(line, epoch), r, self.seq_len + 1)
        return self._features(record, _generator(self._seed, epoch, row))

    def _plan(self, line: int, epoch: int) -> Plan:
        # A plan costs a sort of the corpus: it is kept for the epoch and the next.
        with self._lock:
            if (line, epoch) not in self._plans:
                self._plans[line, epoch] = self.lines[line].epoch(self._seed, epoch)
                while len(self._plans) > 2 * len(self.lines):
                    self._plans.popitem(last=False)
            return self._plans[line, epoch]


class _Steps(Sequence):
    """A function of the step as a sequence, which is what grain reads."""

    def __init__(self, batch: Callable[[int], Batch], length: int):
        self._batch, self._length = batch, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self._length:
            raise IndexError(step)
        return self._batch(int(step))


def batches(
    split: TokenSplit,
    *,
    seq_len: int,
    batch_size: int,
    seed: int,
    features: Features,
    room: Room | None = None,
    unpaired: bool = False,
    hosts: tuple[int, int] = (0, 1),
    copies: int = 0,
) -> Batches:
    """Endless training batches over a split, in a new order each epoch.

    Args:
      seq_len: tokens of a row after the objective cut it in inputs and targets.
      batch_size: rows of a batch over all hosts.
      features: the objective's; called with the record of a row and a generator that
        depends on (seed, epoch, number of the row) alone.
      room: the objective's, if its records are to stay whole.
      unpaired: the objective's: whether a record may have one answer, good or bad.
      hosts: (number of this host, number of hosts).
      copies: the objective's: rows in a line that a record stands in, alone; 0 is one
        row with others.

    Raises:
      InputError: a split too short for a row, or a batch that hosts cannot share.
    """
    _check(split, seq_len, batch_size, hosts)
    _check_answers(split, seq_len, room, unpaired)
    if batch_size // hosts[1] % max(copies, 1):
        raise InputError(
            got=f"{batch_size // hosts[1]} rows of a batch a process, in groups of "
            f"{copies}",
            want="whole groups, by train.batch_size",
        )
    line = Line("", layout_of(split, seq_len, room, alone=copies > 0))
    return Batches(
        split, [line], seq_len, batch_size, seed, features, room, hosts, copies
    )


def layout_of(
    split: TokenSplit,
    seq_len: int,
    room: Room | None = None,
    documents: np.ndarray | slice = slice(None),
    *,
    alone: bool = False,
) -> packing.Line | packing.Boxes:
    """How documents of a split come into rows; InputError if none fits in one.

    Args:
      alone: whether a row holds one record.
    """
    if room is None:
        return packing.Line(split.lengths[documents], seq_len)
    rooms = room(seq_len)
    of_records = any(parts for parts, _ in rooms)
    labelled = split.labels is not None
    if of_records and not (
        labelled and split.manifest["labels"] == list(record_tokens.PARTS)
    ):
        raise InputError(
            got=f"texts, in the {split.name} split, for an objective of records",
            want="records such as questions with answers",
            do="see data.source and data.stages in configs/sft.py",
        )
    sizes = [
        record_tokens.sizes(split, parts) if parts else np.minimum(split.lengths, most)
        for parts, most in rooms
    ]
    sizes = np.stack(sizes, axis=1)[documents]
    made = packing.boxes(sizes, [most for _, most in rooms], alone=alone)
    if not made.rows_per_epoch:
        raise InputError(
            got=f"{len(sizes)} records in the {split.name} split, the shortest of "
            f"{split.lengths[documents].min()} tokens, and train.seq_len {seq_len}",
            want="rows that hold one",
            do=f"raise train.seq_len to {sizes.sum(axis=1).max()} to take all of them",
        )
    return made


def _check_answers(
    split: TokenSplit, seq_len: int, room: Room | None, unpaired: bool
) -> None:
    """Raises InputError for records with other answers than an objective learns."""
    parts = {part for some, _ in room(seq_len) for part in some} if room else ()
    if not parts or split.labels is None:
        return
    chosen, rejected = (
        record_tokens.sizes(split, (part,)) > 0
        for part in (record_tokens.ANSWER, record_tokens.REJECTED_ANSWER)
    )

    def refuse(these, what: str, want: str, do: str) -> None:
        if these.any():
            raise InputError(
                got=f"{int(these.sum())} of {len(these)} records {what}, in the "
                f"{split.name} split",
                want=want,
                do=do,
            )

    if record_tokens.REJECTED_ANSWER not in parts:
        want = "conversations, or prompts with completions"
        do = "teach preferences by configs/dpo.py"
        refuse(rejected, "with a rejected answer", want, do)
    elif not unpaired:
        want = "records of prompt, chosen and rejected"
        do = "teach conversations by configs/sft.py, and labelled answers by kto"
        refuse(~rejected, "without a rejected answer", want, do)
        refuse(~chosen, "without a chosen answer", want, do)


def eval_batches(
    split: TokenSplit,
    *,
    seq_len: int,
    batch_size: int,
    features: Features,
    room: Room | None = None,
    unpaired: bool = False,
    limit: int = 0,
    hosts: tuple[int, int] = (0, 1),
    copies: int = 0,
) -> Sequence[Batch]:
    """Fixed rows in the order of the documents, for validation.

    Args:
      limit: at most so many rows, evenly spread over the split; 0 takes all.

    Returns:
      Batches of one shape; rows that fill up the last one are all padding.
    """
    _check(split, seq_len, batch_size, hosts)
    _check_answers(split, seq_len, room, unpaired)
    plan = layout_of(split, seq_len, room, alone=copies > 0).unshuffled()
    total = len(plan.rows)
    count = min(limit or total, total)
    host, n_hosts = hosts
    mine = range(host * batch_size // n_hosts, (host + 1) * batch_size // n_hosts)

    def row(i: int) -> Batch:
        if i < count:
            record = read_row(split, plan, i * total // count, seq_len + 1)
        else:
            nothing = np.zeros(seq_len + 1, np.int32)
            record = {"tokens": nothing + split.manifest["pad_id"]}
            record |= {"segments": nothing, "positions": nothing}
            record |= {"labels": nothing - 1}
        return features(record, _generator(0, _EVALUATION, i))

    def batch(step: int) -> Batch:
        rows = [row(step * batch_size + r) for r in mine]
        return {name: np.stack([made[name] for made in rows]) for name in rows[0]}

    return _Steps(batch, -(-count // batch_size))


def read_row(
    split: TokenSplit, plan: Plan, row: int, size: int
) -> dict[str, np.ndarray]:
    """A packed row: `tokens`, `segments` and `positions`, int32 [size].

    Segments count the documents of the row from 1, and 0 is padding; positions restart
    with each of them. Padding ends the last row of the line. Of labelled texts also
    `labels`, int32 [size], places in `label_names`.
    """
    found = plan.spans(row)
    record = _tokens_of(split, found, size)
    if split.labels is not None:
        labels = np.full(size, -1, np.int32)
        read = [split.read_labels(*span) for span in found]
        labels[: sum(map(len, read))] = np.concatenate([*read, labels[:0]])
        record |= {"labels": labels, "label_names": split.manifest["labels"]}
    return record


def _tokens_of(split, found, size: int) -> dict[str, np.ndarray]:
    if len(found) == 1 and found[0].length == size:
        tokens = split.read(*found[0]).astype(np.int32)
        return {"tokens": tokens, "segments": _ones(size), "positions": _count(size)}
    tokens = np.full(size, split.manifest["pad_id"], np.int32)
    segments, positions = np.zeros((2, size), np.int32)
    at = 0
    for segment, span in enumerate(found, 1):
        end = at + span.length
        tokens[at:end] = split.read(*span)
        segments[at:end] = segment
        positions[at:end] = _count(span.length)
        at = end
    return {"tokens": tokens, "segments": segments, "positions": positions}


@functools.lru_cache(maxsize=8)
def _ones(size: int) -> np.ndarray:
    ones = np.ones(size, np.int32)
    ones.flags.writeable = False
    return ones


@functools.lru_cache(maxsize=8192)
def _count(size: int) -> np.ndarray:
    counted = np.arange(size, dtype=np.int32)
    counted.flags.writeable = False
    return counted


def _generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    key = (seed & 0xFFFFFFFFFFFFFFFF) | epoch << 64
    return np.random.Generator(np.random.Philox(key=key, counter=row << 128))


def _check(split: TokenSplit, seq_len: int, batch_size: int, hosts) -> None:
    host, count = hosts
    tokens = int(split.offsets[-1])
    if seq_len < 1 or batch_size < 1 or tokens < 2:
        raise InputError(
            got=f"seq_len {seq_len}, batch_size {batch_size}, and {tokens} tokens in "
            f"the {split.name} split",
            want="at least 1, 1 and 2",
        )
    if batch_size % count or not 0 <= host < count:
        raise InputError(
            got=f"batch_size {batch_size} for host {host} of {count}",
            want=f"a multiple of {count}, and a host from 0 to {count - 1}",
        )
