"""What the tests of the data path share: a small config, and the library read once."""

import contextlib
import functools
import pathlib
import tempfile
from typing import NamedTuple

from ml_collections import ConfigDict

from llm import registry
from llm.corpus import apply_stage, runner
from llm.corpus import split as splits
from llm.sources import stdlib
from llm.text import hashing

STAGES = ("normalise", "generated", "exact_dedup", "minhash")


@functools.cache
def library():
    """All documents of the source `stdlib`, and the (reason, id) that it skipped."""
    skipped = []
    return tuple(stdlib.make()(lambda *skip: skipped.append(skip))), tuple(skipped)


@contextlib.contextmanager
def folder():
    """A folder that goes again."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


class Left(NamedTuple):
    """What stages leave: documents, linked pairs of ids, counts."""

    documents: list
    links: list
    counts: list


def through(stages, documents) -> Left:
    """Runs (name, stage) pairs over documents, as one shard."""
    documents = list(documents)
    named = [apply_stage.Named(name, {}, stage) for name, stage in stages]
    with folder() as root:
        work = runner.make_work(root, lambda skip: iter(documents), "key", named)
        result = runner.through(work)
        ids = {hashing.of_id(document.id): document.id for document in documents}
        links = sorted((ids[a], ids[b]) for a, b in result.links.T.tolist())
        return Left(list(result.documents()), links, result.counts)


def split(documents, links=(), **shares) -> dict:
    """Documents of each split, in their order."""
    rows = [(d.id, d.group, len(d.text.encode())) for d in documents]
    side = splits.sides(rows, links=links, **shares)
    return {
        name: [d for d in documents if side[d.group] == name] for name in splits.SPLITS
    }


def make(source="stdlib", **knobs) -> ConfigDict:
    """A config over a source with the given knobs."""
    if source == "stdlib":
        knobs = {"max_documents": 60} | knobs
    stage = {name: registry.spec("stages", name) for name in STAGES}
    for entry in stage.values():
        del entry["name"]
    return ConfigDict(
        {
            "workload": "prepare_data",
            "seed": 0,
            "runner": "local",
            "runner_options": (),
            "data": {
                "corpus_dir": "",
                "source": registry.spec("sources", source, **knobs),
                "stages": STAGES,
                "stage": stage,
                "processes": 1,
                "seconds": 0.0,
                "work_dir": "",
                "validation_fraction": 0.1,
                "test_fraction": 0.1,
            },
            "tokenizer": {
                "vocab_size": 512,
                "kind": "bpe",
                "lowercase": False,
                "split_digits": False,
                "symbols": (),
                "chat_template": "",
            },
            "init_from": "",
        }
    )
