"""Tokenizers of imported models: the facade of `Tokenizer` on the library `tokenizers`.

A folder holds `tokenizer.json`, which is about it as ours are (kind 'hf', size,
fingerprint, the special ids), and `hf/` with the files that came with the model, word
for word. What a text begins with, which ids end one and which are special stands in
several of those files; it is worked out once, when the model is imported.

`encode` is what the library makes of a text, in which a control token that is spelled
out, such as `<|im_end|>`, is text (`llm/tokenizers/control_tokens.py`), unless
`chat.parse_special` says otherwise.
`decode_bytes` joins the bytes of the pieces, as ours does: nothing is cut off at the
front, so that what a model continues with keeps its space.

    tokenizer = save(folder, read_files(hugging_face_folder), rows=49152, fields={})
    tokenizer.decode(tokenizer.encode("a text"))
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from llm.errors import InputError
from llm.files import folder
from llm.tokenizers import Tokenizer, chat_settings, control_tokens
from llm.tokenizers.piece_bytes import contents_of
from llm.tokenizers.utf8 import check_encodable

KIND = "hf"
FOLDER = "hf"
_MAIN, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_MAP = "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
FILES = (_MAIN, _CONFIG, _MAP, _TEMPLATE)
_BROKEN = (LookupError, AttributeError, TypeError, ValueError, RecursionError)
_SPARE = 1 << 16  # ids beyond the tokens of a tokenizer, and the rows of its model
_SPECIAL = ("pad", "unk", "bos", "eos")
_NAMED = ("sep", "cls", "mask")  # which templates may write, too, if there are any


@dataclasses.dataclass(frozen=True)
class ForeignTokenizer(Tokenizer):
    """Text to token ids and back, as `Tokenizer`; ids that it lacks are -1.

    Attributes:
      library: a `tokenizers.Tokenizer`.
      vocab_size: the larger of the tokenizer's and of the model's.
      ends: ids that end a text, `eos_id` first.
      never: ids that no text holds.
      piece_bytes: the bytes of each id, b"" for special ones; None where the decoder is
        of another kind, as WordPiece's, and only `decode` knows.
      space_prefix: whether `encode` puts a space before a text.
      files: {name: text} of what came with the model.
      chat: how conversations become tokens.
    """

    library: Any
    fingerprint: str
    vocab_size: int
    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    starts: tuple[int, ...]
    finishes: tuple[int, ...]
    ends: tuple[int, ...]
    never: tuple[int, ...]
    piece_bytes: tuple[bytes, ...] | None
    space_prefix: bool
    files: Mapping[str, str]
    kind: str = KIND
    chat: chat_settings.Chat = chat_settings.DEFAULT

    def start(self) -> list[int]:
        """The ids that a text begins with; many tokenizers have none."""
        return list(self.starts)

    def finish(self) -> list[int]:
        """The ids that the library puts behind a text, such as [SEP]; most have none.

        A model that goes on with a text must not be given them.
        """
        return list(self.finishes)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added at its ends."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        for text in texts:
            check_encodable(text)
        library = self.library if self.chat.parse_special else self._ordinary
        made = library.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in made]

    def encode_shielded(self, text: str, *, first: bool) -> list[int]:
        """Token ids of what a template wrote of shielded messages, piece by piece.

        Args:
          first: whether the text is the beginning of a longer one.
        """
        check_encodable(text)
        control_tokens.check_whole(text)
        tokens, ids, at = self._added, [], 0
        pattern = control_tokens.unshielded(tokens)
        for found in pattern.finditer(text) if pattern else ():
            token = tokens[found[0]]
            before = text[at : found.start()]
            before = before.rstrip() if token["lstrip"] else before
            ids += self._piece(before, first and at == 0)
            ids.append(token["id"])
            at = found.end()
            if token["rstrip"]:
                at += len(text[at:]) - len(text[at:].lstrip())
        return ids + self._piece(text[at:], first and at == 0)

    def _piece(self, text: str, first: bool) -> list[int]:
        library = self._beginning if first else self._inside
        text = text.replace(control_tokens.SHIELD, "")
        return library.encode(text, add_special_tokens=False).ids if text else []

    def typed(self, by_assistant: bool) -> re.Pattern | None:
        """What a person may type that the library would take for a control token."""
        return self._patterns[by_assistant]

    @functools.cached_property
    def controls(self) -> tuple[str, ...]:
        """Spellings of control tokens."""
        return tuple(control_tokens.spellings(self._held)[0])

    @property
    def end_marks(self) -> tuple[str, ...]:
        """Spellings of the tokens that end a text."""
        return tuple(self.pieces([i])[0] for i in self.ends)

    @functools.cached_property
    def mask_id(self) -> int:
        """The id of a masked token, or -1."""
        ids = map(self.library.token_to_id, ("[MASK]", "<mask>"))
        return next((i for i in ids if i is not None), -1)

    @functools.cached_property
    def _patterns(self) -> tuple[re.Pattern | None, re.Pattern | None]:
        control, tags = control_tokens.spellings(self._held)
        return control_tokens.any_of([*control, *tags]), control_tokens.any_of(control)

    @functools.cached_property
    def _held(self) -> dict[str, Any]:
        return json.loads(self.files[_MAIN])

    @functools.cached_property
    def _added(self) -> dict[str, dict[str, Any]]:
        flags = {"lstrip": False, "rstrip": False}
        return {t["content"]: flags | t for t in self._held.get("added_tokens") or ()}

    @functools.cached_property
    def normalised(self) -> bool:
        """Whether the library takes other spellings for control tokens, too."""
        return control_tokens.normalised(self._held)

    @functools.cached_property
    def _ordinary(self) -> Any:
        return _ordinary(self._held)

    # Tags that are not shielded are tokens before a piece is encoded.
    @functools.cached_property
    def _beginning(self) -> Any:
        return _ordinary(self._held, tags=False)

    @functools.cached_property
    def _inside(self) -> Any:
        return _ordinary(self._held, inside=True, tags=False)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids, which may end inside a character."""
        ids = self._checked(ids)
        if self.piece_bytes is None:
            return self.decode(ids).encode()
        return b"".join([self.piece_bytes[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special ids are nothing, broken UTF-8 is U+FFFD."""
        ids = self._checked(ids)
        if self.piece_bytes is None:
            return self.library.decode(ids, skip_special_tokens=True)
        text = self.decode_bytes(ids).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.space_prefix else text

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Token ids as a person reads them: one string each."""
        found = []
        for i in self._checked(ids):
            content = self.piece_bytes[i] if self.piece_bytes else b""
            name = self.library.id_to_token(i) or f"[{i}]"
            found.append(content.decode("utf-8", "replace") if content else name)
        return found

    @property
    def chat_template(self) -> str:
        """The Jinja template that makes a text of messages; '' where there is none."""
        return _template(self.files)

    @property
    def spellings(self) -> dict[str, str]:
        """`bos_token` and the like as a chat template writes them."""
        settings = _settings(self.files)
        names = {f"{n}_token": _content(settings.get(f"{n}_token")) for n in _SPECIAL}
        names = {name: text or "" for name, text in names.items()}
        more = {f"{n}_token": settings.get(f"{n}_token") for n in _NAMED}
        extra = settings.get("extra_special_tokens")
        more |= extra if isinstance(extra, dict) else {}
        texts = {name: _content(token) for name, token in more.items() if token}
        return names | {n: text for n, text in texts.items() if isinstance(text, str)}

    def encode_with_offsets(
        self, text: str
    ) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Token ids, and from which character to which each token reaches.

        None where the library itself may not look for control tokens in the text.
        """
        check_encodable(text)
        if not self.chat.parse_special:
            control_tokens.check_whole(text)
            if control_tokens.SHIELD in text or self.normalised:
                return None
        made = self.library.encode(text, add_special_tokens=False)
        return made.ids, made.offsets

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids]
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            raise InputError(
                got=f"token id {max(ids, key=abs)}", want=f"0 to {self.vocab_size - 1}"
            )
        return ids


def read_files(folder: epath.PathLike) -> dict[str, str]:
    """The tokenizer's files of a model folder; InputError without a tokenizer.json."""
    folder = epath.Path(folder)
    if not (folder / _MAIN).exists():
        raise InputError(
            got=f"no {_MAIN} in {folder}",
            want="the tokenizer of the model",
            do="save it again with a current transformers, which writes one",
        )
    try:
        return {
            n: (folder / n).read_text("utf-8") for n in FILES if (folder / n).exists()
        }
    except UnicodeDecodeError as error:
        raise _broken(folder, error) from error


def save(
    directory: epath.PathLike,
    files: Mapping[str, str],
    *,
    rows: int,
    fields: Mapping[str, Any],
    kind: str = KIND,
) -> ForeignTokenizer:
    """Writes a tokenizer to the folder `directory` and returns it.

    Args:
      files: {name: text}, of FILES.
      rows: the model's vocabulary.
      fields: of the model's config: `eos_token_id` and the like, an id or a list.
      kind: one of `vocabularies.KINDS` for those that are trained here.

    Raises:
      InputError: files that are no tokenizer's.
    """
    library = _library(files, directory)
    try:
        about = _about(library, files, rows, fields) | {"kind": kind}
        made = _made(library, files, about)
    except _BROKEN as error:
        raise _broken(directory, error) from error
    about["fingerprint"] = made.fingerprint
    with folder(directory) as partial:
        (partial / FOLDER).mkdir()
        for name, text in files.items():
            (partial / FOLDER / name).write_text(text, encoding="utf-8")
        (partial / _MAIN).write_text(json.dumps(about, indent=1), encoding="utf-8")
    return made


def load(
    directory: epath.PathLike, about: Mapping[str, Any], template: str = ""
) -> ForeignTokenizer:
    """The tokenizer of a folder that `save` wrote, with what it says about it.

    Args:
      template: takes the place of the chat template that came with it.
    """
    folder = epath.Path(directory)
    files = read_files(folder / FOLDER)
    files |= {_TEMPLATE: template} if template else {}
    library = _library(files, folder)
    try:
        made = _made(library, files, about)
        whole = made.fingerprint == about["fingerprint"]
    except _BROKEN:
        whole = False
    if not whole:
        raise InputError(
            got=f"an altered tokenizer in {folder}",
            want="the files that convert wrote",
            do="restore or convert it again",
        )
    return made


def package() -> Any:
    """The package `tokenizers`; InputError where it is missing."""
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise _lacking("tokenizers") from error
    return tokenizers


def _library(files, where):
    tokenizers = package()
    try:
        library = tokenizers.Tokenizer.from_str(files[_MAIN])
    except Exception as error:  # the library raises nothing narrower
        raise _broken(where, error) from error
    library.no_truncation()
    library.no_padding()
    return library


def _ordinary(held, **how):
    """The library of a tokenizer.json that takes control tokens for text."""
    text = json.dumps(control_tokens.ordinary(held, **how))
    return _library({_MAIN: text}, "texts")


def _about(library, files, rows, fields) -> dict[str, Any]:
    """What is to be known about a tokenizer, from all that its files say."""
    settings = _settings(files)
    _template(files)  # or refused here, before a model is taught to chat
    known = library.get_vocab(with_added_tokens=True)
    size = max(rows, max(known.values(), default=-1) + 1)
    if size > max(rows, len(known)) + _SPARE:  # before so much memory is asked for
        raise ValueError(f"id {size - 1} of {len(known)} tokens")
    ids = {}
    for name in _SPECIAL:
        text = _content(settings.get(f"{name}_token"))
        listed = [i for i in _listed(fields.get(f"{name}_token_id")) if 0 <= i < size]
        ids[f"{name}_id"] = known.get(text, listed[0] if listed else -1)
    ends = [ids["eos_id"], *_listed(fields.get("eos_token_id"))]
    starts, finishes = _around(library)
    starts = _as_asked(starts, ids["bos_id"], settings.get("add_bos_token"))
    finishes = _as_asked(finishes, ids["eos_id"], settings.get("add_eos_token"))
    ends = [i for i in dict.fromkeys(ends) if 0 <= i < size]
    return {
        "kind": KIND,
        "vocab_size": size,
        "rows": rows,
        **ids,
        "starts": starts,
        "finishes": finishes,
        # An encoder has no end of texts, but what stands there.
        "ends": ends or finishes,
    }


def _around(library) -> tuple[list[int], list[int]]:
    """What the library puts before and behind a text when asked for special tokens."""
    plain = library.encode("a", add_special_tokens=False).ids
    whole = library.encode("a", add_special_tokens=True).ids
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at], whole[at + len(plain) :]
    return [], []


def _as_asked(around: list[int], token: int, asked: Any) -> list[int]:
    """With the token, or without it; as it is where the settings do not say."""
    if asked is True and token >= 0 and token not in around:
        return [token, *around]
    return [i for i in around if i != token] if asked is False else around


def _made(library, files, about) -> ForeignTokenizer:
    held = json.loads(files[_MAIN])
    size, rows = about["vocab_size"], about["rows"]
    known = set(library.get_vocab(with_added_tokens=True).values())
    named = {key: value for key, value in about.items() if key != "fingerprint"}
    identity = json.dumps([held, named], sort_keys=True)
    contents, space_prefix = contents_of(held, size)
    return ForeignTokenizer(
        library=library,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:32],
        vocab_size=size,
        **{f"{name}_id": about[f"{name}_id"] for name in _SPECIAL},
        starts=tuple(about["starts"]),
        finishes=tuple(about.get("finishes", ())),  # older runs do not say
        ends=tuple(about["ends"]),
        never=tuple(i for i in range(size) if i not in known or i >= rows),
        piece_bytes=contents,
        space_prefix=space_prefix,
        files=dict(files),
        kind=about["kind"],
    )


def _settings(files) -> dict[str, Any]:
    found = {}
    for name in (_MAP, _CONFIG):
        found |= json.loads(files[name]) if name in files else {}
    return found


def _template(files) -> str:
    """The chat template of a tokenizer's files; '' where there is none."""
    if _TEMPLATE in files:
        return files[_TEMPLATE]
    found = _settings(files).get("chat_template") or ""
    if isinstance(found, list) and all(
        isinstance(one, dict) and {"name", "template"} <= one.keys() for one in found
    ):  # several, with names
        found = {one["name"]: one["template"] for one in found}.get("default", "")
    if not isinstance(found, str):
        raise InputError(
            got=f"chat_template {str(found)[:60]} in {_CONFIG}",
            want="a text, or a list of objects with name and template",
            do=f"put the template into {_TEMPLATE}",
        )
    return found


def _content(token) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _listed(value) -> list[int]:
    found = value if isinstance(value, list) else [value]
    return [one for one in found if type(one) is int]


def _broken(where, error):
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        got=f"tokenizer files for {where} that are not to be used ({reason[:200]})",
        want="tokenizer.json and its companions, as the tokenizers library has them",
    )


def _lacking(package):
    return InputError(
        got=f"no package {package}",
        want="it, for the tokenizers of imported models",
        do="pip install 'llm-lifecycle[hf]'",
    )
