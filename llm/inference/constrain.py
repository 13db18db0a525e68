"""Answers that fit a grammar: which tokens may come next, as bits.

A JSON schema, any JSON object, a regular expression or a choice of texts, through
llguidance (the extra `serve`), which reads the bytes of a tokenizer's pieces.

`V vocab, W words of 32 bits`

    grammars = Grammars(tokenizer, model.vocab_size)
    matcher = grammars.matcher("json_schema", {"type": "object"})
    allowed_W = matcher.allowed_W()          for the engine, then
    matcher.take(token)
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llm.errors import InputError

_LONGEST = 65_536  # characters of a grammar
KINDS = ("json_schema", "json_object", "regex", "choice")


class Grammars:
    """Makes matchers for one tokenizer; the library reads it when first asked."""

    def __init__(self, tokenizer: Any, vocab_size: int):
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    def matcher(self, kind: str, what: Any) -> "Matcher":
        """A matcher of one answer.

        Args:
          kind: of KINDS.
          what: the schema, the expression or the texts; nothing for json_object.

        Raises:
          InputError: a grammar that is none, or too much of one.
        """
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise InputError(
                got="no package llguidance",
                want="it, for answers that fit a grammar",
                do="pip install 'llm-lifecycle[serve]'",
            ) from error
        if len(json.dumps(what)) > _LONGEST:
            raise InputError(
                got=f"a grammar of {len(json.dumps(what))} characters",
                want=f"at most {_LONGEST}",
            )
        # White space anywhere would let a weak model write nothing else for ever.
        how = {"whitespace_flexible": False}
        make = llguidance.LLMatcher
        try:
            if kind == "regex":
                grammar = make.grammar_from_regex(what)
            elif kind == "choice":
                texts = " | ".join(json.dumps(text) for text in what)
                grammar = make.grammar_from_lark(f"start: {texts}")
            else:
                schema = {"type": "object"} if kind == "json_object" else what
                grammar = make.grammar_from_json_schema(schema, defaults=how)
        except (ValueError, TypeError) as error:
            raise _refused(error) from error
        library = self._library
        wrong, said = make.validate_grammar_with_warnings(grammar, library)
        if wrong:
            raise _refused(" ".join(said))
        matcher = Matcher(make(library, grammar, log_level=0), self._known_W)
        matcher.allowed_W()  # of some, no text at all is an instance
        return matcher

    @functools.cached_property
    def _known_W(self) -> np.ndarray:
        """A bit for every id that a text may hold."""
        ids, tokenizer = np.arange(-(-self._vocab_size // 32) * 32), self._tokenizer
        never = set(tokenizer.never) - set(tokenizer.ends)
        known = (ids < tokenizer.vocab_size) & ~np.isin(ids, list(never))
        return np.packbits(known, bitorder="little").view("<i4")

    @functools.cached_property
    def _library(self):
        import llguidance

        tokenizer = self._tokenizer
        pieces = tokenizer.piece_bytes
        if not pieces or not tokenizer.ends:
            raise InputError(
                got="a tokenizer whose pieces are not known as bytes",
                want="another model, for answers that fit a grammar",
            )

        # The library skips bytes that no piece writes. So they get ids behind the
        # vocabulary, which are never allowed.
        written = set(pieces)
        missing = [bytes([b]) for b in range(256) if bytes([b]) not in written]
        every = [*pieces, *missing]

        class Known:
            eos_token_id = tokenizer.ends[0]
            bos_token_id = None
            tokens = every
            special_token_ids = [i for i, piece in enumerate(pieces) if not piece]

            def __call__(self, text):
                text = text if isinstance(text, str) else text.decode()
                ids = tokenizer.encode(text)
                # It takes these to be the text; some tokenizers write another, such as
                # one with a space in front.
                same = b"".join(pieces[i] for i in ids) == text.encode()
                return ids if same else cut(text.encode())

        cut = _cutter(every)
        wrapper = llguidance.TokenizerWrapper(Known())
        return llguidance.LLTokenizer(
            wrapper, n_vocab=len(every), eos_token=list(tokenizer.ends)
        )


class Matcher:
    """What a grammar still allows after the tokens that were taken."""

    def __init__(self, matcher: Any, known_W: np.ndarray):
        self._matcher, self._known_W = matcher, known_W

    def allowed_W(self) -> np.ndarray:
        """A bit for every token that may come next; InputError where none may."""
        # Bytes in, words out; only ids that a text may hold are ever allowed.
        words_W = np.zeros_like(self._known_W)
        found = np.frombuffer(self._matcher.compute_bitmask(), np.int32)[: len(words_W)]
        words_W[: len(found)] = found
        words_W &= self._known_W
        if self._matcher.is_error() or not words_W.any():
            raise self._stuck()
        return words_W

    def take(self, token: int) -> None:
        """Goes on after a token; InputError for one that the grammar does not allow."""
        if not self._matcher.consume_token(token) or self._matcher.is_error():
            raise self._stuck()

    @property
    def finished(self) -> bool:
        """Whether the text is whole, and nothing may follow but the end."""
        matcher = self._matcher
        # It also stops where it gives up, in the middle of a text.
        return matcher.is_stopped() and matcher.is_accepting()

    def _stuck(self) -> InputError:
        reason = self._matcher.get_error().partition("\n")[0] or "no token fits"
        return InputError(
            got=f"a grammar that cannot go on ({reason[:200]})",
            want="one that allows a next token of this model's vocabulary",
        )


def _cutter(pieces: Sequence[bytes]) -> Callable[[bytes], list[int]]:
    """A function that cuts bytes, each time into the longest piece that is there."""
    ids: dict[bytes, int] = {}
    for i, piece in enumerate(pieces):
        if piece:
            ids.setdefault(piece, i)
    longest = max(map(len, ids))

    def cut(content):
        out, at = [], 0
        while at < len(content):
            parts = (content[at : at + size] for size in range(longest, 0, -1))
            piece = next(part for part in parts if part in ids)
            out.append(ids[piece])
            at += len(piece)
        return out

    return cut


def _refused(reason: Any) -> InputError:
    return InputError(
        got=f"a grammar that is not to be used ({' '.join(str(reason).split())[:200]})",
        want="a JSON schema, a regular expression or a choice of texts",
    )
