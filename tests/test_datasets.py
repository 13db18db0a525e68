"""Data sets of TFDS and Hugging Face: made here, read back, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from llm import config
from llm.errors import InputError
from llm.sources import huggingface, tfds

TEXTS = [f"Text number {n}, with an ü." for n in range(7)]


def read(source):
    skipped = []
    return list(source(lambda *why: skipped.append(why))), skipped


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a data set of TFDS with a nested feature, one text of it empty."""
    import tensorflow_datasets as library

    class Numbers(library.core.GeneratorBasedBuilder):
        VERSION = library.core.Version("1.2.3")

        def _info(self):
            text, whole = library.features.Text(), library.features.Scalar(np.int64)
            features = library.features.FeaturesDict(
                {"body": {"text": text}, "number": whole}
            )
            return library.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for n, text in enumerate([*TEXTS, " "]):
                yield n, {"body": {"text": text}, "number": n}

    folder = tmp_path_factory.mktemp("tfds")
    library.disable_progress_bar()
    Numbers(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder / "numbers" / "1.2.3"


def test_records_of_tfds(prepared):
    made = tfds.make(path=str(prepared), text="body.text", id="number", kind="code")
    documents, skipped = read(made)
    assert sorted(d.text for d in documents) == TEXTS
    assert {d.id: d.text for d in documents} == {str(n): t for n, t in enumerate(TEXTS)}
    assert [reason for reason, _ in skipped] == ["empty"]
    assert {d.kind for d in documents} == {"code"}
    assert documents == read(made)[0]
    first, _ = read(tfds.make(path=str(prepared), text="body.text", split="train[:3]"))
    assert len(first) in (2, 3)  # one of the three may be the empty one


def test_tfds_reads_without_tensorflow():
    code = (
        "import sys; from llm.sources import tfds; "
        "n = len(list(tfds.make(**tfds.TINY)(print))); "
        "sys.exit(n != 2 or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_tfds_does_not_have(prepared, tmp_path):
    for knobs in (
        {"path": str(prepared), "split": "validation"},
        {"path": str(tmp_path), "data_dir": str(tmp_path)},
        {"path": ""},
    ):
        with pytest.raises(InputError, match="TFDS"):
            read(tfds.make(**knobs))


def test_folders_of_datasets(tmp_path):
    library = pytest.importorskip("datasets")
    columns = {"content": TEXTS, "lang": ["en"] * 7}
    whole = library.Dataset.from_dict(columns)
    whole.save_to_disk(str(tmp_path / "one"))
    splits = library.DatasetDict({"train": whole, "test": whole.select(range(2))})
    splits.save_to_disk(str(tmp_path / "two"))
    knobs = {"text": "content", "language": "lang"}
    documents, _ = read(huggingface.make(path=str(tmp_path / "one"), **knobs))
    assert [d.text for d in documents] == TEXTS
    assert documents[3].id == "one:3" and documents[3].meta == {"language": "en"}
    made = huggingface.make(path=str(tmp_path / "two"), split="test", **knobs)
    assert [d.text for d in read(made)[0]] == TEXTS[:2]
    made = huggingface.make(path=str(tmp_path / "two"), split="dev", **knobs)
    with pytest.raises(InputError, match="'dev'"):
        read(made)


def test_files_that_datasets_reads(tmp_path):
    library = pytest.importorskip("datasets")
    library.Dataset.from_dict({"text": TEXTS}).to_parquet(str(tmp_path / "x.parquet"))
    documents, _ = read(huggingface.make(path=str(tmp_path), max_documents=4))
    assert [d.text for d in documents] == TEXTS[:4]


def test_by_the_argument_of_a_config():
    found = config.source("tfds:wikipedia/20230601.en")
    assert (found["name"], found["path"]) == ("tfds", "wikipedia/20230601.en")
