"""The same stages on Apache Beam: here to try them, on Dataflow for a cluster's work.

    python -m llm.main --config=... --config.runner=beam \\
        --config.runner_options="('--runner=DataflowRunner', '--project=…', ...)"

Maps and Tags are ParDos; a Group is a GroupByKey on the keys of its rows, whose matches
come back to their documents by a CoGroupByKey. Every document bears its place, so that
matches, examples and the corpus are those of the local runner to the byte, which a test
shows. Workers read the files of the source themselves, at the paths of this machine: on
a cluster these lie on a file system that all mount (Filestore, a bucket by gcsfuse).
What the workers leave is brought to this machine, under --temp_location where one is
given; no step of it is kept for another run. Needs the extra `beam`, which wants an
older protobuf than others and so an environment of its own.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from llm import files, registry
from llm.corpus import apply_stage, group_match, shard_tasks, shards, stage_stats
from llm.corpus.file_reader import File
from llm.corpus.file_source import Files
from llm.corpus.runner import Result, Settings, parts_of
from llm.document import Document, Group, Map
from llm.errors import InputError
from llm.text import hashing

_INPUT_ERROR = re.compile(
    r"InputError: got (.*?); want (.*?)(?:; (.*?))?(?: \[while|$)"
)
_CHUNK = 4096  # documents of a part that are written in one file

# Elements are (place, document): a tuple that orders all documents, and what it orders.


def run(settings: Settings, options: Sequence[str] = ()) -> Result:
    """Runs the stages over the documents of the source.

    Args:
      options: flags of Beam, such as `--runner=DataflowRunner`.

    Raises:
      InputError: no package apache-beam, options that Beam does not take, or what the
        local runner would raise.
    """
    beam = _beam()
    from apache_beam.options import pipeline_options

    source = registry.build("sources", settings.source)
    parts, key, skipped = parts_of(source, settings.source, settings.depends)
    steps = apply_stage.steps(apply_stage.build(settings.stages), key)
    made = pipeline_options.PipelineOptions(list(options))
    known = made.get_all_options(drop_default=True)
    given = made.get_all_options(drop_default=True, retain_unknown_options=True)
    if unknown := sorted(set(given) - set(known)):
        raise InputError(
            got=f"runner_options --{', --'.join(unknown)}", want="flags of Apache Beam"
        )
    # What it infers of outputs with tags, it then refuses.
    made.view_as(pipeline_options.TypeOptions).pipeline_type_check = False
    temporary = made.view_as(pipeline_options.GoogleCloudOptions).temp_location
    name = f"beam-{apply_stage.hashed(key, [step.key for step in steps])}"
    root = f"{temporary.rstrip('/')}/{name}" if temporary else str(settings.root / name)
    try:
        pipeline = beam.Pipeline(options=made)
    except ValueError as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            got=f"runner_options {' '.join(options)} ({said})",
            want="a runner of Apache Beam, and what it asks for",
        ) from error
    try:
        with pipeline:
            _build(beam, pipeline, settings, parts, steps, root)
    except RuntimeError as error:
        # What a worker raises comes back as words.
        said = _INPUT_ERROR.search(str(error))
        if not said:
            raise
        raise InputError(*said.groups(default="")) from None
    return _gathered(settings.root / f"{name}-here", root, steps, skipped)


def _build(beam, pipeline, settings: Settings, parts, steps, root: str) -> None:
    """The whole graph; what comes out is in files below `root`."""
    do = _functions(beam, settings)
    read = (
        pipeline
        | "parts" >> beam.Create(list(enumerate(parts)))
        | "to all workers" >> beam.Reshuffle()
        | "read" >> beam.ParDo(do.Read()).with_outputs("told", main="documents")
    )
    first = (
        read.documents
        | "by id" >> beam.Map(lambda element: (element[1].id, element))
        | "of one id" >> beam.GroupByKey()
        | "once" >> beam.ParDo(do.Once()).with_outputs("told", main="documents")
    )
    told, documents = [read.told, first.told], first.documents
    for number, step in enumerate(steps):
        label = f"{number} {step.name}"
        if step.kind is Group:
            made = _grouped(beam, do, documents, number, label)
            told += made[1:]
            documents = made[0]
        else:
            one = do.Mapped(number) if step.kind is Map else do.Tagged(number)
            made = documents | label >> beam.ParDo(one).with_outputs(
                "told", main="left"
            )
            told.append(made.told)
            documents = made.left
    _ = (
        documents
        | "by chunk" >> beam.Map(lambda e: ((e[0][0], e[0][1] // _CHUNK), e))
        | "of one chunk" >> beam.GroupByKey()
        | "write" >> beam.ParDo(do.Write(root))
    )
    _ = (
        told
        | "all that is told" >> beam.Flatten()
        | "as JSON" >> beam.Map(json.dumps)
        | "write it" >> beam.io.WriteToText(f"{root}/told", ".jsonl")
    )


def _grouped(beam, do, documents, number: int, label: str) -> list:
    """[documents left, told, told]."""
    described = documents | f"{label}: describe" >> beam.ParDo(
        do.Described(number)
    ).with_outputs("failed", main="rows")
    matched = (
        described.rows
        | f"{label}: bring together" >> beam.GroupByKey()
        | f"{label}: match"
        >> beam.ParDo(do.Matched(number)).with_outputs("told", main="matches")
    )
    taken = (matched.matches, described.failed) | f"{label}: taken" >> beam.Flatten()
    left = (
        {"document": documents, "taken": taken}
        | f"{label}: to documents" >> beam.CoGroupByKey()
        | f"{label}: decide"
        >> beam.ParDo(do.Cut(number)).with_outputs("told", main="left")
    )
    return [left.left, matched.told, left.told]


def _functions(beam, settings: Settings):
    """The DoFns, which are classes of a package that is imported here only."""
    from apache_beam.transforms.window import GlobalWindow
    from apache_beam.utils.windowed_value import WindowedValue

    class Stage(beam.DoFn):
        """Builds its step in the worker, and tells counts at the end of a bundle."""

        def __init__(self, number: int):
            self._number = number

        def setup(self):
            """Builds the step."""
            stages = apply_stage.build(settings.stages)
            self.step = apply_stage.steps(stages, "")[self._number]
            self.group = self.step.stages[0].stage

        def start_bundle(self):
            """Counts from nothing."""
            self.counted = apply_stage.new_counts(self.step)

        def finish_bundle(self):
            """Tells what was counted."""
            told = ["counts", self._number, self.counted]
            value = WindowedValue(
                told, GlobalWindow().max_timestamp(), [GlobalWindow()]
            )
            yield beam.pvalue.TaggedOutput("told", value)

    class Read(beam.DoFn):
        """A part of the source to its documents."""

        def process(self, element):
            """(number, files) to documents with their places."""
            part, some_files = element
            source, skipped = registry.build("sources", settings.source), {}
            skip, raw, index, digest = shard_tasks.noted(skipped), 0, -1, 0
            if some_files is None:
                documents = source(skip)
            else:
                assert isinstance(source, Files)
                some = [File(pathlib.Path(path), *rest) for path, *rest in some_files]
                documents = (d for d in source.read(some, skip) if d is not None)
            for index, document in enumerate(documents):
                raw += document.raw_bytes
                digest += hashing.of_document(document)
                yield (part, index), document
            given = {"documents": index + 1, "raw_bytes": raw, "digest": digest}
            yield beam.pvalue.TaggedOutput("told", ["read", part, skipped, given])

    class Once(beam.DoFn):
        """The first of the documents with one id."""

        def process(self, element):
            """(id, documents) to one of them."""
            first, *others = sorted(element[1], key=_place)
            yield first
            for place, document in others:
                told = ["twice", place, document.id, document.raw_bytes]
                yield beam.pvalue.TaggedOutput("told", told)

    class Mapped(Stage):
        """What the Maps of a step make of a document."""

        def process(self, element):
            """A document to those that are made of it."""
            place, document = element
            made = apply_stage.mapped(
                self.step, list(place), document, self.counted, settings.seconds
            )
            for number, one in enumerate(made):
                yield (*place, number), one

    class Tagged(Stage):
        """The documents that the Tags of a step keep."""

        def process(self, element):
            """A document to itself or nothing."""
            place, document = element
            known = [None] * len(self.step.stages)
            keep, _ = apply_stage.tagged(
                self.step, list(place), shards.about(document), known, self.counted,
                lambda stage: apply_stage.scored(stage, document, settings.seconds),
            )  # fmt: skip
            if keep:
                yield element

    class Described(Stage):
        """The rows of a document by key."""

        def process(self, element):
            """A document to (key, row with where it comes from)."""
            place, document = element
            rows = apply_stage.described(self.group, document, settings.seconds)
            if isinstance(rows, str):
                yield beam.pvalue.TaggedOutput("failed", (place, (-1, (), rows)))
                return
            keys = self.group.keys(rows) if len(rows) else rows
            about = shards.about(document)
            named = (document.id, stage_stats.called(about), about["head"])
            for part, (row, own) in enumerate(zip(rows, keys, strict=True)):
                held = ((place, part), row.tobytes(), *named)
                for key in {int(key) for key in own}:
                    yield key, held

        def finish_bundle(self):
            """Nothing is counted here."""

    class Matched(Stage):
        """The matches of a bucket."""

        def process(self, element):
            """(key, rows) to (place of the later document, (part, earlier, reason))."""
            held = sorted(element[1], key=_place)
            if len(held) < 2:
                return
            rows = np.frombuffer(b"".join(h[1] for h in held), np.uint8)
            for match in self.group.reduce(rows.reshape(len(held), -1)):
                later, earlier = held[match.later], held[match.earlier]
                place, part = later[0]
                yield place, (part, earlier[0], match.reason)
                ends = [[*h[0], *h[2:]] for h in (later, earlier)]
                told = ["match", self._number, *ends, match.reason]
                yield beam.pvalue.TaggedOutput("told", told)

        def finish_bundle(self):
            """Nothing is counted here."""

    class Cut(Stage):
        """What a Group leaves of a document."""

        def process(self, element):
            """(place, document and what is taken out of it) to the rest."""
            place, found = element
            (document,) = found["document"]
            first: dict[int, Any] = {}
            for part, *why in found["taken"]:
                if why[1] and (part not in first or why < first[part]):
                    first[part] = why
            taken = None
            if first:
                least = min(first)
                parts = [] if least < 0 else sorted(first)
                taken = (parts, first[least][1])
            order, (count,) = list(place), self.counted
            if self.group.cut:
                left = apply_stage.cut(self.group, order, document, taken, count)
                if left is not None:
                    yield place, left
            elif apply_stage.kept(order, shards.about(document), taken, count):
                yield place, document

    class Write(beam.DoFn):
        """Documents to a file that names the place of its first."""

        def __init__(self, root: str):
            self._root = root

        def process(self, element):
            """Writes a chunk."""
            from apache_beam.io.filesystems import FileSystems

            (part, chunk), documents = element
            with FileSystems.create(
                f"{self._root}/documents-{part:05d}-{chunk:05d}.jsonl"
            ) as file:
                for _, document in sorted(documents, key=_place):
                    line = shards.line([document.text, shards.about(document)])
                    file.write(line)

    return _Functions(Read, Once, Mapped, Tagged, Described, Matched, Cut, Write)


class _Functions:
    def __init__(self, *classes):
        for one in classes:
            setattr(self, one.__name__, one)


def _place(element) -> Any:
    return element[0]


def _gathered(folder: pathlib.Path, root: str, steps, skipped) -> Result:
    """Brings here what the workers wrote."""
    files.make_folder(folder)
    names = []
    for path in _found(root, "documents-*"):
        names.append(path.rpartition("documents-")[2].removesuffix(".jsonl"))
        shards.write(folder, names[-1], _documents(path))
    read, twice = {}, []
    counted = [apply_stage.new_counts(step) for step in steps]
    matches: dict[int, list] = {}
    for path in _found(root, "told*"):
        for line in _lines(path):
            kind, *told = json.loads(line)
            if kind == "read":
                read[told[0]] = told[1:]
            elif kind == "twice":
                twice.append(told)
            elif kind == "match":
                matches.setdefault(told[0], []).append(told[1:])
            else:
                number, parts = told
                both = zip(counted[number], parts, strict=True)
                counted[number] = [stage_stats.merged(a, b) for a, b in both]
    given, skipped = {"documents": 0, "raw_bytes": 0, "digest": 0}, dict(skipped)
    for _, (left_out, some) in sorted(read.items()):
        skipped = {
            reason: shard_tasks.both(skipped.get(reason), left_out.get(reason))
            for reason in {**skipped, **left_out}
        }
        given = {name: given[name] + some[name] for name in given}
    given["digest"] %= 2**128
    for _, id, raw in sorted(twice):
        entry = {"documents": 1, "examples": [id]}
        skipped["id seen before"] = shard_tasks.both(
            skipped.get("id seen before"), entry
        )
        given["documents"] -= 1
        given["raw_bytes"] -= raw
    told, links = [], [np.zeros((2, 0), np.uint64)]
    for number, step in enumerate(steps):
        about = {}
        if step.kind is Group:
            about, linked = _clusters(step.stages[0].stage, matches.get(number, []))
            links.append(linked)
        told += [stage_stats.told(count) | about for count in counted[number]]
    links = np.concatenate(links, axis=1)
    return Result(shards.Place(folder), tuple(names), links, told, skipped, given)


def _clusters(group: Group, matches) -> tuple[dict[str, Any], np.ndarray]:
    """What the report says of a Group, and the links."""
    taken = [match for match in matches if match[2]]
    linked = matches if group.cut is None else [m for m in matches if not m[2]]
    links = np.array(
        [[hashing.of_id(m[n][2]) for m in linked] for n in (1, 0)], np.uint64
    ).reshape(2, -1)
    heads = {_row(end): end[3:] for match in taken for end in match[:2]}
    numbers = {row: n for n, row in enumerate(sorted(heads))}
    ends = np.array(
        [[numbers[_row(m[n])] for m in taken] for n in (0, 1)], np.int64
    ).reshape(2, -1)
    count, largest = group_match.clusters(*ends)
    rows = sorted(heads)
    told = [[size, *heads[rows[number]]] for size, number in largest]
    return {"clusters": count, "largest": told}, np.unique(links, axis=1)


def _row(end: list) -> tuple:
    return (*end[0], end[1])


def _found(root: str, pattern: str) -> list[str]:
    from apache_beam.io.filesystems import FileSystems

    (found,) = FileSystems.match([f"{root}/{pattern}"])
    return sorted(metadata.path for metadata in found.metadata_list)


def _lines(path: str) -> Iterator[str]:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as file:
        rest = b""
        while part := file.read(1 << 20):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "surrogatepass")


def _documents(path: str) -> Iterable[Document]:
    for line in _lines(path):
        text, about = json.loads(line)
        yield shards.document(text, about)


def _beam():
    try:
        import apache_beam
    except ModuleNotFoundError as error:
        raise InputError(
            got="--config.runner=beam without the package apache-beam",
            want="the extra `beam`, in an environment of its own",
            do="pip install -e .[beam], or take --config.runner=local",
        ) from error
    return apache_beam
