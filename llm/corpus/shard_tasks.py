"""What one process does at a time: a step for one shard, kept on disk.

A task reads what earlier steps left, writes its own files, and last a marker with its
counts; who finds the marker does nothing. So any task may be done by any process, may
be killed at any instant and done again, and leaves the same bytes.
"""

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm import files
from llm.corpus import apply_stage, group_match, shards
from llm.corpus.file_reader import Skip
from llm.corpus.file_source import Part, in_parts
from llm.corpus.shards import Place
from llm.document import Document, Source
from llm.text import hashing

_SHARD_BYTES = 1 << 22  # of text, from which the next shard begins
EXAMPLES = 3  # ids of what a source skipped for a reason


class Work(NamedTuple):
    """What every task knows.

    Attributes:
      root: the folder of all steps.
      source: where documents come from.
      key: a hash of all that they depend on.
      steps: the steps, in order.
      seconds: that a stage may take for a document; 0 is without limit.
    """

    root: pathlib.Path
    source: Source
    key: str
    steps: Sequence[apply_stage.Step]
    seconds: float

    def folder(self, number: int) -> pathlib.Path:
        """Where the step `number` leaves what it makes; -1 is reading."""
        if number < 0:
            return self.root / f"read-{self.key}"
        step = self.steps[number]
        return self.root / f"{step.name[:60]}-{step.key}"

    def scores(self, number: int, stage: int) -> pathlib.Path:
        """Where the scores of a Tag are."""
        step = self.steps[number]
        name = step.stages[stage].name
        return self.root / f"scores-{name}-{step.scores[stage]}"


def read(work: Work, number: int, part: Part) -> None:
    """Reads a part of the source into shards; `number` is its place among the parts."""
    folder, skipped = work.folder(-1), {}
    documents = in_parts(work.source).read_part(part, noted(skipped))
    names, raw, digest = [], 0, 0
    for shard, some in enumerate(_filled(documents)):
        names.append(f"{number:05d}-{shard:03d}")
        raw += sum(document.raw_bytes for document in some)
        digest += sum(map(hashing.of_document, some))
        if shards.counted(folder, names[-1]) is None:
            ids = [hashing.of_id(document.id) for document in some]
            shards.save(folder / f"{names[-1]}.ids.npy", np.array(ids, np.uint64))
            count = shards.write(folder, names[-1], some)
            shards.finish(folder, names[-1], {"documents": count})
    # A sum, so that documents may be read in any order.
    given = {"raw_bytes": raw, "digest": digest % 2**128}
    made = {"shards": names, "skipped": skipped, "given": given}
    shards.finish(folder, f"part-{number:05d}", made)


def change(work: Work, number: int, place: Place, name: str) -> None:
    """Maps the documents of a shard."""
    folder, step = work.folder(number), work.steps[number]
    counted = apply_stage.new_counts(step)
    order = shard_order(name)

    def made() -> Iterator[Document]:
        for line, document in place.documents(name):
            where = [*order, line]
            yield from apply_stage.mapped(step, where, document, counted, work.seconds)

    shards.write(folder, name, made())
    shards.finish(folder, name, {"stages": counted})


def tag(work: Work, number: int, place: Place, name: str) -> None:
    """Scores the documents of a shard that have no scores yet, and decides."""
    folder, step = work.folder(number), work.steps[number]
    counted = apply_stage.new_counts(step)
    kept, order = [], shard_order(name)
    stores = [_Scores(work.scores(number, n), name) for n in range(len(step.stages))]
    texts = _Ahead(place.documents(name))
    for line, about in place.abouts(name):

        def score(stage, line=line):
            return apply_stage.scored(stage, texts.at(line), work.seconds)

        known = [store.found.get(line) for store in stores]
        keep, scores = apply_stage.tagged(
            step, [*order, line], about, known, counted, score
        )
        if keep:
            kept.append(line)
        for store, had, has in zip(stores, known, scores, strict=True):
            if had is None and has is not None:
                store.add(line, has)
    for store in stores:
        store.write()
    shards.save(folder / f"{name}.rows.npy", np.array(kept, np.uint32))
    shards.finish(folder, name, {"stages": counted})


def describe(work: Work, number: int, place: Place, name: str) -> None:
    """Writes the rows of the documents of a shard, and their keys in order."""
    folder, group = work.folder(number), work.steps[number].stages[0].stage
    rows, owners, parts, ids, failed = [], [], [], [], {}
    for line, document in place.documents(name):
        found = apply_stage.described(group, document, work.seconds)
        if isinstance(found, str):
            failed[line] = found
            continue
        rows.append(found)
        owners.append(np.full(len(found), line, np.uint32))
        parts.append(np.arange(len(found), dtype=np.uint32))
        ids.append(np.full(len(found), hashing.of_id(document.id), np.uint64))
    described = np.concatenate([np.zeros((0, group.size), np.uint8), *rows])
    keys = group.keys(described) if len(described) else np.zeros((0, 1), np.uint64)
    which = np.repeat(np.arange(len(keys), dtype=np.uint32), keys.shape[1])
    keys = keys.reshape(-1)
    ranked = np.argsort(keys, kind="stable")
    for what, array in {
        "described": described,
        "owners": np.concatenate([np.zeros(0, np.uint32), *owners]),
        "parts": np.concatenate([np.zeros(0, np.uint32), *parts]),
        "ids": np.concatenate([np.zeros(0, np.uint64), *ids]),
        "keys": keys[ranked],
        "which": which[ranked],
    }.items():
        shards.save(folder / f"{name}.{what}.npy", array)
    told = {"rows": len(described), "keys": len(keys), "failed": failed}
    shards.finish(folder, f"described-{name}", told)


def cut(work: Work, number: int, place: Place, name: str, first: int) -> None:
    """Takes out of a shard what matched: rows from number `first` on are its own."""
    folder, step = work.folder(number), work.steps[number]
    group, order = step.stages[0].stage, shard_order(name)
    (count,) = apply_stage.new_counts(step)
    taken = _taken(folder, name, first)

    def left() -> Iterator[Document]:
        for line, document in place.documents(name):
            new = apply_stage.cut(
                group, [*order, line], document, taken.get(line), count
            )
            if new is not None:
                yield new

    if group.cut:
        shards.write(folder, name, left())
    else:
        kept = [
            line
            for line, about in place.abouts(name)
            if apply_stage.kept([*order, line], about, taken.get(line), count)
        ]
        shards.save(folder / f"{name}.rows.npy", np.array(kept, np.uint32))
    shards.finish(folder, name, {"stages": [count]})


def _taken(
    folder: pathlib.Path, name: str, first: int
) -> dict[int, tuple[list[int], str]]:
    """Line to the parts that are taken out of it, and why."""
    owners = shards.load(folder / f"{name}.owners.npy")
    parts = shards.load(folder / f"{name}.parts.npy")
    later = shards.load(folder / "later.npy")
    low, high = np.searchsorted(later, [first, first + len(owners)])
    mine = (later[low:high] - np.uint64(first)).astype(np.int64).tolist()
    why = shards.load(folder / "reason.npy")[low:high].tolist()
    reasons = shards.counted(folder, "matched")["reasons"]
    taken: dict[int, tuple[list[int], str]] = {}
    for row, reason in zip(mine, why, strict=True):
        some, _ = taken.setdefault(int(owners[row]), ([], reasons[reason]))
        some.append(int(parts[row]))
    failed = shards.counted(folder, f"described-{name}")["failed"]
    return taken | {int(line): ([], reason) for line, reason in failed.items()}


def shard_order(name: str) -> list[int]:
    """[3, 0] of 00003-000: where a shard stands among all."""
    return [int(part) for part in name.split("-")]


def _filled(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in lists that are a shard each; at least one list."""
    waiting, size = [], 0
    for document in documents:
        waiting.append(document)
        size += len(document.text)
        if size >= _SHARD_BYTES:
            yield waiting
            waiting, size = [], 0
    yield waiting


class _Scores:
    """The scores of a shard by line, which only grow."""

    def __init__(self, folder: pathlib.Path, name: str):
        self._folder, self._name = folder, name
        known = shards.counted(folder, name) or {}
        self.found = {int(line): scores for line, scores in known.items()}
        self._new = False

    def add(self, line: int, scores: dict[str, float]) -> None:
        """A line's scores."""
        self.found[line] = scores
        self._new = True

    def write(self) -> None:
        """Puts them on disk, if there are new ones."""
        if self._new:
            files.make_folder(self._folder)
            ordered = {str(line): self.found[line] for line in sorted(self.found)}
            shards.finish(self._folder, self._name, ordered)


class _Ahead:
    """Documents by line, asked for in order, of which only some are read."""

    def __init__(self, documents: Iterator[tuple[int, Document]]):
        self._documents, self._held = documents, (-1, None)

    def at(self, line: int) -> Document:
        """The document of a line."""
        while self._held[0] < line:
            self._held = next(self._documents)
        return self._held[1]


def noted(skipped: dict[str, Any]) -> Skip:
    """A `skip` for a source, that fills {reason: {documents, examples}}."""

    def skip(reason: str, id: str) -> None:
        entry = skipped.setdefault(reason, {"documents": 0, "examples": []})
        entry["documents"] += 1
        if len(entry["examples"]) < EXAMPLES:
            entry["examples"].append(id)

    return skip


def both(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict:
    """What was skipped for one reason, in two parts of which one may be None."""
    if not first or not second:
        return first or second
    examples = [*first["examples"], *second["examples"]][:EXAMPLES]
    count = first["documents"] + second["documents"]
    return {"documents": count, "examples": examples}


def match(work: Work, number: int, names, firsts, share: int, of: int) -> None:
    """Finds what matches among a share of all keys."""
    group = work.steps[number].stages[0].stage
    group_match.match(group, work.folder(number), names, firsts, share, of)


# By name, as calls that go to other processes have it.
TASKS = {task.__name__: task for task in (read, change, tag, describe, match, cut)}
