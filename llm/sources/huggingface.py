"""Data sets of Hugging Face, where the package `datasets` is installed.

`path` is a folder that `save_to_disk` wrote, or whatever `load_dataset` takes: a name
on the hub, or a folder of files. What is not on this disk is streamed. The knobs say
which column holds what.

    --config=configs/quickstart.py:text=huggingface:my_corpus/
"""

import dataclasses
import pathlib
from typing import Any

from llm.corpus import file_reader, record_fields
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).parent / "huggingface.example")}
NEEDS = ("datasets",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs(record_fields.SetKnobs):
    """Those of `datasets`."""

    config: str = ""  # the data set's own configuration; '' for none


def _records(knobs: Knobs) -> Any:
    datasets = file_reader.package("datasets", "datasets", _datasets)
    if not knobs.path:
        raise InputError(
            got="no data.source.path", want="a folder, or a name on the hub"
        )
    folder = pathlib.Path(knobs.path)
    saved = [folder / "state.json", folder / "dataset_dict.json"]
    try:
        if not any(file.exists() for file in saved):
            return datasets.load_dataset(
                knobs.path, knobs.config or None, split=knobs.split, streaming=True
            )
        whole = datasets.load_from_disk(knobs.path)
        return whole[knobs.split] if saved[1].exists() else whole
    except (ValueError, KeyError, OSError) as error:
        want = "one that `datasets` can load, and a split that it has"
        raise knobs.refused(error, want) from error


def _datasets():
    import datasets

    return datasets


make = record_fields.of_set("huggingface", _records, Knobs)
