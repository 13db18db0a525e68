"""Data sets of TensorFlow Datasets, without TensorFlow: records by random access.

`path` is a data set's name, as `wikipedia/20230601.en`, or the folder of one that is
prepared (with dataset_info.json). It must be one whose shards are ArrayRecord files; a
name that is not prepared yet is downloaded by its own script. The knobs say which
feature holds what; bytes are taken as UTF-8.

    --config=configs/quickstart.py:text=tfds:wikipedia/20230601.en
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from llm.corpus import file_reader, record_fields
from llm.document import Document, Source
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).parent / "tfds.example")}


def make(
    *,
    path: str = "",
    split: str = "train",
    data_dir: str = "",
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
      path: a data set's name, with its config if it has some, or a prepared folder.
      split: in TFDS' own terms, such as train[:10%].
      data_dir: where data sets lie; '' is TFDS' own place.
      text: the feature with the text; so the next ones, which a record may lack.
      group: the feature with what a split may not cut; '' for none.
      kind: what the texts are, `prose` or `code`.
      max_documents: the first so many; 0 takes all.

    Raises:
      InputError: no such data set or split, or one of another file format.
    """
    fields = record_fields.Fields(text, id, group, url, licence, language, timestamp)

    def documents(skip: file_reader.Skip) -> Iterator[Document]:
        return record_fields.once(read(skip), max_documents, skip)

    def read(skip: file_reader.Skip) -> Iterator[Document | None]:
        records = _opened(path, split, data_dir)
        name = path.rstrip("/").rpartition("/")[2] or path
        for number in range(len(records)):
            yield record_fields.document(
                _plain(records[number]), f"{name}:{number}", fields, "tfds", kind, skip
            )

    return documents


def _opened(path: str, split: str, data_dir: str) -> Any:
    """Records by number."""
    import tensorflow_datasets as tfds

    if not path:
        raise InputError(got="no data.source.path", want="a data set of TFDS")
    folder = pathlib.Path(path)
    try:
        if (folder / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(folder)
        else:
            builder = tfds.builder(path, data_dir=data_dir or None)
            builder.download_and_prepare(file_format="array_record")
        return builder.as_data_source(split)
    except (
        ValueError,
        KeyError,
        OSError,
        NotImplementedError,
        AssertionError,
    ) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            got=f"the data set {path!r}, split {split!r} ({said[:200]})",
            want="one of TFDS in ArrayRecord files, and a split that it has",
        ) from error


def _plain(value: Any) -> Any:
    """Records as JSON would have them: bytes are UTF-8, arrays numbers and lists."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
