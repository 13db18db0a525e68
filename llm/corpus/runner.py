"""Runs a source and stages in processes of this machine, and goes on after any end.

The documents lie in shards (`shards.py`); a step does one task for each of them
(`shard_tasks.py`), and whatever is whole is kept, in folders that are named after all
they depend on. So the same call goes on where an earlier one ended, and one with
another threshold takes the scores that are there. Memory is that of a shard a process,
of 24 bytes a document, and of 24 bytes for each match of a Group.
"""

import concurrent.futures
import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm import files, registry, units
from llm.corpus import apply_stage, group_match, shard_tasks, shards
from llm.corpus.file_source import in_parts
from llm.corpus.shards import Place
from llm.corpus.workers import pool
from llm.document import Document, Group, Map, Source

# Called with what a person reads and, by marker, calls: the name of a function of
# `shard_tasks.py` and its arguments.
Do = Callable[[str, Mapping[str, tuple]], None]

_PROGRESS_SECONDS = 10.0  # between lines
_work: list[shard_tasks.Work] = []  # of this process, if it is one of several


class Settings(NamedTuple):
    """What a process needs to do tasks.

    Attributes:
      root: the folder of all steps.
      source: a spec, as `registry.build` takes it.
      stages: (name, knobs) of each.
      seconds: that a stage may take for a document; 0 is without limit.
      depends: what the documents depend on beside the source, such as a version.
    """

    root: pathlib.Path
    source: Mapping[str, Any]
    stages: Sequence[tuple[str, Mapping[str, Any]]]
    seconds: float = 60.0
    depends: str = ""


class Result(NamedTuple):
    """What is left.

    Attributes:
      place: where the documents are.
      names: of their shards, in order.
      links: uint64 [2, links]: ids, as `digests.of_id` gives them, of documents that
        must end on one side of a split; some may be of dropped ones that stand between
        two survivors.
      counts: one entry a stage, as `apply_stage.report` has it; of a Group with its
        `clusters` and the `largest`, (size, name, beginning).
      skipped: {reason: {documents, examples}} of what the source left out.
      given: documents, raw_bytes: of what it gave; digest: of all that was read.
    """

    place: Place
    names: tuple[str, ...]
    links: np.ndarray
    counts: list[dict[str, Any]]
    skipped: dict[str, Any]
    given: dict[str, int]

    def documents(self) -> Iterator[Document]:
        """The documents, in order."""
        for name in self.names:
            for _, document in self.place.documents(name):
                yield document

    def abouts(self) -> Iterator[dict[str, Any]]:
        """All but their texts, in order."""
        for name in self.names:
            for _, about in self.place.abouts(name):
                yield about


def run(settings: Settings, processes: int = 1) -> Result:
    """Runs the stages over the documents of the source.

    Raises:
      InputError: a bad source or stage, no documents, a disk that refuses, or a process
        that was ended.
    """
    source = registry.build("sources", settings.source)
    parts, key, skipped = parts_of(source, settings.source, settings.depends)
    stages = apply_stage.build(settings.stages)
    work = make_work(settings.root, source, key, stages, settings.seconds)
    if processes == 1:
        return through(work, parts, skipped)
    with spread(processes, work, functools.partial(_made, settings, key)) as do:
        return through(work, parts, skipped, do)


def make_work(
    root: pathlib.Path,
    source: Source,
    key: str,
    stages: Sequence[apply_stage.Named],
    seconds: float = 0.0,
) -> shard_tasks.Work:
    """What every task knows; `key` is a hash of all that the documents depend on."""
    return shard_tasks.Work(root, source, key, apply_stage.steps(stages, key), seconds)


def through(
    work: shard_tasks.Work,
    parts: Sequence[Any] = (None,),
    skipped: Mapping[str, Any] | None = None,
    do: Do | None = None,
) -> Result:
    """Does all steps.

    Args:
      parts: of the source, as `shard_tasks.read` takes them.
      skipped: what listing the parts left out.
      do: does tasks; one after the other in this process if there is none.
    """
    do = do or here(work)
    names, skipped, given = _read(work, parts, skipped or {}, do)
    place, twice = _once(work, names)
    if twice["documents"]:
        skipped["id seen before"] = shard_tasks.both(
            skipped.get("id seen before"), twice
        )
        given["documents"] -= twice["documents"]
        given["raw_bytes"] -= twice.pop("raw_bytes")
    told, links = [], [np.zeros((2, 0), np.uint64)]
    for number, step in enumerate(work.steps):
        folder, about = _folder(work, number), {}
        if step.kind is Group:
            about = _matched(work, number, place, names, do)
            links.append(np.asarray(shards.load(folder / "links.npy")))
            changes = step.stages[0].stage.cut is not None
        else:
            changes = step.kind is Map
            task = "change" if changes else "tag"
            calls = {name: (task, number, place, name) for name in names}
            do(step.name, _missing(folder, calls))
        place = Place(folder) if changes else Place(place.texts, folder)
        told += [count | about for count in _told(folder, names, step)]
    links = np.concatenate(links, axis=1)
    return Result(place, tuple(names), links, told, skipped, given)


def _made(settings: Settings, key: str) -> shard_tasks.Work:
    """The same in another process."""
    source = registry.build("sources", settings.source)
    stages = apply_stage.build(settings.stages)
    return make_work(settings.root, source, key, stages, settings.seconds)


def _folder(work: shard_tasks.Work, number: int) -> pathlib.Path:
    return pathlib.Path(files.make_folder(work.folder(number)))


def _missing(folder: pathlib.Path, calls: Mapping[str, Any]) -> dict[str, Any]:
    """Those calls whose markers are not there; by its marker each is known."""
    return {m: call for m, call in calls.items() if shards.counted(folder, m) is None}


def parts_of(source: Source, spec, depends) -> tuple[list[Any], str, dict[str, Any]]:
    """The parts that are read in one go, the key of them all, and what was skipped."""
    skipped: dict[str, Any] = {}
    parts, seen = in_parts(source).parts(shard_tasks.noted(skipped))
    return parts, apply_stage.hashed(spec, depends, *seen), skipped


def _read(work: shard_tasks.Work, parts, skipped, do: Do):
    """(names of the shards, what was skipped, documents and bytes)."""
    folder = _folder(work, -1)
    calls = {f"part-{n:05d}": ("read", n, part) for n, part in enumerate(parts)}
    do("reading", _missing(folder, calls))
    names, skipped = [], dict(skipped)
    given = {"documents": 0, "raw_bytes": 0, "digest": 0}
    for marker in calls:
        made = shards.counted(folder, marker)
        names += made["shards"]
        given["raw_bytes"] += made["given"]["raw_bytes"]
        given["digest"] = (given["digest"] + made["given"]["digest"]) % 2**128
        for reason, entry in made["skipped"].items():
            skipped[reason] = shard_tasks.both(skipped.get(reason), entry)
    for name in names:
        given["documents"] += shards.counted(folder, name)["documents"]
    return names, skipped, given


def _once(work: shard_tasks.Work, names: Sequence[str]) -> tuple[Place, dict[str, Any]]:
    """The documents with an id that none before them has, and the others counted."""
    texts = work.folder(-1)
    ids = [shards.load(texts / f"{name}.ids.npy") for name in names]
    whole = np.concatenate([np.zeros(0, np.uint64), *ids])
    twice = {"documents": 0, "raw_bytes": 0, "examples": []}
    first = np.zeros(len(whole), bool)
    first[np.unique(whole, return_index=True)[1]] = True
    if first.all():
        return Place(texts), twice
    folder = pathlib.Path(files.make_folder(work.root / f"once-{work.key}"))
    start = 0
    for name, some in zip(names, ids, strict=True):
        mine = first[start : start + len(some)]
        start += len(some)
        shards.save(folder / f"{name}.rows.npy", np.flatnonzero(mine).astype(np.uint32))
        if mine.all():
            continue
        for line, about in Place(texts).abouts(name):
            if not mine[line]:
                twice["documents"] += 1
                twice["raw_bytes"] += about["raw_bytes"]
                if len(twice["examples"]) < shard_tasks.EXAMPLES:
                    twice["examples"].append(about["id"])
    return Place(texts, folder), twice


def _matched(work: shard_tasks.Work, number: int, place: Place, names, do: Do):
    """Does the step of a Group; what the report says of it beside the counts."""
    folder, step = work.folder(number), work.steps[number]
    group = step.stages[0].stage
    calls = {f"described-{n}": ("describe", number, place, n) for n in names}
    do(f"{step.name}, describing", _missing(folder, calls))
    found = [shards.counted(folder, marker) for marker in calls]
    firsts = np.cumsum([0, *(f["rows"] for f in found)])[:-1].tolist()
    of = group_match.shares(sum(f["keys"] for f in found))
    calls = {
        f"share-{n:05d}": ("match", number, tuple(names), firsts, n, of)
        for n in range(of)
    }
    do(f"{step.name}, matching", _missing(folder, calls))
    told = shards.counted(folder, "matched")
    if told is None:
        told = group_match.gather(folder, names, firsts, of, group.cut is None)
    calls = {
        name: ("cut", number, place, name, first)
        for name, first in zip(names, firsts, strict=True)
    }
    do(f"{step.name}, deciding", _missing(folder, calls))
    largest = []
    for size, shard, line in told["largest"]:
        about = next(a for n, a in place.abouts(names[shard]) if n == line)
        largest.append([size, apply_stage.display_name(about), about["head"]])
    return {"clusters": told["clusters"], "largest": largest}


def _told(folder: pathlib.Path, names, step: apply_stage.Step) -> list[dict[str, Any]]:
    whole = apply_stage.new_counts(step)
    for name in names:
        parts = shards.counted(folder, name)["stages"]
        whole = [apply_stage.merged(a, b) for a, b in zip(whole, parts, strict=True)]
    return [apply_stage.report(count) for count in whole]


def here(work: shard_tasks.Work) -> Do:
    """Does one task after the other."""

    def do(what: str, calls: Mapping[str, tuple]) -> None:
        progress = _Progress(what, len(calls))
        for name, *arguments in calls.values():
            shard_tasks.TASKS[name](work, *arguments)
            progress.add()

    return do


@contextlib.contextmanager
def spread(
    count: int, work: shard_tasks.Work, make: Callable[[], shard_tasks.Work]
) -> Iterator[Do]:
    """Does tasks in so many processes, each of which makes the work anew.

    One task alone is done here, so that little work begins no process.

    Raises:
      InputError: what a task raises.
      MachineError: a process that was ended.
    """

    def do(what: str, calls: Mapping[str, tuple]) -> None:
        if len(calls) < 2:
            here(work)(what, calls)
            return
        progress = _Progress(what, len(calls))
        waiting = [begun.submit(_do, *call) for call in calls.values()]
        for done in concurrent.futures.as_completed(waiting):
            done.result()
            progress.add()

    with pool(count, functools.partial(_set_work, make)) as begun:
        yield do


def _set_work(make: Callable[[], shard_tasks.Work]) -> None:
    _work.append(make())


def _do(name: str, *arguments: Any) -> None:
    shard_tasks.TASKS[name](_work[0], *arguments)


class _Progress:
    """A line now and then: how many tasks are done, and how long the others take."""

    def __init__(self, what: str, total: int):
        self._what, self._total, self._done = what, total, 0
        self._begun = self._said = time.monotonic()

    def add(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < _PROGRESS_SECONDS or self._done >= self._total:
            return
        self._said = now
        rate = self._done / (now - self._begun)
        left = units.duration((self._total - self._done) / rate)
        print(
            f"{self._what}: {self._done} of {self._total} shards, {rate:.2g} a second, "
            f"{left} left",
            flush=True,
        )
