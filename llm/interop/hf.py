"""Models in the form of Hugging Face: a folder with config.json and safetensors.

Every model file has a table of names (`llm/nn/hf_names.py`); this file is the one place
that follows them, in both directions and a tensor at a time: beside the parameters
themselves, never more than one tensor is in memory.

    found = read(folder)                        # which model it is, and its knobs
    params = load_params(found, abstract)       # numpy, float32
    write(folder, name, knobs, params, vocab_size)
"""

import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from llm import registry, tree
from llm.errors import InputError
from llm.interop import config_fields, safetensors
from llm.nn.hf_names import HEAD, Dialect, Tensor

# Fields of config.json that are numbers in every dialect, and the largest vocabulary.
_SIZES = (
    r"(hidden|intermediate|vocab|type_vocab|moe_intermediate)_size|head_dim"
    r"|num_\w*(layers|heads|experts|buckets|per_tok)|n_(embd|head|layer|inner|positions)"
    r"|d_(model|ff|kv)|max_position_embeddings"
)
_FLOATS = r"\w*(eps|epsilon)|rope_theta"
_MOST = 2**24
_SIZE_KNOBS = (
    "layers", "encoder_layers", "decoder_layers", "width", "heads", "kv_heads",
    "head_dim", "vocab_size",
)  # fmt: skip
_FLAGS = r"tie_word_embeddings|use_\w+|is_\w+|add_\w+|scale_\w+|norm_topk_prob|\w+_bias"
_CHUNK = 1 << 22  # numbers of a tensor that are compared at once
_WRONG_FIELDS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Found(NamedTuple):
    """A foreign model: our name for it, its knobs, its vocabulary and its tensors."""

    name: str
    knobs: dict[str, Any]
    vocab_size: int
    tensors: dict[str, safetensors.Stored]
    config: dict[str, Any]


def dialects() -> dict[str, tuple[str, Dialect]]:
    """{model_type: (model, its dialect)} of all models that have one."""
    known = {}
    for name in registry.choices("models"):
        module = registry.module("models", name)
        if hasattr(module, "HF"):  # one from outside may have none
            types = module.HF.model_types
            known |= dict.fromkeys(types, (name, module.HF))
    return known


def dialect_of(name: str) -> Dialect:
    """The dialect of a model.

    Raises:
      InputError: it has none.
    """
    module = registry.module("models", name)
    if not hasattr(module, "HF"):
        raise InputError(
            got=f"a {name}, whose file has no table HF of Hugging Face's names",
            want="one that has it, to be exported",
        )
    return module.HF


def read(folder: str | os.PathLike) -> Found:
    """Opens a model folder.

    Raises:
      InputError: no such folder, an unknown architecture, or damaged files.
    """
    path = pathlib.Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        model_type = config["model_type"]
    except OSError as error:
        raise InputError(
            got=f"{path} ({error.strerror})",
            want="a folder with config.json, model.safetensors and tokenizer files",
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            got=f"{path}, which is not a model's ({error})", want="model_type in JSON"
        ) from error
    known = dialects()
    if not isinstance(model_type, str) or model_type not in known:
        raise InputError(
            got=f"model_type {model_type!r} in {path}",
            want=f"one of {', '.join(sorted(known))}",
        )
    name, dialect = known[model_type]
    _check_fields(config, path)
    tensors = safetensors.open_folder(folder)
    config = completed(config, dialect)
    try:
        watched = config_fields.Watched(config | {"tensors": tuple(tensors)})
        knobs = dialect.knobs(watched)
        config_fields.check(watched, knobs, path)
    except InputError:
        raise
    except _WRONG_FIELDS as error:
        raise InputError(
            got=f"{path} with {type(error).__name__}: {error}",
            want=f"the fields of {model_type!r}",
        ) from error
    _check_knobs(knobs, path)
    _check_copies(tensors, dialect, knobs, folder)
    vocab_size = knobs.pop("vocab_size")
    return Found(name, knobs, vocab_size, tensors, config)


def completed(config: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """A config with what its model type has where a field is missing."""
    defaults = dict(dialect.defaults.get(config["model_type"], {}))
    if "rope_theta" in (config.get("rope_parameters") or {}):
        defaults.pop("rope_theta", None)
    return {**defaults, **config}


def _check_fields(config: dict[str, Any], path: pathlib.Path) -> None:
    """Raises InputError for the first size or epsilon that no model has."""
    for field, value in config.items():
        if re.fullmatch(_SIZES, field) and value is not None:
            most = _MOST if "vocab" in field or "position" in field else _MOST >> 8
            if type(value) is not int or not 0 <= value <= most:
                raise InputError(
                    got=f"{path} with {field} {str(value)[:40]!r}",
                    want=f"a whole number from 0 to {most}",
                )
        elif re.fullmatch(_FLAGS, field) and type(value) not in (bool, type(None)):
            raise InputError(
                got=f"{path} with {field} {str(value)[:40]!r}", want="true or false"
            )
        elif re.fullmatch(_FLOATS, field) and type(value) not in (int, float):
            raise InputError(
                got=f"{path} with {field} {str(value)[:40]!r}", want="a number"
            )


def _check_copies(
    tensors: dict[str, safetensors.Stored],
    dialect: Dialect,
    knobs: dict[str, Any],
    folder: str | os.PathLike,
) -> None:
    """Compares tensors that should repeat others: a head of its own unties the model.

    Raises:
      InputError: one that differs, of a model that cannot have both.
    """
    for name, original in dialect.copies:
        # Files of a model without its head lack the prefix.
        bare = original.partition(".")[2]
        other = tensors.get(original) or tensors.get(bare)
        if name not in tensors or other is None or _equal(tensors[name], other):
            continue
        if name == HEAD and "tied" in knobs:
            if knobs["tied"]:
                print(
                    f"{folder}: {name} differs from {original}, though config.json "
                    "ties them: it is read as a head of its own",
                    flush=True,
                )
            knobs["tied"] = False
            continue
        raise InputError(
            got=f"{name} in {folder}, which differs from {original}",
            want="a copy of it: this model has one of them",
        )


def _equal(one: safetensors.Stored, other: safetensors.Stored) -> bool:
    """Whether two tensors hold the same numbers, of which few are in memory at once."""
    if one.shape != other.shape:
        return False
    left, right = (x.read().reshape(-1) for x in (one, other))
    return all(
        np.array_equal(
            *(np.asarray(x[i : i + _CHUNK], np.float32) for x in (left, right))
        )
        for i in range(0, len(left), _CHUNK)
    )


def _check_knobs(knobs: dict[str, Any], path: pathlib.Path) -> None:
    """Raises InputError for the first knob that no model has.

    Sizes are whole numbers from 1, all other numbers are finite; an epsilon is small,
    and what scales or turns positions is above 0.
    """
    for knob, value in knobs.items():
        numbers = value if isinstance(value, tuple) else (value,)
        floats = [x for x in numbers if isinstance(x, float)]
        fits = all(math.isfinite(x) for x in floats)
        if knob in _SIZE_KNOBS:
            fits = type(value) is int and value >= 1
        elif "epsilon" in knob:
            fits = fits and 0 <= value < 1
        elif knob.endswith("rope_base") or knob == "rope_scaling":
            above = [x for x in numbers if isinstance(x, (int, float))]
            fits = fits and all(x > 0 for x in above)
        if not fits:
            raise InputError(
                got=f"{path} with {knob} {str(value)[:60]}",
                want="sizes of 1 or more, and finite numbers that make sense",
            )


def load_params(found: Found, abstract: Any) -> Any:
    """The tensors of a foreign model as our parameters.

    Args:
      abstract: shapes of the parameters; rows that pad the vocabulary become zeros.

    Raises:
      InputError: tensors that are missing, left over, or of another shape.
    """
    shapes = {n: tuple(x.shape) for n, x in tree.named_leaves(abstract).items()}
    filled = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    _, dialect = dialects()[found.config["model_type"]]
    held = _without_prefix(found.tensors, dialect, found.knobs, shapes)
    used = set()
    for piece in pieces(dialect.tensors(found.knobs), shapes):
        if piece.theirs not in held:
            raise InputError(
                got=f"no tensor {piece.theirs!r}", want=f"it, for {piece.ours[0]}"
            )
        used.add(piece.theirs)
        stored = held[piece.theirs]
        array = stored.read()
        if array.dtype.kind in "biu":
            raise InputError(
                got=f"tensor {piece.theirs!r} of {array.dtype}, without what scales it",
                want="weights in floating point",
                do="fetch the model in bfloat16 or float32",
            )
        values = _from_theirs(array, piece, found.vocab_size, shapes)
        check_finite(piece.theirs, values)
        for name, value in zip(piece.ours, values, strict=True):
            target = filled[name] if piece.at is None else filled[name][piece.at]
            target[tuple(slice(0, n) for n in value.shape)] = value
    copies = {name for name, _ in dialect.copies}
    left = [n for n in held if n not in used and n not in copies]
    unread = [n for n in left if _any_match(dialect.extras, n)]
    left = [n for n in left if n not in unread]
    if left:
        raise InputError(
            got=f"tensors that {found.name!r} does not have: {', '.join(left[:4])}"
            + (f" and {len(left) - 4} more" if left[4:] else ""),
            want="only what its config.json tells of",
        )
    if unread:
        more = f" and {len(unread) - 3} more" if unread[3:] else ""
        print(f"tensors that are not read: {', '.join(unread[:3])}{more}", flush=True)
    return tree.map_named(lambda name, _: filled[name], abstract)


def check_finite(name: str, values: list[np.ndarray]) -> None:
    """Raises InputError for a tensor with NaN or an infinity."""
    wrong = sum(int(value.size - np.isfinite(value).sum()) for value in values)
    if wrong:
        raise InputError(
            got=f"tensor {name!r} with {wrong} numbers that are NaN or infinite",
            want="finite weights",
            do="fetch the model again, or export it from a run that did not diverge",
        )


def _any_match(patterns, name):
    return any(re.fullmatch(p, name) for p in patterns)


def _without_prefix(tensors, dialect, knobs, shapes):
    """Names as in the table: files of a bare model lack the prefix of those with head.

    `model.layers...` is `layers...` in a file saved without its head.
    """
    wanted = [p.theirs for p in pieces(dialect.tensors(knobs), shapes)]
    if any(name in tensors for name in wanted[:1]):
        return tensors
    prefix = wanted[0].split(".")[0] + "."
    return {n if n in wanted else prefix + n: stored for n, stored in tensors.items()}


class Piece(NamedTuple):
    """One tensor of theirs: a slice of one or several of our leaves."""

    ours: tuple[str, ...]
    theirs: str
    axes: str
    at: Any  # index of the leading axes; None for the whole leaf


def pieces(table: tuple[Tensor, ...], shapes: dict) -> Iterator[Piece]:
    """The tensors of a table, layer by layer.

    Args:
      shapes: of our leaves, by name.
    """
    for ours, theirs, axes in table:
        names = (ours,) if isinstance(ours, str) else tuple(ours)
        leading = re.findall(r"\{(\w+)\}", theirs)
        sizes = shapes[names[0]][: len(leading)]
        for at in itertools.product(*map(range, sizes)):
            where = dict(zip(leading, at, strict=True))
            yield Piece(names, theirs.format(**where), axes, at if at else None)


def _parsed(axes: str) -> tuple[list[str], str]:
    left, _, right = axes.partition("->")
    return re.findall(r"\w|\(\w+\)", left.strip()), right.strip()


def _sizes(piece: Piece, shapes: dict, vocab_size: int) -> dict[str, int]:
    """The size of each letter; `v` is the vocabulary without its padding."""
    _, right = _parsed(piece.axes)
    own = shapes[piece.ours[0]][len(piece.at or ()) :]
    own = (len(piece.ours), *own) if len(piece.ours) > 1 else own
    sizes = dict(zip(right, own, strict=True))
    return sizes | ({"v": vocab_size} if "v" in sizes else {})


def _from_theirs(array: np.ndarray, piece: Piece, vocab_size: int, shapes: dict):
    """Our slices, one a leaf."""
    left, right = _parsed(piece.axes)
    sizes = _sizes(piece, shapes, vocab_size)
    groups = [g.strip("()") for g in left]
    want = tuple(math.prod(sizes[letter] for letter in g) for g in groups)
    if array.shape != want:
        raise InputError(
            got=f"tensor {piece.theirs!r} of shape {array.shape}",
            want=f"{want}, as config.json says",
        )
    letters = "".join(groups)
    spread = np.asarray(array, np.float32).reshape([sizes[x] for x in letters])
    made = spread.transpose([letters.index(x) for x in right])
    return list(made) if len(piece.ours) > 1 else [made]


def _to_theirs(leaves: list[np.ndarray], piece: Piece, sizes: dict) -> np.ndarray:
    left, right = _parsed(piece.axes)
    array = np.stack(leaves) if len(leaves) > 1 else leaves[0]
    array = array[tuple(slice(0, sizes[x]) for x in right)]
    groups = [g.strip("()") for g in left]
    letters = "".join(groups)
    array = array.transpose([right.index(x) for x in letters])
    return array.reshape([math.prod(sizes[x] for x in g) for g in groups])


def write(
    folder: pathlib.Path,
    name: str,
    knobs: dict[str, Any],
    params: Any,
    vocab_size: int,
    *,
    dtype: Any = np.float32,
    special: dict[str, Any] | None = None,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json and the weights of a model into an existing folder.

    Args:
      name: of the model.
      params: stacked over layers, as `scan` and `unroll` have them.
      vocab_size: of the tokenizer; rows beyond it stay here.
      special: more fields for config.json, such as the ids of special tokens.
    """
    dialect = dialect_of(name)
    config = dialect.config(knobs, vocab_size) | (special or {})
    config["dtype"] = np.dtype(dtype).name
    leaves = tree.named_leaves(params)
    shapes = {n: tuple(x.shape) for n, x in leaves.items()}
    made = []
    for piece in pieces(dialect.tensors(knobs), shapes):
        sizes = _sizes(piece, shapes, vocab_size)
        groups = [g.strip("()") for g in _parsed(piece.axes)[0]]
        shape = tuple(math.prod(sizes[x] for x in g) for g in groups)

        def make(piece=piece, sizes=sizes):
            parts = [leaves[n] if piece.at is None else leaves[n][piece.at]
                     for n in piece.ours]  # fmt: skip
            return _to_theirs(
                [np.asarray(jax.device_get(p)) for p in parts], piece, sizes
            )

        made.append(safetensors.Made(piece.theirs, shape, np.dtype(dtype), make))
    safetensors.write_folder(folder, made, shard_bytes=shard_bytes)
    (folder / "config.json").write_text(
        json.dumps(config, indent=1) + "\n", encoding="utf-8"
    )
