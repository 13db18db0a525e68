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
        matcher = Matcher(make(library, grammar, log_level=0), self._vocab_size)
        matcher.allowed_W()  # of some, no text at all is an instance
        return matcher

    @functools.cached_property
    def _library(self):
        import llguidance

        tokenizer = self._tokenizer
        pieces = getattr(tokenizer, "piece_bytes", None)
        if not pieces or not tokenizer.ends:
            raise InputError(
                got="a tokenizer whose pieces are not known as bytes",
                want="another model, for answers that fit a grammar",
            )

        class Known:
            eos_token_id = tokenizer.ends[0]
            bos_token_id = None
            tokens = list(pieces)
            special_token_ids = [i for i, piece in enumerate(pieces) if not piece]

            def __call__(self, text):
                whole = text if isinstance(text, str) else text.decode()
                return tokenizer.encode(whole)

        wrapper = llguidance.TokenizerWrapper(Known())
        return llguidance.LLTokenizer(
            wrapper, n_vocab=tokenizer.vocab_size, eos_token=list(tokenizer.ends)
        )


class Matcher:
    """What a grammar still allows after the tokens that were taken."""

    def __init__(self, matcher: Any, vocab_size: int):
        self._matcher = matcher
        self._words = -(-vocab_size // 32)

    def allowed_W(self) -> np.ndarray:
        """A bit for every token that may come next; InputError where none may."""
        # Bytes in, words out; ids that only pad the vocabulary are never allowed.
        found = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        words_W = np.zeros(self._words, np.int32)
        words_W[: len(found)] = found[: self._words]
        if self._matcher.is_error() or not words_W.any():
            raise InputError(
                got=f"a grammar that cannot go on ({self._matcher.get_error()})",
                want="one that allows a next token",
            )
        return words_W

    def take(self, token: int) -> None:
        """Goes on after a token that was allowed."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher.is_stopped()


def _refused(reason: Any) -> InputError:
    return InputError(
        got=f"a grammar that is not to be used ({' '.join(str(reason).split())[:200]})",
        want="a JSON schema, a regular expression or a choice of texts",
    )
