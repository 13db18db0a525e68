"""What the three kinds of stage do to one document, and how a list of stages is cut.

Runners differ in where documents are and who works on them; what happens to a document,
and what is counted, is here. A document that a stage fails on, or that takes longer
than a limit, is dropped with that as the reason: one page never ends the run.
"""

import contextlib
import hashlib
import json
import pathlib
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import llm
from llm import registry
from llm.corpus import shards, stage_stats
from llm.document import Document, Group, Map, Stage, Tag
from llm.errors import InputError

NOTHING = "no text left"

Scores = dict[str, float]


class Named(NamedTuple):
    """A stage, the name of its file, and its knobs."""

    name: str
    knobs: Mapping[str, Any]
    stage: Stage


class Step(NamedTuple):
    """Stages that are done in one go: some Maps, some Tags, or one Group.

    Attributes:
      key: a hash of all that what it leaves depends on.
      scores: of Tags, for each a hash of all that its scores depend on.
    """

    stages: tuple[Named, ...]
    key: str
    scores: tuple[str, ...] = ()

    @property
    def kind(self) -> type:
        """Map, Tag or Group."""
        return type(self.stages[0].stage)

    @property
    def name(self) -> str:
        """What a person reads, and the beginning of the names of its folders."""
        return "+".join(named.name for named in self.stages)


def build(stages: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Named]:
    """The stages of (name, knobs); InputError for what they do not take."""
    made = []
    for name, given in stages:
        knobs = registry.knobs("stages", name) | dict(given)
        stage = registry.build("stages", {"name": name, **knobs})
        made.append(Named(name, knobs, stage))
    return made


def steps(stages: Sequence[Named], source: str) -> list[Step]:
    """The stages in as few steps as they allow.

    Args:
      source: a hash of all that the documents depend on.
    """
    cut: list[list[Named]] = []
    for named in stages:
        kind = type(named.stage)
        if cut and kind is not Group and type(cut[-1][0].stage) is kind:
            cut[-1].append(named)
        else:
            cut.append([named])
    made, key, texts = [], source, source
    for some in cut:
        key = hashed(key, [(named.name, _with_files(named.knobs)) for named in some])
        scores = ()
        if isinstance(some[0].stage, Tag):
            scores = tuple(_scores_key(texts, named) for named in some)
        elif isinstance(some[0].stage, Map) or some[0].stage.cut:
            texts = key
        made.append(Step(tuple(some), key, scores))
    return made


def hashed(*content: Any) -> str:
    """A hash of what JSON can hold, and of the version of this package."""
    text = json.dumps([llm.__version__, *content], sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _scores_key(texts: str, named: Named) -> str:
    reads = named.stage.reads
    knobs = named.knobs if reads is None else {n: named.knobs.get(n) for n in reads}
    return hashed(texts, named.name, _with_files(knobs))


def _with_files(knobs: Mapping[str, Any]) -> list[Any]:
    """Knobs, and of those that name files or folders, what these look like now."""
    paths = [
        pathlib.Path(value)
        for name, value in knobs.items()
        if name.rpartition("_")[2] == "path" and value
    ]
    found = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.exists()  # a link may lead nowhere
    ]
    stats = [(str(file), file.stat()) for file in found]
    return [knobs, [(name, s.st_size, s.st_mtime_ns) for name, s in stats]]


def new_counts(step: Step) -> list[dict[str, Any]]:
    """One count a stage."""
    return [stage_stats.new(named.name) for named in step.stages]


def mapped(
    step: Step, place: list[int], document: Document, counted, seconds: float
) -> list[Document]:
    """The documents that the Maps of a step make of one.

    Args:
      place: of the document among all, for examples.
      counted: the counts of the stages, which grow.
      seconds: that a stage may take; 0 is without limit.
    """
    held = [document]
    for named, count in zip(step.stages, counted, strict=True):
        made_of_all = []
        for one in held:
            before = shards.about(one)
            stage_stats.came(count, before["bytes"])
            try:
                with limited(seconds):
                    made, why = named.stage.apply(one), NOTHING
            except InputError:
                raise
            except Exception as error:
                made, why = [], failed(error)
            if not made:
                stage_stats.dropped(count, why, place, before)
            for new in made:
                stage_stats.left(count, before if new is one else shards.about(new))
            made_of_all += made
        held = made_of_all
    return held


def tagged(
    step: Step,
    place: list[int],
    about: Mapping[str, Any],
    known: Sequence[Scores | None],
    counted,
    score,
) -> tuple[bool, list[Scores | None]]:
    """Whether the Tags of a step keep a document, and its scores.

    Args:
      known: scores that were computed before, None where there are none.
      score: called with a stage that has no scores yet, gives them or why it fails.

    Returns:
      The scores by stage, None from where it was dropped on, unless they were known.
    """
    scores = list(known)
    for n, (named, count) in enumerate(zip(step.stages, counted, strict=True)):
        stage_stats.came(count, about["bytes"])
        if scores[n] is None:
            scores[n] = score(named.stage)
        if isinstance(scores[n], str):
            reason, scores[n] = scores[n], None
        else:
            stage_stats.scored(count, scores[n])
            reason = named.stage.decide(scores[n])
        if reason:
            stage_stats.dropped(count, reason, place, about)
            return False, scores
        stage_stats.left(count, about)
    return True, scores


def scored(stage: Tag, document: Document, seconds: float) -> Scores | str:
    """The scores of a document, or why there are none."""
    try:
        with limited(seconds):
            return stage.score(document)
    except InputError:
        raise
    except Exception as error:
        return failed(error)


def described(stage: Group, document: Document, seconds: float) -> np.ndarray | str:
    """The rows of a document, or why there are none."""
    try:
        with limited(seconds):
            return stage.rows(document)
    except InputError:
        raise
    except Exception as error:
        return failed(error)


Taken = tuple[Sequence[int], str]  # parts of a document, and why


def kept(
    place: list[int], about: Mapping[str, Any], taken: Taken | None, count
) -> bool:
    """Whether a Group without `cut` keeps a document."""
    stage_stats.came(count, about["bytes"])
    if taken:
        stage_stats.dropped(count, taken[1], place, about)
    else:
        stage_stats.left(count, about)
    return not taken


def cut(
    group: Group, place: list[int], document: Document, taken: Taken | None, count
) -> Document | None:
    """What a Group with `cut` leaves of a document, None for nothing."""
    about = shards.about(document)
    if not taken or not taken[0]:  # nothing matched, or nothing could be compared
        kept(place, about, taken, count)
        return None if taken else document
    parts, reason = taken
    stage_stats.came(count, about["bytes"])
    removed = count["removed"]
    removed[reason] = removed.get(reason, 0) + len(parts)
    left = group.cut(document, parts)
    if left is None:
        stage_stats.dropped(count, reason, place, about)
    else:
        stage_stats.left(count, shards.about(left))
    return left


def failed(error: Exception) -> str:
    """The reason for dropping a document that a stage failed on.

    Without what the error says, in which a part of the document may be.
    """
    if isinstance(error, _TooLong):
        return str(error)
    return f"the stage failed: {type(error).__name__}"


class _TooLong(Exception):
    pass


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what takes longer; only where Python can: in a main thread of Unix."""
    can = threading.current_thread() is threading.main_thread()
    if not seconds or not can or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number, frame):
        raise _TooLong(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
