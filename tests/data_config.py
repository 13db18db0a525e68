"""What the tests of the data path share: a small config, and the library read once."""

import functools

from ml_collections import ConfigDict

from llm import registry
from llm.sources import stdlib

STAGES = ("normalise", "generated", "exact_dedup", "minhash")


@functools.cache
def library():
    """All documents of the source `stdlib`, and the (reason, id) that it skipped."""
    skipped = []
    return tuple(stdlib.make()(lambda *skip: skipped.append(skip))), tuple(skipped)


def make(source="stdlib", **knobs) -> ConfigDict:
    """A config over a source with the given knobs."""
    if source == "stdlib":
        knobs = {"max_documents": 60} | knobs
    stage = {name: registry.spec("stages", name) for name in STAGES}
    for entry in stage.values():
        del entry["name"]
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "corpus_dir": "",
                "source": registry.spec("sources", source, **knobs),
                "stages": STAGES,
                "stage": stage,
                "validation_fraction": 0.1,
                "test_fraction": 0.1,
            },
            "tokenizer": {
                "vocab_size": 512,
                "kind": "bpe",
                "lowercase": False,
                "chat_template": "",
            },
            "init_from": "",
        }
    )
