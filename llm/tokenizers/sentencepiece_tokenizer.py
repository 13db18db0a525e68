"""The tokenizer: SentencePiece, set up so that any string comes back as it was.

SentencePiece (Kudo and Richardson 2018) trains and applies BPE, unigram and character
models in C++. Out of the box it changes text (NFKC, a space in front, runs of spaces
made one) and knows no bytes; here normalisation is the identity, no space is added or
removed, and characters outside the vocabulary become byte pieces. What is left is its
own mark for a space, U+2581: a text that holds that very character gets the three byte
pieces of it, and `decode` joins bytes itself. So `decode(encode(text)) == text` for any
text but one with lone surrogates, which UTF-8 cannot hold.

Two settings fit source code (figures: held-out Python, 4096 pieces): the most frequent
runs of white space in the corpus, such as a newline with eight spaces, are pieces and
never part of another, so that a line always starts a token (3.46 to 3.54 bytes a
token); and pieces may mix letters and punctuation, as in `(self,` (to 3.73). Pieces
that span words reach 4.00, but then the end of a prompt seldom ends a token.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from llm import files
from llm.errors import InputError
from llm.tokenizers import Tokenizer, chat_settings, hf_tokenizer, vocabularies
from llm.tokenizers.chat_template import mark
from llm.tokenizers.tokenizer_json import USER_DEFINED
from llm.tokenizers.utf8 import check_encodable

SENTENCEPIECE = ("bpe", "unigram", "char")
KINDS = (*SENTENCEPIECE, *vocabularies.KINDS)
TEMPLATE = "chat_template.jinja"  # of the folder, where there is one
PAD, UNK, BOS, EOS = 0, 1, 2, 3

_SPACE = "\u2581"  # SentencePiece's mark for a space
_RESERVED = "\u2581\u2585"  # its own characters; it skips texts with the second one
_RUNS = re.compile(r"\n[\n\t ]*| {2,}")
_GOES_ON = re.compile(r"[^ \n\t]([ \n\t])")
_REMEMBERED, _LONGEST = 500_000, 40  # words, and characters of one
_META = 256 + 4  # byte pieces and special ones
_ROOM = 40  # the fewest pieces beside those
_TRAIN_BYTES = 100_000_000  # more text changes the vocabulary little
_CHUNK = 1 << 20  # characters handed to the trainer at once
_STEPS = 256  # of a score of a unigram model, to 1
_EXACT = 2000  # characters, whose scores add up to less than 65,536
_COVERAGE = 0.9999  # of the characters of the corpus that are pieces, if they fit
_THREADS = 2  # unigram models depend on it, so it is fixed


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer(Tokenizer):
    """Text to token ids and back.

    Attributes:
      fingerprint: hash of the pieces, their scores, kinds and the special ids: equal
        exactly if two tokenizers encode alike, wherever their files lie.
      kind: bpe, unigram or char.
      piece_bytes: the bytes that each id stands for; b"" for the special ones.
      chat_template: of a model that was taught to chat (`llm/data/chat.py`), else ''.
      chat: how conversations become tokens.
      symbols: finds the pieces that are never part of another, in a unigram model with
        rounded scores; else None.
      words: ids of words with the white space before them, as they are met; None for
        unigram, and where pieces go on from words into any white space: what the ids of
        a word are then depends on what is around it.
    """

    processor: sentencepiece.SentencePieceProcessor
    fingerprint: str
    kind: str
    piece_bytes: tuple[bytes, ...]
    pad_id: int = PAD
    unk_id: int = UNK
    bos_id: int = BOS
    eos_id: int = EOS
    chat_template: str = ""
    symbols: re.Pattern | None = None
    words: "_Words | None" = None
    chat: chat_settings.Chat = chat_settings.DEFAULT

    @property
    def spellings(self) -> dict[str, str]:
        """What a chat template writes for BOS and EOS; no text can hold it."""
        return {"bos_token": mark("bos"), "eos_token": mark("eos")}

    @property
    def vocab_size(self) -> int:
        """Pieces, special ones included."""
        return len(self.piece_bytes)

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids that end a text."""
        return (self.eos_id,)

    @property
    def never(self) -> tuple[int, ...]:
        """Ids that no text holds after its start."""
        return (self.pad_id, self.unk_id, self.bos_id)

    def start(self) -> list[int]:
        """The ids that a text begins with."""
        return [self.bos_id]

    def finish(self) -> list[int]:
        """The ids that stand behind every text: none; EOS ends documents."""
        return []

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without BOS and EOS; InputError for lone surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; words that were met before are not cut again."""
        for text in texts:
            check_encodable(text)
        parts = [text.split(_SPACE) for text in texts]
        encoded = iter(self._encoded([p for some in parts for p in some]))
        mark = [self.processor.piece_to_id(f"<0x{b:02X}>") for b in _SPACE.encode()]
        ids = []
        for some in parts:
            joined = next(encoded)
            for _ in some[1:]:
                joined = joined + mark + next(encoded)
            ids.append(joined)
        return ids

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        if self.symbols:
            return self._around_symbols(texts)
        if self.words is None:
            return self.processor.encode(texts)
        of_word, apart = self.words.__getitem__, self.words.apart
        return [
            list(itertools.chain.from_iterable(map(of_word, apart(text))))
            for text in texts
        ]

    def _around_symbols(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts of a unigram model, with its symbols taken out first.

        Between them, sums of rounded scores are exact, so that other libraries cut a
        text as we do, wherever it stands.
        """
        cut = [self.symbols.split(text) for text in texts]
        parts = [[self._parts(p) for p in some[::2]] for some in cut]
        encoded = iter(
            self.processor.encode([p for some in parts for one in some for p in one])
        )
        ids = []
        for some, one_text in zip(cut, parts, strict=True):
            joined = []
            for symbol, between in zip(["", *some[1::2]], one_text, strict=True):
                if symbol:
                    piece = symbol.replace(" ", _SPACE)
                    joined.append(self.processor.piece_to_id(piece))
                for _ in between:
                    joined += next(encoded)
            ids.append(joined)
        return ids

    def _parts(self, text: str) -> list[str]:
        """A text, cut where no piece can go on if it is long."""
        parts, start = [], 0
        while len(text) - start > _EXACT:
            at = start + _EXACT
            while at < len(text) and text[at - 1 : at + 1] in self.pairs:
                at += 1
            parts.append(text[start:at])
            start = at
        return [*parts, text[start:]]

    @functools.cached_property
    def pairs(self) -> frozenset[str]:
        """All that stands side by side in some piece."""
        texts = (piece.replace(_SPACE, " ") for piece, _, _ in self.table())
        return frozenset(
            text[i : i + 2] for text in texts for i in range(len(text) - 1)
        )

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids, which may end inside a character."""
        ids = [int(i) for i in ids]
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            raise InputError(
                got=f"token id {max(ids, key=abs)}", want=f"0 to {self.vocab_size - 1}"
            )
        return b"".join([self.piece_bytes[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special ids are nothing, broken UTF-8 is U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Token ids as a person reads them: one string each."""
        return [
            self.decode([i]) if self.piece_bytes[i] else self.processor.id_to_piece(i)
            for i in map(int, ids)
        ]

    def table(self) -> list[tuple[str, float, int]]:
        """(piece, score, kind) of each id, as SentencePiece has them.

        Kinds are numbered as in `llm/tokenizers/tokenizer_json.py`.
        """
        return [(p.piece, p.score, p.type) for p in _proto(self.model).pieces]

    @property
    def model(self) -> bytes:
        """The SentencePiece model file."""
        return self.processor.serialized_model_proto()


def train(
    texts: Iterable[str],
    directory: epath.PathLike,
    *,
    vocab_size: int,
    kind: str = "bpe",
    lowercase: bool = False,
    split_digits: bool = False,
    symbols: Sequence[str] = (),
    seed: int = 0,
) -> Tokenizer:
    """Trains a tokenizer and writes it to the folder `directory`.

    Args:
      texts: the corpus, which is gone through more than once; of more than 100 MB, a
        random choice of that size.
      vocab_size: pieces, with 256 byte pieces and 4 special ones; of a char model the
        most, which it may not reach.
      kind: bpe, unigram or char, or one of `llm/tokenizers/vocabularies.py`.
      lowercase: of those that lose it: word and wordpiece.
      split_digits: whether each digit is a piece of its own; of SentencePiece's kinds.
      symbols: texts that are always one piece, and never part of another; likewise.
      seed: of that random choice.

    Raises:
      InputError: an unknown kind, an empty corpus, or one too small for `vocab_size`.
    """
    if kind not in KINDS:
        raise InputError(got=f"tokenizer kind {kind!r}", want=" or ".join(KINDS))
    if kind in vocabularies.KINDS:
        if split_digits or symbols:
            raise InputError(
                got=f"tokenizer.split_digits or tokenizer.symbols with the kind {kind}",
                want=" or ".join(SENTENCEPIECE),
            )
        return vocabularies.train(
            _sample(texts, seed), directory,
            vocab_size=vocab_size, kind=kind, lowercase=lowercase,
        )  # fmt: skip
    if lowercase:
        raise InputError(
            got=f"tokenizer.lowercase with the kind {kind!r}",
            want="word or wordpiece, or tokenizer.lowercase=False",
        )
    if vocab_size < _META + _ROOM:
        raise InputError(
            got=f"vocab_size {vocab_size}",
            want=f"{_META + _ROOM} or more: 256 are for bytes and 4 are special",
        )
    given = _given(symbols)
    if vocab_size < _META + _ROOM + len(given):
        raise InputError(
            got=f"{len(given)} tokenizer.symbols in a vocab_size of {vocab_size}",
            want="a vocabulary with room for letters, too",
        )
    texts = _sample(texts, seed)
    chars, runs = collections.Counter(), collections.Counter()
    for text in texts:
        chars.update(text)
        runs.update(_RUNS.findall(text))
    if not chars:
        raise InputError(got="a corpus without text", want="text to train on")
    always = given
    if kind != "char":
        # By frequency, then by text: a Counter keeps the order of the corpus.
        common = sorted(runs, key=lambda run: (-runs[run], run))
        common = common[: min(vocab_size // 64, 64)]
        found = (run.replace(" ", _SPACE) for run in common if runs[run] > 1)
        always = list(dict.fromkeys([*given, *found]))
    room = vocab_size - _META - len(always)
    rare = _rare(chars, room if kind == "char" else room // 2)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chunks(texts, rare),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=kind,
            character_coverage=1.0,
            hard_vocab_limit=kind != "char",
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            split_digits=split_digits,
            user_defined_symbols=always,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            max_sentence_length=8 * _CHUNK,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(error, vocab_size) from error
    content = model.getvalue()
    if kind == "unigram":
        content = _with_rounded_scores(content)
    tokenizer = _from_model(content, kind)
    about = {
        "kind": kind,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "sentencepiece": sentencepiece.__version__,
    }
    with files.folder(directory) as partial:
        (partial / "tokenizer.model").write_bytes(content)
        (partial / "tokenizer.json").write_text(
            json.dumps(about, indent=1), encoding="utf-8"
        )
    return tokenizer


def _given(symbols: Sequence[str]) -> list[str]:
    """Symbols as SentencePiece writes them.

    Raises:
      InputError: one that is no text, or that stands twice.
    """
    for n, symbol in enumerate(symbols):
        text = isinstance(symbol, str) and symbol.strip()
        if not text or set(symbol) & {*_RESERVED, "\0"} or symbol in symbols[:n]:
            raise InputError(
                got=f"tokenizer.symbols {tuple(symbols)!r}",
                want="different texts that are more than white space",
            )
    return [symbol.replace(" ", _SPACE) for symbol in symbols]


def load(directory: epath.PathLike) -> Tokenizer:
    """The tokenizer of a folder that `train` or `convert` wrote.

    Raises:
      InputError: there is none, or its files do not belong together.
    """
    folder = epath.Path(directory)
    try:
        about = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        foreign = about["kind"] in (hf_tokenizer.KIND, *vocabularies.KINDS)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        foreign = False  # what is wrong is said below
    beside = folder / TEMPLATE
    template = beside.read_text("utf-8") if beside.exists() else ""
    if foreign:
        made = hf_tokenizer.load(folder, about, template)
        return dataclasses.replace(made, chat=chat_settings.load(folder))
    try:
        about = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        tokenizer = _from_model(
            (folder / "tokenizer.model").read_bytes(), about["kind"]
        )
        whole = tokenizer.fingerprint == about["fingerprint"]
    except FileNotFoundError as error:
        raise InputError(
            got=f"no tokenizer in {folder}",
            want="tokenizer.model and tokenizer.json",
            do="run the train_tokenizer workload",
        ) from error
    except (ValueError, KeyError, TypeError, RuntimeError):
        whole = False
    if not whole:
        raise InputError(
            got=f"an altered tokenizer in {folder}",
            want="the files that train_tokenizer wrote",
            do="restore or train it again",
        )
    return dataclasses.replace(
        tokenizer, chat_template=template, chat=chat_settings.load(folder)
    )


def copy(source: epath.PathLike, directory: epath.PathLike) -> None:
    """Copies the folder of a tokenizer, with what chat template it has."""
    source = epath.Path(source)
    load(source)  # before anything is written
    with files.folder(directory) as partial:
        for folder in (source, source / hf_tokenizer.FOLDER):
            if not folder.exists():
                continue
            into = partial / folder.relative_to(source)
            into.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if not file.is_dir():
                    (into / file.name).write_bytes(file.read_bytes())


def _from_model(model: bytes, kind: str) -> SentencePieceTokenizer:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    rows, contents = [], []
    for i in range(processor.get_piece_size()):
        piece = processor.id_to_piece(i)
        kinds = (processor.is_byte, processor.is_control, processor.is_unknown)
        byte, control, unknown = (is_kind(i) for is_kind in kinds)
        rows.append([piece, processor.get_score(i).hex(), byte, control, unknown])
        if byte:
            contents.append(bytes([int(piece[1:-1], 16)]))
        else:
            special = control or unknown
            contents.append(b"" if special else piece.replace(_SPACE, " ").encode())
    identity = json.dumps([rows, PAD, UNK, BOS, EOS])
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:32]
    joins = {
        joint
        for piece, *_ in rows
        for joint in _GOES_ON.findall(piece.replace(_SPACE, " "))
    }
    # Sums of scores round otherwise in a longer text, and so are equal elsewhere.
    exact = kind != "unigram" and len(joins) < 3
    words = _Words(processor, joins) if exact else None
    symbols = _symbols(processor) if kind == "unigram" else None
    return SentencePieceTokenizer(
        processor, fingerprint, kind, tuple(contents), symbols=symbols, words=words
    )


def _symbols(processor) -> re.Pattern | None:
    """What finds the user-defined pieces of a unigram model, the longest first.

    None where scores are not rounded, as before version 0.1 was finished: these models
    cut texts as they always did.
    """
    pieces = _proto(processor.serialized_model_proto()).pieces
    if any(piece.score * _STEPS % 1 for piece in pieces):
        return None
    user_defined = [piece.piece for piece in pieces if piece.type == USER_DEFINED]
    symbols = [piece.replace(_SPACE, " ") for piece in user_defined]
    longest = sorted(symbols, key=lambda symbol: (-len(symbol), symbol))
    # Without any, something that no text holds.
    return re.compile("(" + ("|".join(map(re.escape, longest)) or r"(?!)") + ")")


def _with_rounded_scores(model: bytes) -> bytes:
    """A model whose scores are multiples of 1/256.

    SentencePiece adds 32-bit numbers, and what is as likely is told apart by how they
    round, which depends on the text before. Sums of these are exact up to 65,536.
    """
    rounded = _proto(model)
    for piece in rounded.pieces:
        piece.score = round(piece.score * _STEPS) / _STEPS
    return rounded.SerializeToString()


def _proto(model: bytes) -> sentencepiece_model_pb2.ModelProto:
    """A model file as its protocol buffer."""
    return sentencepiece_model_pb2.ModelProto.FromString(model)


class _Words(dict):
    """Ids of a word with the white space before it, remembered; safe among threads.

    Args:
      joins: what of space, line end and tab some piece has behind another character:
        there a word goes on, as it does in tables with tabs. No piece spans two words.

    Attributes:
      apart: cuts a text into its words.
    """

    def __init__(self, processor, joins: Collection[str] = ()):
        super().__init__()
        self._encode = processor.encode
        goes_on = rf"(?:[{''.join(joins)}][ \n\t]*[^ \n\t]*)*" if joins else ""
        self.apart = re.compile(rf"[ \n\t]*[^ \n\t]+{goes_on}|[ \n\t]+").findall

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode(word))
        if len(word) <= _LONGEST and len(self) < _REMEMBERED:
            self[word] = ids
        return ids


def _sample(texts: Iterable[str], seed: int) -> list[str]:
    sizes = [len(text) for text in texts if text]
    chosen, size = set(), 0
    for i in random.Random(seed).sample(range(len(sizes)), len(sizes)):
        chosen.add(i)
        size += sizes[i]
        if size >= _TRAIN_BYTES:
            break
    return [text for i, text in enumerate(t for t in texts if t) if i in chosen]


def _rare(chars: collections.Counter, most: int) -> set[str]:
    """Characters that are left to the byte pieces: the last 0.01 %, all past `most`."""
    left = sum(chars.values()) * (1 - _COVERAGE)
    rare = set(_RESERVED)
    ranked = sorted(chars, key=lambda char: (chars[char], char))
    for i, char in enumerate(ranked):
        left -= chars[char]
        if left < 0 and len(ranked) - i <= most:
            break
        rare.add(char)
    return rare


def _chunks(texts: list[str], rare: set[str]) -> Iterator[str]:
    table = {ord(char): "\n" for char in rare}
    for text in texts:
        text = text.translate(table)
        for start in range(0, len(text), _CHUNK):
            yield text[start : start + _CHUNK]


def _explained(error: RuntimeError, vocab_size: int) -> Exception:
    most = re.search(r"value <= (\d+)", str(error))
    if most:
        return InputError(
            got=f"vocab_size {vocab_size}",
            want=f"at most {most[1]} for a corpus this small",
            do="set tokenizer.vocab_size, or add text",
        )
    if re.search(r"sentences_\.empty|all_chars_count", str(error)):
        return InputError(got="a corpus without text", want="text to train on")
    return error
