"""A prepared corpus on disk: documents of each split as JSON lines, and a manifest.

corpus/{train,validation,test}.jsonl   one document a line, with its origin
corpus/manifest.json                   settings, counts, and a hash of all texts
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from llm import files
from llm.corpus.split import SPLITS
from llm.document import Document
from llm.errors import InputError


class Documents:
    """The documents of a split, read anew each time they are gone through."""

    def __init__(self, path: epath.Path, count: int):
        self._path, self._count = path, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Document]:
        with self._path.open("rb") as file:
            # Lines of bytes: a text may hold U+2028 or form feeds.
            for line in file:
                yield Document(**json.loads(line))


class Texts:
    """The texts of documents, likewise."""

    def __init__(self, documents: Iterable[Document]):
        self._documents = documents

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            yield document.text


def write(
    directory: epath.PathLike,
    documents: Iterable[tuple[str, Document]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Writes the folder whole or not at all, and returns the manifest.

    Args:
      documents: each with its split, in order; they may be more than fit in memory.
    """
    about = {name: {"documents": 0, "raw_bytes": 0, "text_bytes": 0} for name in SPLITS}
    digests = {name: hashlib.sha256() for name in SPLITS}
    with files.folder(directory) as partial, contextlib.ExitStack() as stack:
        outputs = {
            name: stack.enter_context((partial / f"{name}.jsonl").open("wb"))
            for name in SPLITS
        }
        for name, document in documents:
            line = json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n"
            content = line.encode("utf-8")
            digests[name].update(content)
            outputs[name].write(content)
            about[name]["documents"] += 1
            about[name]["raw_bytes"] += document.raw_bytes
            about[name]["text_bytes"] += len(document.text.encode("utf-8"))
        whole = hashlib.sha256()
        for name in SPLITS:
            outputs[name].close()
            about[name]["sha256"] = digests[name].hexdigest()
            whole.update(f"{name} {about[name]['sha256']}\n".encode())
        manifest = {"settings": settings, "splits": about}
        manifest["hash"] = whole.hexdigest()[:32]
        (partial / "manifest.json").write_text(
            json.dumps(manifest, indent=1), encoding="utf-8"
        )
    return manifest


def manifest(directory: epath.PathLike) -> dict[str, Any]:
    """The manifest of a corpus; InputError if there is none."""
    path = epath.Path(directory) / "manifest.json"
    if not path.exists():
        raise InputError(
            got=f"no corpus in {directory}{files.relative_to(directory)}",
            want="a folder that prepare_data wrote",
            do="run the prepare_data workload, or set data.corpus_dir",
        )
    try:
        found = json.loads(path.read_text("utf-8"))
        found["hash"], [found["splits"][name] for name in SPLITS]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            got=f"a broken manifest {path}",
            want="the one that prepare_data wrote",
            do="delete the corpus and prepare it again",
        ) from error
    return found


def read(directory: epath.PathLike, split: str) -> list[Document]:
    """The documents of a split, in their order; InputError as `opened`."""
    return list(opened(directory, split))


def opened(directory: epath.PathLike, split: str) -> Documents:
    """The documents of a split, which may be more than fit in memory.

    Raises:
      InputError: no corpus, no such split, or a file that was altered or cut.
    """
    known = manifest(directory)["splits"]
    if split not in known:
        raise InputError(got=f"split {split!r}", want=f"one of {', '.join(known)}")
    path, digest = epath.Path(directory) / f"{split}.jsonl", hashlib.sha256()
    if path.exists():
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    if digest.hexdigest() != known[split]["sha256"]:
        raise InputError(
            got=f"an altered or truncated {path}",
            want="the file that prepare_data wrote",
            do="delete the corpus and prepare it again",
        )
    return Documents(path, known[split]["documents"])
