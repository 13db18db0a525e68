"""Trains the tokenizer on the train split and turns the corpus into token shards.

A run that begins with another model has that model's tokenizer instead. Where the
corpus holds conversations, a chat template is saved beside the tokenizer.

Writes `workdir/tokenizer/`, `workdir/tokens/` and `train_tokenizer.json`. Finished ones
of the same corpus and settings are kept; those of others are never overwritten.
"""

import dataclasses
import datetime
import json
import time
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import files
from llm.corpus import storage, workers
from llm.data import tokenizer_report, tokens
from llm.errors import InputError
from llm.inference import import_model
from llm.knobs import Positive, section
from llm.reports import data_card
from llm.tokenizers import (
    chat_settings,
    chat_template,
    parallel_encode,
    sentencepiece_tokenizer,
)
from llm.training.init_state import Begin

_LITTLE = 1 << 24  # bytes of text for which no process is begun


@section("tokenizer")
class Tokenizer:
    """The tokenizer."""

    # Pieces in the vocabulary, byte pieces and special tokens included.
    vocab_size: Positive = 4096
    # bpe, unigram or char, as SentencePiece trains them: any text comes back; byte, for
    # UTF-8 as it is; word or wordpiece (BERT's), which lose what is not in them. And
    # whether these two take all text in lower case.
    kind: str = "bpe"
    lowercase: bool = False
    # Of the first three: whether each digit is a piece of its own, and texts that are
    # always one piece, such as ("<file>", "<end>").
    split_digits: bool = False
    symbols: tuple[str, ...] = ()
    # Template of conversations, for a corpus of them: plain, chatml, llama3, gemma or a
    # Jinja file; '' is the model's own, and plain where it has none.
    chat_template: str = ""
    # Today, for a template that writes it, as 2026-01-31; '' is the day on which the
    # tokens are made, which is recorded and taken from then on.
    date: str = ""
    # Values of names that the template reads, as JSON: '{"enable_thinking": false}'. A
    # record may have its own, `chat_template_kwargs`.
    template_variables: str = ""
    # Whether an empty block of thoughts that a template puts before answers is learned.
    learn_empty_think: bool = False
    # Whether control tokens that are spelled out in texts and messages, such as
    # <|im_end|>, are these tokens. Without it what people type is text.
    parse_special: bool = False


SECTIONS = (Begin, Tokenizer)
SECTIONS_OF = ("prepare_data",)


def run(c: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Trains and applies the tokenizer that the config describes.

    Returns:
      The content of train_tokenizer.json.

    Raises:
      InputError: no corpus, one too small for the vocabulary, one that does not belong
        to the tokens already there, or a disk that cannot be written.
    """
    check(c)
    workdir = epath.Path(workdir)
    folder = epath.Path(c.data.corpus_dir or workdir) / "corpus"
    about = storage.manifest(folder)
    settings = {
        "corpus": about["hash"],
        "vocab_size": c.tokenizer.vocab_size,
        "kind": c.tokenizer.kind,
        **({"lowercase": True} if c.tokenizer.lowercase else {}),
        **({"split_digits": True} if c.tokenizer.split_digits else {}),
        **({"symbols": list(c.tokenizer.symbols)} if c.tokenizer.symbols else {}),
        "chat_template": c.tokenizer.chat_template,
        **{n: v for n, v in _chat(c).items() if v},
        "init_from": c.init_from,
        "seed": c.seed,
    }
    report = workdir / "train_tokenizer.json"
    if report.exists():
        result = json.loads(report.read_text("utf-8"))
        _check_same(result["settings"], settings, workdir)
        if _whole(workdir, result):
            print(f"tokenizer: {workdir / 'tokenizer'} is finished, kept", flush=True)
            return result
    start = time.time()
    splits = {name: storage.opened(folder, name) for name in about["splits"]}
    if c.init_from:
        source = import_model.run_of(c.init_from, workdir, jax.devices("cpu")[0])
        sentencepiece_tokenizer.copy(
            epath.Path(source) / "tokenizer", workdir / "tokenizer"
        )
    else:
        sentencepiece_tokenizer.train(
            storage.Texts(splits["train"]),
            workdir / "tokenizer",
            vocab_size=c.tokenizer.vocab_size,
            kind=c.tokenizer.kind,
            lowercase=c.tokenizer.lowercase,
            split_digits=c.tokenizer.split_digits,
            symbols=tuple(c.tokenizer.symbols),
            seed=c.seed,
        )
    trained = _taught_to_chat(c, splits, workdir / "tokenizer")
    size = sum(split["text_bytes"] for split in about["splits"].values())
    count = (c.data.processes or workers.cores()) if size > _LITTLE else 1
    with parallel_encode.encoder(trained, workdir / "tokenizer", count) as encode:
        counts = tokens.write(
            workdir / "tokens",
            splits,
            trained,
            corpus_hash=about["hash"],
            encode=encode,
        )["splits"]
    result = {
        "settings": settings,
        "vocab_size": trained.vocab_size,
        "fingerprint": trained.fingerprint,
        "bytes_per_token": {
            name: round(part["text_bytes"] / max(1, part["tokens"]), 4)
            for name, part in counts.items()
        },
        "tokens": {name: part["tokens"] for name, part in counts.items()},
        "dropped": {
            name: part["dropped"] for name, part in counts.items() if "dropped" in part
        },
        "hashes": tokens.hashes(workdir / "tokens"),
        **tokenizer_report.about(workdir / "tokens", splits, trained),
        "seconds": round(time.time() - start, 3),
    }
    files.write_text(report, json.dumps(result, indent=1))
    if (workdir / "prepare_data.json").exists():
        data_card.write(workdir)  # now with tokens
    _say_dropped(counts, about)
    for name, count in result["tokens"].items():
        rate = result["bytes_per_token"][name]
        unknown = result["unknown"][name]
        lost = f", {unknown:.2%} of them unknown" if unknown else ""
        print(f"{name}: {count} tokens of {rate:.2f} bytes{lost}", flush=True)
    return result


def _say_dropped(counts: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Prints how many records of each split could not be encoded, and why."""
    for name, part in counts.items():
        reasons = part.get("dropped", {})
        lost = sum(entry["documents"] for entry in reasons.values())
        for reason, entry in reasons.items():
            examples = ", ".join(entry["examples"])
            print(
                f"{name}: dropped {entry['documents']} records ({examples}): {reason}",
                flush=True,
            )
        records = about["splits"][name]["documents"]
        if lost and lost >= records / 2:
            print(f"{name}: {lost / records:.0%} of the records dropped", flush=True)


def check(c: ConfigDict) -> None:
    """Raises InputError for a tokenizer that cannot be trained."""
    _template(c)
    chat_settings.check(_chat(c))
    if not c.init_from and c.tokenizer.kind not in sentencepiece_tokenizer.KINDS:
        raise InputError(
            got=f"tokenizer.kind {c.tokenizer.kind!r}",
            want=" or ".join(sentencepiece_tokenizer.KINDS),
        )


def _chat(c: ConfigDict) -> dict[str, Any]:
    """The settings of conversations; older configs have none."""
    names = (field.name for field in dataclasses.fields(chat_settings.Chat))
    return {n: c.tokenizer[n] for n in names if n in c.tokenizer}


def _template(c: ConfigDict) -> str:
    """The chat template that the config names; '' where it names none."""
    name = c.tokenizer.chat_template
    if not name or name in chat_template.TEMPLATES:
        return chat_template.TEMPLATES.get(name, "")
    path = epath.Path(name)
    if not path.exists():
        raise InputError(
            got=f"tokenizer.chat_template {name!r}, which is no file"
            + files.relative_to(name),
            want=f"a Jinja file, or {', '.join(chat_template.TEMPLATES)}",
        )
    return path.read_text("utf-8")


def _taught_to_chat(c: ConfigDict, splits, folder: epath.Path):
    """The tokenizer of the folder, with a template if the corpus has conversations."""
    held, template = sentencepiece_tokenizer.load(folder), _template(c)
    talks = any(
        "messages" in record or not all(isinstance(v, str) for v in record.values())
        for documents in splits.values()
        for record in (document.meta.get("record", {}) for document in documents)
    )
    if talks and not template and not held.chat_template:
        template = chat_template.TEMPLATES["plain"]
    if template:
        files.write_text(folder / sentencepiece_tokenizer.TEMPLATE, template)
    settings = dataclasses.asdict(chat_settings.check(_chat(c)))
    if "strftime_now" in (template or held.chat_template):
        settings["date"] = settings.get("date") or datetime.date.today().isoformat()
    if any(settings.values()):
        files.write_text(folder / chat_settings.FILE, json.dumps(settings))
    return sentencepiece_tokenizer.load(folder)


def _check_same(found: dict[str, Any], wanted: dict[str, Any], workdir) -> None:
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        differences = (f"{n} {found.get(n)}, now {wanted[n]}" for n in other)
        raise InputError(
            got=f"a tokenizer in {workdir} that was made with {'; '.join(differences)}",
            want="the same corpus and settings",
            do="choose another workdir, or delete this one",
        )


def _whole(workdir: epath.Path, result: dict[str, Any]) -> bool:
    """Whether what the report describes is all there; InputError if it was altered."""
    folders = (workdir / "tokenizer", workdir / "tokens")
    if not all(folder.exists() for folder in folders):
        return False
    fingerprint = sentencepiece_tokenizer.load(folders[0]).fingerprint
    for split in result["tokens"]:
        tokens.open_split(folders[1], split, fingerprint)
    return True
