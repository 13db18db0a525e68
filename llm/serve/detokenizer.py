"""From tokens to the text that a reader may see, piece by piece.

Never half a character: bytes wait until they are one, and are dropped where the answer
ends before. Never the start of a stop text: characters that it may begin with wait
until it cannot be one. Joined, the pieces are what `text_of` makes of the whole answer,
cut at the first stop.
"""

import codecs
from collections.abc import Sequence
from typing import Any

from llm.inference.decoding import known_bytes


class Writer:
    """See the module docstring.

    Attributes:
      text: all that was released.
      stopped: the stop text that was met, if any.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self.text, self.stopped = "", ""
        self._stops = tuple(stops)
        self._tokenizer = tokenizer
        self._whole = tokenizer.piece_bytes is None
        self._ids: list[int] = []
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def write(self, ids: Sequence[int], last: bool = False) -> str:
        """The text that tokens, after those before, let the reader see.

        Args:
          last: nothing follows: what waited is released.
        """
        if self.stopped:
            return ""
        self._held += self._bytes.decode(self._new_bytes(ids))
        found = [(self._held.find(stop), stop) for stop in self._stops]
        found = [one for one in found if one[0] >= 0]
        if found:
            at, self.stopped = min(found)
            new, self._held = self._held[:at], ""
        else:
            keep = 0 if last else self._may_begin()
            cut = len(self._held) - keep
            new, self._held = self._held[:cut], self._held[cut:]
        self.text += new
        return new

    def _new_bytes(self, ids: Sequence[int]) -> bytes:
        if not self._whole:
            return self._tokenizer.decode_bytes(ids)
        # Where pieces have no bytes of their own, only whole texts are known.
        before = len(known_bytes(self._tokenizer, self._ids))
        self._ids += ids
        return known_bytes(self._tokenizer, self._ids)[before:]

    def _may_begin(self) -> int:
        """Characters at the end that a stop text may begin with."""
        held = self._held
        longest = max(map(len, self._stops), default=0)
        for size in range(min(longest - 1, len(held)), 0, -1):
            if any(stop.startswith(held[-size:]) for stop in self._stops):
                return size
        return 0
