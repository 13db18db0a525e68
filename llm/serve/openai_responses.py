"""Answers in the shapes of OpenAI's API: whole ones, and chunks of a stream."""

import codecs
import json
from collections.abc import Iterable, Sequence
from typing import Any

from llm.serve.completion import TokenFigure

_LEAST = -9999.0  # JSON has no infinity


def usage(prompts: int, answers: int) -> dict[str, int]:
    """The tokens of a request."""
    return {
        "prompt_tokens": prompts,
        "completion_tokens": answers,
        "total_tokens": prompts + answers,
    }


def sse(content: Any) -> bytes:
    """A server-sent event."""
    text = content if isinstance(content, str) else json.dumps(content)
    return f"data: {text}\n\n".encode()


class Chat:
    """/v1/chat/completions."""

    endpoint, prefix = "chat", "chatcmpl"
    whole, chunk = "chat.completion", "chat.completion.chunk"

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def choice(self, number: int, text: str, reason: str, figures: Any) -> dict:
        """A whole answer; `figures` is None where they are not wanted."""
        return {
            "index": number,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self.logprobs(figures),
            "finish_reason": reason,
        }

    def begin(self, number: int) -> dict | None:
        """The first chunk of an answer."""
        delta = {"role": "assistant", "content": ""}
        return {
            "index": number, "delta": delta, "logprobs": None, "finish_reason": None,
        }  # fmt: skip

    def piece(self, number: int, text: str, reason: str | None, figures: Any) -> dict:
        """A chunk of an answer."""
        return {
            "index": number,
            "delta": {} if reason else {"content": text},
            "logprobs": self.logprobs(figures),
            "finish_reason": reason,
        }

    def logprobs(self, figures: Iterable[TokenFigure] | None) -> dict | None:
        """Likelihoods of tokens."""
        if figures is None:
            return None
        content = [
            {
                **self._token(one.id, one.logprob or 0.0),
                "top_logprobs": [self._token(i, p) for i, p in one.likeliest],
            }
            for one in figures
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        own, pieces = piece_of(self._tokenizer, token)
        return {"token": own, "logprob": max(logprob, _LEAST), "bytes": pieces}


class Completion:
    """/v1/completions. The offsets of a stream's tokens go on from chunk to chunk."""

    endpoint, prefix = "completions", "cmpl"
    whole = chunk = "text_completion"

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._offsets: dict[int, int] = {}
        self._bytes: dict[int, Any] = {}

    def choice(self, number: int, text: str, reason: str, figures: Any) -> dict:
        """A whole answer; `figures` is None where they are not wanted."""
        return {
            "index": number,
            "text": text,
            "logprobs": self.logprobs(number, figures),
            "finish_reason": reason,
        }

    def begin(self, number: int) -> dict | None:
        """Nothing: a stream of text begins with text."""
        del number
        return None

    def piece(self, number: int, text: str, reason: str | None, figures: Any) -> dict:
        """A chunk of an answer."""
        return self.choice(number, text, reason, figures)

    def logprobs(self, number: int, figures: Sequence[TokenFigure] | None) -> Any:
        """Likelihoods of tokens."""
        if figures is None:
            return None
        offsets, at = [], self._offsets.get(number, 0)
        text = self._bytes.setdefault(
            number, codecs.getincrementaldecoder("utf-8")("replace")
        )
        for one in figures:
            offsets.append(at)
            at += len(text.decode(self._tokenizer.decode_bytes([one.id])))
        self._offsets[number] = at
        tokens = [piece_of(self._tokenizer, one.id)[0] for one in figures]
        return {
            "tokens": tokens,
            "token_logprobs": [
                None if one.logprob is None else max(one.logprob, _LEAST)
                for one in figures
            ],
            "top_logprobs": [
                None
                if one.logprob is None
                else {
                    piece_of(self._tokenizer, i)[0]: max(p, _LEAST)
                    for i, p in reversed(one.likeliest)
                }
                for one in figures
            ],
            "text_offset": offsets,
        }


def piece_of(tokenizer: Any, token: int) -> tuple[str, list[int] | None]:
    """A token as a person reads it, and its bytes; half a character as OpenAI does."""
    pieces = tokenizer.piece_bytes
    if token >= tokenizer.vocab_size or not pieces:
        known = token < tokenizer.vocab_size
        return tokenizer.pieces([token])[0] if known else f"[{token}]", None
    held = pieces[token]
    try:
        text = held.decode() or tokenizer.pieces([token])[0]
    except UnicodeDecodeError:
        text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in held)
    return text, list(held)
