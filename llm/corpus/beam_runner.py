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
from llm.corpus import apply_stage, group_match, shard_tasks, shards
from llm.corpus.runner import Result, Settings, parts_of
from llm.document import Document, Group, Map
from llm.errors import InputError
from llm.text import hashing

_INPUT_ERROR = re.compile(
    r"InputError: got (.*?); want (.*?)(?:; (.*?))?(?: \[while|$)"
)
_CHUNK = 4096  # documents of a part that are written in one file


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
    from llm.corpus import beam_functions as do

    read = (
        pipeline
        | "parts" >> beam.Create(list(enumerate(parts)))
        | "to all workers" >> beam.Reshuffle()
        | "read" >> beam.ParDo(do.Read(settings)).with_outputs("told", main="documents")
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
            made = _grouped(beam, settings, documents, number, label)
            told += made[1:]
            documents = made[0]
        else:
            one = (do.Mapped if step.kind is Map else do.Tagged)(settings, number)
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


def _grouped(beam, settings, documents, number: int, label: str) -> list:
    """[documents left, told, told]."""
    from llm.corpus import beam_functions as do

    described = documents | f"{label}: describe" >> beam.ParDo(
        do.Described(settings, number)
    ).with_outputs("failed", main="rows")
    matched = (
        described.rows
        | f"{label}: bring together" >> beam.GroupByKey()
        | f"{label}: match"
        >> beam.ParDo(do.Matched(settings, number)).with_outputs("told", main="matches")
    )
    taken = (matched.matches, described.failed) | f"{label}: taken" >> beam.Flatten()
    left = (
        {"document": documents, "taken": taken}
        | f"{label}: to documents" >> beam.CoGroupByKey()
        | f"{label}: decide"
        >> beam.ParDo(do.Cut(settings, number)).with_outputs("told", main="left")
    )
    return [left.left, matched.told, left.told]


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
                counted[number] = [apply_stage.merged(a, b) for a, b in both]
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
        told += [apply_stage.report(count) | about for count in counted[number]]
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
