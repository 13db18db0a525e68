"""What the three kinds of stage do to one document, and how a list of stages is cut.

Runners differ in where documents are and who works on them; what happens to a document,
and what is counted, is here. A document that a stage fails on, or that takes longer
than a limit, is dropped with that as the reason: one page never ends the run.

A count is plain JSON, and parts add up to the same in any order. Examples bear the
place of their document, so that of many parts the first three stay; of scores it has
how many texts have about which, in two digits, since sums of fractions depend on their
order.
"""

import contextlib
import hashlib
import json
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import llm
from llm import registry
from llm.corpus import shards
from llm.document import Document, Group, Map, Stage, Tag
from llm.errors import InputError

NOTHING = "no text left"
_SUMS = ("documents_in", "documents_out", "bytes_in", "bytes_out")
_EXAMPLES = 3  # documents shown for each reason of a drop
_NAMES = 200  # scores of a stage that are told apart, such as items of an examination

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
    return [_new(named.name) for named in step.stages]


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
            _count_in(count, before["bytes"])
            made = _attempt(named.stage.apply, one, seconds)
            made, why = ([], made) if isinstance(made, str) else (made, NOTHING)
            if not made:
                _count_drop(count, why, place, before)
            for new in made:
                _count_out(count, before if new is one else shards.about(new))
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
        _count_in(count, about["bytes"])
        if scores[n] is None:
            scores[n] = score(named.stage)
        if isinstance(scores[n], str):
            reason, scores[n] = scores[n], None
        else:
            _count_scores(count, scores[n])
            reason = named.stage.decide(scores[n])
        if reason:
            _count_drop(count, reason, place, about)
            return False, scores
        _count_out(count, about)
    return True, scores


def scored(stage: Tag, document: Document, seconds: float) -> Scores | str:
    """The scores of a document, or why there are none."""
    return _attempt(stage.score, document, seconds)


def described(stage: Group, document: Document, seconds: float) -> np.ndarray | str:
    """The rows of a document, or why there are none."""
    return _attempt(stage.rows, document, seconds)


Taken = tuple[Sequence[int], str]  # parts of a document, and why


def kept(
    place: list[int], about: Mapping[str, Any], taken: Taken | None, count
) -> bool:
    """Whether a Group without `cut` keeps a document."""
    _count_in(count, about["bytes"])
    if taken:
        _count_drop(count, taken[1], place, about)
    else:
        _count_out(count, about)
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
    _count_in(count, about["bytes"])
    removed = count["removed"]
    removed[reason] = removed.get(reason, 0) + len(parts)
    left = group.cut(document, parts)
    if left is None:
        _count_drop(count, reason, place, about)
    else:
        _count_out(count, shards.about(left))
    return left


def _attempt(
    function: Callable[[Document], Any], document: Document, seconds: float
) -> Any:
    """What a stage makes of a document, or the reason for dropping it, a text.

    The reason is without what the error says, in which a part of the document may be.
    """
    try:
        with limited(seconds):
            return function(document)
    except InputError:
        raise
    except _TooLong as error:
        return str(error)
    except Exception as error:
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


def _new(name: str) -> dict[str, Any]:
    """Nothing yet, of the stage `name`."""
    trees = ("dropped", "removed", "kept", "scores")
    return {"name": name, **dict.fromkeys(_SUMS, 0), **{tree: {} for tree in trees}}


def _count_in(count: dict[str, Any], size: int) -> None:
    """A document of so many bytes comes to the stage."""
    count["documents_in"] += 1
    count["bytes_in"] += size


def _count_out(count: dict[str, Any], about: Mapping[str, Any]) -> None:
    """A document leaves the stage."""
    count["documents_out"] += 1
    count["bytes_out"] += about["bytes"]
    language = str(about["meta"].get("language", ""))
    kept = count["kept"].setdefault(about["source"], {}).setdefault(language, [0, 0])
    kept[0] += 1
    kept[1] += about["bytes"]


def _count_drop(
    count: dict[str, Any], reason: str, place: list[int], about: Mapping[str, Any]
) -> None:
    """A document ends here, of which `place` says the order among all."""
    nothing = {"documents": 0, "bytes": 0, "examples": []}
    entry = count["dropped"].setdefault(reason, nothing)
    entry["documents"] += 1
    entry["bytes"] += about["bytes"]
    if len(entry["examples"]) < _EXAMPLES or place < entry["examples"][-1][0]:
        entry["examples"].append([place, display_name(about), about["head"]])
        entry["examples"] = sorted(entry["examples"])[:_EXAMPLES]


def display_name(about: Mapping[str, Any]) -> str:
    """What a person knows a document by: its address, else its id."""
    return str(about["meta"].get("url") or about["id"])


def _count_scores(count: dict[str, Any], scores: Mapping[str, float]) -> None:
    """What a document scored."""
    for name, score in scores.items():
        texts = count["scores"].setdefault(name, {})
        about = f"{score:.2g}"
        texts[about] = texts.get(about, 0) + 1


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both together."""
    dropped = {}
    for reason in sorted({*first["dropped"], *second["dropped"]}):
        parts = [
            c["dropped"][reason] for c in (first, second) if reason in c["dropped"]
        ]
        examples = sorted(example for part in parts for example in part["examples"])
        dropped[reason] = {
            "documents": sum(part["documents"] for part in parts),
            "bytes": sum(part["bytes"] for part in parts),
            "examples": examples[:_EXAMPLES],
        }
    return {
        "name": first["name"],
        **{name: first[name] + second[name] for name in _SUMS},
        "dropped": dropped,
        "removed": _added(first["removed"], second["removed"]),
        "kept": _added(first["kept"], second["kept"]),
        "scores": _added(first["scores"], second["scores"]),
    }


def report(count: dict[str, Any]) -> dict[str, Any]:
    """As a report has it: examples are (id, beginning), scores their quantiles.

    `scored` says how many scores there are in all; those of most texts are told.
    """
    dropped = {
        reason: entry | {"examples": [example[1:] for example in entry["examples"]]}
        for reason, entry in count["dropped"].items()
    }
    most = sorted(count["scores"], key=lambda n: (-sum(count["scores"][n].values()), n))
    scores = {name: _quantiles(count["scores"][name]) for name in most[:_NAMES]}
    return count | {"dropped": dropped, "scores": scores, "scored": len(most)}


def _added(first, second):
    """Trees of numbers and of lists of numbers, leaf by leaf."""
    if isinstance(first, dict):
        names = sorted({*first, *second})
        return {
            name: _added(first[name], second[name])
            if name in first and name in second
            else first.get(name, second.get(name))
            for name in names
        }
    if isinstance(first, list):
        return [a + b for a, b in zip(first, second, strict=True)]
    return first + second


def _quantiles(texts: Mapping[str, int]) -> dict[str, float]:
    """Documents, and what a tenth, half and nine tenths of them score at most."""
    ranked = sorted((float(about), count) for about, count in texts.items())
    whole, found, seen = sum(texts.values()), {}, 0
    shares = [("10%", 0.1), ("50%", 0.5), ("90%", 0.9), ("most", 1.0)]
    for value, count in ranked:
        seen += count
        while shares and seen >= shares[0][1] * whole:
            found[shares.pop(0)[0]] = value
    return {"documents": whole, **found}
