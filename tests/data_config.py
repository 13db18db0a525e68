"""The fields of a config that the data workloads read, with few documents."""

from ml_collections import ConfigDict

from llm import registry

STAGES = ("normalise", "generated", "exact_dedup", "minhash")


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
            "tokenizer": {"vocab_size": 512, "kind": "bpe"},
        }
    )
