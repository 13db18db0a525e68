"""A prepared corpus on disk: documents of each split as JSON lines, and a manifest.

corpus/{train,validation,test}.jsonl   one document a line, with its origin
corpus/manifest.json                   settings, counts, and a hash of all texts
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from llm import atomic
from llm.data.split import SPLITS
from llm.document import Document
from llm.errors import InputError


def write(
    directory: epath.PathLike,
    splits: Mapping[str, Sequence[Document]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Writes the folder whole or not at all, and returns the manifest."""
    manifest = {"settings": settings, "splits": {}}
    whole = hashlib.sha256()
    with atomic.folder(directory) as partial:
        for name, documents in splits.items():
            lines = [
                json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n"
                for document in documents
            ]
            content = "".join(lines).encode("utf-8")
            digest = hashlib.sha256(content).hexdigest()
            whole.update(f"{name} {digest}\n".encode())
            (partial / f"{name}.jsonl").write_bytes(content)
            manifest["splits"][name] = {
                "documents": len(documents),
                "raw_bytes": sum(document.raw_bytes for document in documents),
                "text_bytes": sum(len(d.text.encode("utf-8")) for d in documents),
                "sha256": digest,
            }
        manifest["hash"] = whole.hexdigest()[:32]
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def manifest(directory: epath.PathLike) -> dict[str, Any]:
    """The manifest of a corpus; InputError if there is none."""
    path = epath.Path(directory) / "manifest.json"
    if not path.exists():
        raise InputError(
            got=f"no corpus in {directory}",
            want="a folder that prepare_data wrote",
            do="run the prepare_data workload, or set data.corpus_dir",
        )
    try:
        found = json.loads(path.read_text())
        found["hash"], [found["splits"][name] for name in SPLITS]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            got=f"a broken manifest {path}",
            want="the one that prepare_data wrote",
            do="delete the corpus and prepare it again",
        ) from error
    return found


def read(directory: epath.PathLike, split: str) -> list[Document]:
    """The documents of a split, in their order.

    Raises:
      InputError: no corpus, no such split, or a file that was altered or cut.
    """
    known = manifest(directory)["splits"]
    if split not in known:
        raise InputError(got=f"split {split!r}", want=f"one of {', '.join(known)}")
    path = epath.Path(directory) / f"{split}.jsonl"
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != known[split]["sha256"]:
        raise InputError(
            got=f"an altered or truncated {path}",
            want="the file that prepare_data wrote",
            do="delete the corpus and prepare it again",
        )
    # Not splitlines: a text may hold U+2028 or form feeds.
    lines = content.decode("utf-8").split("\n")[:-1]
    return [Document(**json.loads(line)) for line in lines]
