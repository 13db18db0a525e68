"""What Beam's workers do to an element: the DoFns of `beam_runner.py`.

They are classes of the package apache_beam, which this file imports: only a pipeline
imports it. Elements are (place, document): a tuple that orders all documents, and what
it orders.
"""

from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from llm import registry
from llm.corpus import apply_stage, shard_tasks, shards
from llm.corpus.file_source import in_parts
from llm.corpus.runner import Settings
from llm.text import hashing


class Stage(beam.DoFn):
    """Builds its step in the worker, and tells counts at the end of a bundle."""

    def __init__(self, settings: Settings, number: int):
        self._settings, self._number = settings, number

    def setup(self):
        """Builds the step."""
        stages = apply_stage.build(self._settings.stages)
        self.step = apply_stage.steps(stages, "")[self._number]
        self.group = self.step.stages[0].stage

    def start_bundle(self):
        """Counts from nothing."""
        self.counted = apply_stage.new_counts(self.step)

    def finish_bundle(self):
        """Tells what was counted."""
        told = ["counts", self._number, self.counted]
        value = WindowedValue(told, GlobalWindow().max_timestamp(), [GlobalWindow()])
        yield beam.pvalue.TaggedOutput("told", value)


class Read(beam.DoFn):
    """A part of the source to its documents."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def process(self, element):
        """(number, files) to documents with their places."""
        part, some_files = element
        source, skipped = registry.build("sources", self._settings.source), {}
        skip, raw, index, digest = shard_tasks.noted(skipped), 0, -1, 0
        documents = in_parts(source).read_part(some_files, skip)
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
            self.step, list(place), document, self.counted, self._settings.seconds
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
            lambda stage: apply_stage.scored(stage, document, self._settings.seconds),
        )  # fmt: skip
        if keep:
            yield element


class Described(Stage):
    """The rows of a document by key."""

    def process(self, element):
        """A document to (key, row with where it comes from)."""
        place, document = element
        rows = apply_stage.described(self.group, document, self._settings.seconds)
        if isinstance(rows, str):
            yield beam.pvalue.TaggedOutput("failed", (place, (-1, (), rows)))
            return
        keys = self.group.keys(rows) if len(rows) else rows
        about = shards.about(document)
        named = (document.id, apply_stage.display_name(about), about["head"])
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
        (part, chunk), documents = element
        with FileSystems.create(
            f"{self._root}/documents-{part:05d}-{chunk:05d}.jsonl"
        ) as file:
            for _, document in sorted(documents, key=_place):
                line = shards.line([document.text, shards.about(document)])
                file.write(line)


def _place(element) -> Any:
    return element[0]
