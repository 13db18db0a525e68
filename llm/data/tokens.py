"""Token shards: every document of a split as BOS, its tokens, EOS, read at random.

    <split>-00000.bin       token ids, raw little-endian uint16 or uint32
    <split>.offsets.npy     int64 [documents + 1]: where documents start, in all
    <split>.documents.jsonl {"id", "raw_bytes", "text_bytes", "of"} of each document,
                            where "of" has its source, kind, group, language, …
    <split>.labels.bin      int16, the label of each token, if documents have labels
    manifest.json           counts, hashes, the fingerprint of the tokenizer

The manifest is written last, so a folder that has one is whole. A document never
crosses from one shard into the next. Sizes are checked whenever a split is opened,
hashes too unless a file is large; `verify` checks them all.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from llm import files
from llm.data import labels, record_tokens
from llm.document import Document
from llm.errors import InputError, MachineError
from llm.tokenizers import Tokenizer, parallel_encode
from llm.tokenizers.parallel_encode import Encode

_SHARD_TOKENS = 1 << 28
_HASH_ON_OPEN = 1 << 26  # bytes of the largest file whose hash opening it checks
_EXAMPLES = 3  # records named for each reason of a drop
_FIELD = 64  # characters of a field that is kept with the tokens


@dataclasses.dataclass(frozen=True)
class TokenSplit:
    """The tokens of one split, memory-mapped.

    Attributes:
      name: train, validation or test.
      shards: one array of token ids a shard.
      starts: int64 [shards]: global position of the first token of each.
      offsets: int64 [documents + 1]: global position of each BOS, and the end.
      ids: document ids.
      raw_bytes: int64 [documents]: UTF-8 bytes of each text before any stage.
      manifest: that of the folder.
      labels: int16 [tokens]: places in the manifest's `labels`, -1 for none; None for
        documents without labels.
      documents: the file that describes them.
    """

    name: str
    shards: tuple[np.ndarray, ...]
    starts: np.ndarray
    offsets: np.ndarray
    ids: tuple[str, ...]
    raw_bytes: np.ndarray
    manifest: dict[str, Any]
    labels: np.ndarray | None = None
    documents: epath.Path | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, with BOS and EOS."""
        return np.diff(self.offsets)

    def values(self, field: str) -> list[str]:
        """What each document has in a field, '' for nothing.

        Raises:
          InputError: no document has the field.
        """
        lines = self.documents.read_text("utf-8").split("\n")[:-1]
        held = [json.loads(line).get("of", {}) for line in lines]
        if not any(field in fields for fields in held):
            known = sorted({name for fields in held for name in fields})
            raise InputError(
                got=f"the field {field!r}, which no document has",
                want=f"one of {', '.join(known)}" if known else "newer tokens",
                do="" if known else "run train_tokenizer in a new workdir",
            )
        return [fields.get(field, "") for fields in held]

    def read(self, document: int, start: int, length: int) -> np.ndarray:
        """`length` token ids of a document from its token `start` on; a view."""
        begin = int(self.offsets[document]) + start
        if len(self.shards) == 1:
            return self.shards[0][begin : begin + length]
        shard = int(np.searchsorted(self.starts, begin, side="right")) - 1
        begin -= int(self.starts[shard])
        return self.shards[shard][begin : begin + length]

    def read_labels(self, document: int, start: int, length: int) -> np.ndarray:
        """The labels of the same tokens; a view."""
        begin = int(self.offsets[document]) + start
        return self.labels[begin : begin + length]


def write(
    directory: epath.PathLike,
    splits: Mapping[str, Iterable[Document]],
    tokenizer: Tokenizer,
    *,
    corpus_hash: str,
    shard_tokens: int = _SHARD_TOKENS,
    encode: Encode | None = None,
) -> dict[str, Any]:
    """Tokenizes the splits into the folder `directory` and returns the manifest.

    Args:
      splits: documents, which are gone through more than once.
      encode: what `encoding.encoder` made of the tokenizer; None encodes here.
    """
    every = itertools.chain.from_iterable(splits.values())
    held = any("record" in document.meta for document in every)
    every = itertools.chain.from_iterable(splits.values())
    names = list(record_tokens.PARTS) if held else labels.names_of(every)
    encode = encode or functools.partial(parallel_encode.here, tokenizer)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    manifest = {
        "dtype": dtype.str,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "tokenizer": tokenizer.fingerprint,
        "corpus": corpus_hash,
        "labels": names,
        "splits": {},
    }
    with files.folder(directory) as partial:
        for name, documents in splits.items():
            manifest["splits"][name] = _write_split(
                partial, name, documents, tokenizer, encode, dtype, shard_tokens, names
            )
        (partial / "manifest.json").write_text(
            json.dumps(manifest, indent=1), encoding="utf-8"
        )
    return manifest


def _write_split(
    folder, name, documents, tokenizer, encode, dtype, shard_tokens, names
):
    lengths, shards, waiting, labelled, rows, filled = [], [], [], [], [], 0

    dropped: dict[str, dict[str, Any]] = {}

    def flush():
        file = f"{name}-{len(shards):05d}.bin"
        content = np.concatenate([np.zeros(0, dtype), *waiting]).astype(dtype).tobytes()
        shards.append(_put(folder, file, content) | {"tokens": filled})
        waiting.clear()

    encoded = _encoded(documents, tokenizer, encode, names, dropped)
    for document, ids, marks in encoded:
        size = len(document.text.encode("utf-8"))
        row = {"id": document.id, "raw_bytes": document.raw_bytes, "text_bytes": size}
        rows.append(row | {"of": _fields(document)})
        if waiting and filled + len(ids) > shard_tokens:
            flush()
            filled = 0
        waiting.append(np.asarray(ids, dtype))
        lengths.append(len(ids))
        filled += len(ids)
        if names:
            labelled.append(marks)
    flush()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype("<i8")
    index = io.BytesIO()
    np.save(index, offsets, allow_pickle=False)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if dropped and not rows and name == "train":
        raise _nothing_left(dropped)
    entry = {
        "documents": len(rows),
        "tokens": int(offsets[-1]),
        "raw_bytes": sum(row["raw_bytes"] for row in rows),
        "text_bytes": sum(row["text_bytes"] for row in rows),
        "shards": shards,
        "offsets": _put(folder, f"{name}.offsets.npy", index.getvalue()),
        "ids": _put(folder, f"{name}.documents.jsonl", lines.encode("utf-8")),
    }
    if dropped:
        entry["dropped"] = dropped
    if names:
        content = np.concatenate([np.zeros(0, "<i2"), *labelled]).astype("<i2")
        entry["labels"] = _put(folder, f"{name}.labels.bin", content.tobytes())
    return entry


def _fields(document: Document) -> dict[str, str]:
    """What a mixture may go by: short texts that are known of a document."""
    meta = {
        name: value
        for name, value in document.meta.items()
        if isinstance(value, str) and len(value) <= _FIELD
    }
    own = {"source": document.source, "kind": document.kind, "group": document.group}
    return meta | own


def _encoded(
    documents, tokenizer: Tokenizer, encode: Encode, names, dropped
) -> Iterator[tuple]:
    """(document, ids, their labels if there are names) of each; of some records more
    than one."""
    if names == list(record_tokens.PARTS):
        for document in documents:
            for ids, parts in _sequences(document, tokenizer, dropped):
                yield document, ids, parts
                # The bytes of a record count once.
                document = dataclasses.replace(document, text="", raw_bytes=0)
        return
    waiting = collections.deque()

    def texts():
        for document in documents:
            waiting.append(document)
            yield document.text

    for ids in encode(texts()):
        document = waiting.popleft()
        whole = [*tokenizer.start(), *ids, *tokenizer.ends[:1]]
        marks = names and labels.of_tokens(document, whole, tokenizer, names)
        yield document, whole, marks


def _sequences(document: Document, tokenizer, dropped) -> list[record_tokens.Encoded]:
    """The token sequences of a record; none, and counted, if it cannot be encoded."""
    if "record" not in document.meta:
        raise InputError(
            got=f"{document.id}, a text among records",
            want="a corpus of texts, or one of records",
        )
    try:
        return record_tokens.encode(document.meta["record"], tokenizer)
    except MachineError:  # no fault of the record
        raise
    except InputError as error:
        entry = dropped.setdefault(str(error.got), {"documents": 0, "examples": []})
        entry["documents"] += 1
        entry["examples"] = [*entry["examples"], document.id][:_EXAMPLES]
        entry["error"] = str(error)
        return []


def _nothing_left(dropped: Mapping[str, Mapping[str, Any]]) -> InputError:
    """All records of the train split were dropped: the most frequent reason."""
    count = sum(entry["documents"] for entry in dropped.values())
    worst = max(dropped.values(), key=lambda entry: entry["documents"])
    return InputError(
        got=f"{count} records, none of which becomes tokens; {worst['examples'][0]}: "
        f"{worst['error']}",
        want="one that does",
    )


def _put(folder: epath.Path, file: str, content: bytes) -> dict[str, Any]:
    (folder / file).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": file, "bytes": len(content), "sha256": digest}


def manifest(directory: epath.PathLike) -> dict[str, Any]:
    """The manifest of a folder of tokens; InputError if there is none."""
    path = epath.Path(directory) / "manifest.json"
    if not path.exists():
        raise InputError(
            got=f"no tokens in {directory}",
            want="a folder with a manifest.json",
            do="run the train_tokenizer workload",
        )
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise _altered(path) from error


def open_split(
    directory: epath.PathLike, split: str, fingerprint: str = ""
) -> TokenSplit:
    """Opens a split for random access.

    Args:
      fingerprint: that of the tokenizer to be used with the tokens; '' does not check.

    Raises:
      InputError: no tokens, no such split, another tokenizer, or an altered file.
    """
    folder, about = epath.Path(directory), manifest(directory)
    if fingerprint and fingerprint != about.get("tokenizer"):
        raise InputError(
            got=f"a tokenizer with fingerprint {fingerprint}",
            want=f"{about.get('tokenizer')}, which made the tokens in {directory}",
            do="use the tokenizer beside them, or run train_tokenizer again",
        )
    try:
        known = about["splits"]
        if split not in known:
            raise InputError(got=f"split {split!r}", want=f"one of {', '.join(known)}")
        entry, dtype = known[split], np.dtype(about["dtype"])
        for file in _files(entry):
            _check(folder, file, hashed=file["bytes"] <= _HASH_ON_OPEN)
        index = (folder / entry["offsets"]["file"]).read_bytes()
        offsets = np.load(io.BytesIO(index), allow_pickle=False)
        lines = (folder / entry["ids"]["file"]).read_text("utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        sizes = [shard["tokens"] for shard in entry["shards"]]
        shards = tuple(_mapped(folder / s["file"], dtype) for s in entry["shards"])
        held = entry.get("labels")
        marks = _mapped(folder / held["file"], np.dtype("<i2")) if held else None
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise _altered(folder / "manifest.json") from error
    return TokenSplit(
        name=split,
        shards=shards,
        starts=np.cumsum([0, *sizes[:-1]], dtype=np.int64),
        offsets=offsets,
        ids=tuple(row["id"] for row in rows),
        raw_bytes=np.array([row["raw_bytes"] for row in rows], np.int64),
        labels=marks,
        manifest=about,
        documents=folder / entry["ids"]["file"],
    )


def verify(directory: epath.PathLike) -> None:
    """Checks size and hash of every file; InputError names the first that is wrong."""
    for entry in manifest(directory)["splits"].values():
        for file in _files(entry):
            _check(epath.Path(directory), file, hashed=True)


def hashes(directory: epath.PathLike) -> dict[str, str]:
    """{file: its SHA-256} of all files of a folder of tokens but the manifest."""
    splits = manifest(directory)["splits"].values()
    return {f["file"]: f["sha256"] for entry in splits for f in _files(entry)}


def _files(entry: dict[str, Any]) -> list[dict[str, Any]]:
    more = [entry["labels"]] if "labels" in entry else []
    return [*entry["shards"], entry["offsets"], entry["ids"], *more]


def _mapped(path: epath.Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().length == 0:
        return np.zeros(0, dtype)
    # As a plain ndarray: slices of the subclass memmap cost three times as much.
    return np.asarray(np.memmap(path, dtype, mode="r"))


def _check(folder: epath.Path, file: dict[str, Any], hashed: bool) -> None:
    path = folder / file["file"]
    if not path.exists():
        raise InputError(
            got=f"no {path}",
            want="every file of the manifest",
            do="run the train_tokenizer workload in an empty folder",
        )
    size = path.stat().length
    if size != file["bytes"]:
        raise InputError(
            got=f"{path} of {size} bytes",
            want=f"{file['bytes']} bytes: it is truncated or altered",
            do="delete the tokens and run train_tokenizer again",
        )
    if hashed and hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
        raise _altered(path)


def _altered(path: epath.Path) -> InputError:
    return InputError(
        got=f"an altered {path}",
        want="the file that train_tokenizer wrote",
        do="delete the tokens and run train_tokenizer again",
    )
