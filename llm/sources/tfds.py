"""Data sets of TensorFlow Datasets, without TensorFlow: records by random access.

`path` is a data set's name, as `wikipedia/20230601.en`, or the folder of one that is
prepared (with dataset_info.json). It must be one whose shards are ArrayRecord files; a
name that is not prepared yet is downloaded by its own script. The knobs say which
feature holds what; bytes are taken as UTF-8.

    --config=configs/quickstart.py:text=tfds:wikipedia/20230601.en
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from llm.corpus import record_fields
from llm.errors import InputError

TINY = {"path": str(pathlib.Path(__file__).parent / "tfds.example")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knobs(record_fields.SetKnobs):
    """Those of TFDS, which also knows a `split` such as train[:10%]."""

    data_dir: str = ""  # where data sets lie; '' is TFDS' own place


def _records(knobs: Knobs) -> Iterator[Any]:
    records = _opened(knobs)
    return (_plain(records[number]) for number in range(len(records)))


def _opened(knobs: Knobs) -> Any:
    """Records by number."""
    import tensorflow_datasets as tfds

    if not knobs.path:
        raise InputError(got="no data.source.path", want="a data set of TFDS")
    folder = pathlib.Path(knobs.path)
    try:
        if (folder / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(folder)
        else:
            builder = tfds.builder(knobs.path, data_dir=knobs.data_dir or None)
            builder.download_and_prepare(file_format="array_record")
        return builder.as_data_source(knobs.split)
    except (
        ValueError,
        KeyError,
        OSError,
        NotImplementedError,
        AssertionError,
    ) as error:
        want = "one of TFDS in ArrayRecord files, and a split that it has"
        raise knobs.refused(error, want) from error


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


make = record_fields.of_set("tfds", _records, Knobs)
