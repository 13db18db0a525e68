"""Data sets of Hugging Face, where the package `datasets` is installed.

`path` is a folder that `save_to_disk` wrote, or whatever `load_dataset` takes: a name
on the hub, or a folder of files. What is not on this disk is streamed. The knobs say
which column holds what.

    --config=configs/quickstart.py:text=huggingface:my_corpus/
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from llm.corpus import file_reader, record_fields
from llm.document import Document, Source
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).parent / "huggingface.example")}
NEEDS = ("datasets",)


def make(
    *,
    path: str = "",
    config: str = "",
    split: str = "train",
    text: str = "text",
    id: str = "id",
    group: str = "",
    url: str = "url",
    licence: str = "license",
    language: str = "language",
    timestamp: str = "timestamp",
    kind: str = "prose",
    max_documents: int = 0,
) -> Source:
    """Makes the source.

    Args:
      path: a folder, or a name on the hub.
      config: the data set's own configuration; '' for none.
      split: of a data set that has some.
      text: the column with the text; so the next ones, which a record may lack.
      group: the column with what a split may not cut; '' for none.
      kind: what the texts are, `prose` or `code`.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no package `datasets`, no such data set, or no such split.
    """
    fields = record_fields.Fields(text, id, group, url, licence, language, timestamp)

    def documents(skip: file_reader.Skip) -> Iterator[Document]:
        return record_fields.once(read(skip), max_documents, skip)

    def read(skip: file_reader.Skip) -> Iterator[Document | None]:
        name = path.rstrip("/").rpartition("/")[2] or path
        for number, record in enumerate(_opened(path, config, split)):
            yield record_fields.document(
                record, f"{name}:{number}", fields, "huggingface", kind, skip
            )

    return documents


def _opened(path: str, config: str, split: str) -> Any:
    """The records, one after the other."""
    datasets = file_reader.package("datasets", "datasets", _datasets)
    if not path:
        raise InputError(
            got="no data.source.path", want="a folder, or a name on the hub"
        )
    folder = pathlib.Path(path)
    saved = [folder / "state.json", folder / "dataset_dict.json"]
    try:
        if not any(file.exists() for file in saved):
            return datasets.load_dataset(
                path, config or None, split=split, streaming=True
            )
        found = datasets.load_from_disk(path)
        return found[split] if saved[1].exists() else found
    except (ValueError, KeyError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            got=f"the data set {path!r}, split {split!r} ({said[:200]})",
            want="one that `datasets` can load, and a split that it has",
        ) from error


def _datasets():
    import datasets

    return datasets
