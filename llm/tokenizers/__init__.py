"""The contract of a tokenizer: text to token ids and back.

There are two: models of SentencePiece (`sentencepiece_tokenizer.py`), which we train,
and what the library `tokenizers` reads (`hf_tokenizer.py`), which imported models
bring. `sentencepiece_tokenizer.load` gives either.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from llm.tokenizers.chat_settings import Chat


class Tokenizer(Protocol):
    """Text to token ids and back; an id that it lacks is -1.

    What has a body here is right where nobody can type what a template writes for BOS
    and EOS; subclasses inherit it.

    Attributes:
      fingerprint: equal exactly if two tokenizers encode alike.
      ends: ids that end a text.
      never: ids that no text holds after its start.
      piece_bytes: the bytes of each id; None where only a whole text has bytes.
      chat_template: of a model that was taught to chat, else ''.
      chat: how conversations become tokens.
      spellings: what a chat template writes for special tokens, by its names for them.
      controls, end_marks: spellings of control tokens in what a template wrote, and of
        those that end a text.
      mask_id: of the token that stands for a masked one.
    """

    kind: str
    fingerprint: str
    vocab_size: int
    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    mask_id: int = -1
    ends: tuple[int, ...]
    never: tuple[int, ...]
    piece_bytes: tuple[bytes, ...] | None
    chat_template: str
    chat: Chat
    spellings: Mapping[str, str]

    @property
    def controls(self) -> tuple[str, ...]:
        """See the attributes."""
        return tuple(self.spellings.values())

    @property
    def end_marks(self) -> tuple[str, ...]:
        """See the attributes."""
        return (self.spellings["eos_token"],)

    def start(self) -> list[int]:
        """The ids that a text begins with."""

    def finish(self) -> list[int]:
        """The ids that stand behind every text, a prompt too."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without those of its start and end."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts."""

    def encode_with_offsets(
        self, text: str
    ) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Token ids of what a template wrote, and the characters that each stands for.

        None for a text that is only encoded right in pieces, by `encode_shielded`.
        """
        return None

    def encode_shielded(self, text: str, *, first: bool) -> list[int]:
        """Token ids of a piece of what a template wrote of shielded messages.

        Args:
          first: whether it is the beginning of the whole.
        """
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        marks = {self.spellings[name]: i for name, i in ids.items()}
        made: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, marks))})", text):
            if part in marks:
                made.append(marks[part])
            elif part:
                made += self.encode(part)
        return made

    def typed(self, by_assistant: bool) -> re.Pattern | None:
        """What a person may type that would be taken for a control token, if any."""
        return None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids, which may end inside a character."""

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Token ids as a person reads them: one string each."""
