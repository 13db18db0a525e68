"""What a server did for one request, as a line of its log; no text unless asked for.

The server writes these lines, and `llm/serve/drift.py` compares windows of them.

    line = of(time.time(), ids_of_prompt, ids_of_answer, log_probs, ...).line()
    records = read("requests.jsonl")
"""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from llm import files
from llm.errors import InputError
from llm.json_text import parsed

_NUMBERS = (
    "time",
    "prompt_tokens",
    "completion_tokens",
    "mean_logprob",
    "fallback_share",
    "latency",
)
_TEXTS = ("finish_reason", "language", "prompt", "completion")
_REQUIRED = ("time", "prompt_tokens", "completion_tokens")


class Record(NamedTuple):
    """One request.

    Attributes:
      time: seconds since 1970.
      finish_reason: stop, length, cancelled, blocked, error.
      mean_logprob: of the tokens of the answer, in nats; None where it is not known.
      fallback_share: of the prompt's tokens that stand for single bytes beyond ASCII,
        which a tokenizer takes for what it has not learned.
      language: of the prompt, two letters; '' where it is not known.
      latency: seconds until the last token.
      prompt, completion: '' unless texts are logged.
    """

    time: float
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str = ""
    mean_logprob: float | None = None
    fallback_share: float | None = None
    language: str = ""
    latency: float | None = None
    prompt: str = ""
    completion: str = ""

    def line(self) -> str:
        """The record as a line of the log, without what is not known."""
        known = {k: v for k, v in self._asdict().items() if v not in (None, "")}
        return json.dumps(known, ensure_ascii=False) + "\n"


def of(
    time: float,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    logprobs: Sequence[float] = (),
    *,
    tokenizer: Any = None,
    text: str = "",
    finish_reason: str = "",
    latency: float | None = None,
    keep: tuple[str, str] = ("", ""),
) -> Record:
    """The record of a request.

    Args:
      tokenizer: says which ids stand for single bytes; None does not look.
      text: the prompt, of which only the language is kept.
      keep: prompt and answer, where texts are logged.
    """
    return Record(
        time=time,
        prompt_tokens=len(prompt_ids),
        completion_tokens=len(completion_ids),
        finish_reason=finish_reason,
        mean_logprob=sum(logprobs) / len(logprobs) if len(logprobs) else None,
        fallback_share=fallback_share(tokenizer, prompt_ids)
        if tokenizer is not None and len(prompt_ids)
        else None,
        language=language(text) if text else "",
        latency=latency,
        prompt=keep[0],
        completion=keep[1],
    )


def fallback_share(tokenizer: Any, ids: Sequence[int]) -> float | None:
    """Share of ids that stand for one byte beyond ASCII; None if none can tell."""
    contents = tokenizer.piece_bytes
    if contents is None or not len(ids):
        return None
    bytes_of = [contents[i] for i in ids]
    return sum(len(b) == 1 and b[0] >= 128 for b in bytes_of) / len(bytes_of)


def language(text: str) -> str:
    """The language of a text by py3langid; '' where that is not installed."""
    try:
        import py3langid
    except ModuleNotFoundError:
        return ""
    return py3langid.classify(text[:2000])[0]


def read(path: str) -> list[Record]:
    """The records of a log, in the order of their times.

    Raises:
      InputError: no such file, an empty one, or a line that is no record.
    """
    try:
        lines = pathlib.Path(path).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            got=f"{path} ({reason}){files.relative_to(path)}",
            want="a log of requests, a record a line",
        ) from error
    found = [_record(path, n, x) for n, x in enumerate(lines, 1) if x.strip()]
    if not found:
        raise InputError(got=f"no records in {path}", want="a log that is not empty")
    return sorted(found, key=lambda record: record.time)


def _record(path: str, number: int, line: str) -> Record:
    where = f"{path}, line {number}"
    again = "if the server was cut off while writing, remove that line"
    fields = parsed(where, line, "a record a line", again)
    if not isinstance(fields, dict):
        raise InputError(got=f"{where}: {line[:60]}", want="a record in {...}")
    for name in _REQUIRED:
        if name not in fields:
            raise InputError(got=f"{where} without {name}", want=", ".join(_REQUIRED))
    for names, kind in ((_NUMBERS, (int, float)), (_TEXTS, str)):
        for name in names:
            value = fields.get(name)
            wrong = isinstance(value, bool) or not isinstance(value, kind)
            if value is not None and (
                wrong or (kind is not str and not math.isfinite(value))
            ):
                raise InputError(
                    got=f"{where} with {name} {value!r:.40}",
                    want="a text" if kind is str else "a number",
                )
    known = {k: v for k, v in fields.items() if k in Record._fields and v is not None}
    return Record(**known)
