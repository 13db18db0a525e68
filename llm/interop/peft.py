"""Low-rank adapters as the library PEFT stores them: a folder of two files.

`adapter_model.safetensors` holds two matrices for each adapted weight, named after it,
and `adapter_config.json` says rank and scale. A kernel that another library stores
together with others (GPT-2's query, key and value) has no adapter of its own there.

    a [inputs..., rank], b [rank, outputs...]      ours
    lora_A.weight [rank, inputs], lora_B.weight [outputs, rank]
"""

import json
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from llm import registry
from llm.errors import InputError
from llm.interop import hf, safetensors
from llm.nn.weights import Lora

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_TASKS = {"causal": "CAUSAL_LM", "encdec": "SEQ_2_SEQ_LM", "masked": None}
# Fields that make another product of the same two matrices, and what ours are.
_PLAIN = {"use_dora": False, "bias": "none", "fan_in_fan_out": False}
# Those that change something else of a model, where they are set.
_CHANGE = frozenset({
    *_PLAIN, "alora_invocation_tokens", "arrow_config", "kasa_config",
    "layer_replication", "lora_bias", "modules_to_save", "monteclora_config",
    "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
})  # fmt: skip
# Beginnings that leave the weights of the model alone; PiSSA's and others change them,
# so that the matrices fit those alone. PEFT writes true for one that was converted.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# What is read here, and what is of the training alone.
_KNOWN = frozenset({
    *_CHANGE, "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "peft_type", "target_modules", "init_lora_weights", "exclude_modules",
    "layers_to_transform", "layers_pattern", "task_type", "auto_mapping",
    "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_config", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "velora_config", "qalora_group_size",
    "runtime_config", "ensure_weight_tying",
})  # fmt: skip


class Adapted(NamedTuple):
    """A weight of theirs, the kernel of ours that it is, and the layer it is in."""

    theirs: str
    ours: str
    at: Any


def is_adapter(source: str | os.PathLike) -> bool:
    """Whether a path is a folder of PEFT's."""
    return (pathlib.Path(source) / _CONFIG).is_file()


def write(
    folder: pathlib.Path, name: str, knobs: dict[str, Any], joined: dict[str, Any]
) -> None:
    """Writes the adapter of a model into an existing folder.

    Args:
      name, knobs: of the model.
      joined: {leaf name: parameter}, of which those that are adapted are `Lora`.
    """
    adapted = {n: leaf for n, leaf in joined.items() if isinstance(leaf, Lora)}
    made, modules = [], set()
    for piece in _adapted(name, knobs, {n: x.shape for n, x in adapted.items()}):
        held = adapted[piece.ours]
        a, b = (x if piece.at is None else x[piece.at] for x in (held.a, held.b))
        rank = a.shape[-1]
        inputs, outputs = math.prod(a.shape[:-1]), math.prod(b.shape[1:])
        module = piece.theirs.removesuffix(".weight")
        modules.add(module.rpartition(".")[2])

        def turned(x, shape):
            return np.asarray(jax.device_get(x), np.float32).reshape(shape).T.copy()

        for part, x, shape in (
            ("lora_A", a, (inputs, rank)), ("lora_B", b, (rank, outputs)),
        ):  # fmt: skip
            made.append(
                safetensors.Made(
                    f"{_PREFIX}{module}.{part}.weight", shape[::-1],
                    np.dtype(np.float32),
                    lambda x=x, shape=shape: turned(x, shape),
                )
            )  # fmt: skip
    scale = next(iter(adapted.values())).scale
    config = {
        "peft_type": "LORA",
        "task_type": _TASKS[registry.module("models", name).KIND],
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "base_model_name_or_path": None,
        "inference_mode": True,
        **_PLAIN,
    }
    safetensors.write_file(folder / _WEIGHTS, made)
    (folder / _CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def merged(
    source: str | os.PathLike, name: str, knobs: dict[str, Any], leaves: dict[str, Any]
) -> dict[str, Any]:
    """Parameters with an adapter added in.

    Args:
      leaves: {leaf name: array} of the model that was adapted.

    Raises:
      InputError: an adapter of another kind, or of another model.
    """
    folder = pathlib.Path(source)
    try:
        config = json.loads((folder / _CONFIG).read_text("utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        ranks = {str(k): int(v) for k, v in (config.get("rank_pattern") or {}).items()}
        alphas = {
            str(k): float(v) for k, v in (config.get("alpha_pattern") or {}).items()
        }
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise InputError(
            got=f"{folder / _CONFIG} with {type(error).__name__}: {error}",
            want="r and lora_alpha, as PEFT writes them",
        ) from error
    if min(rank, *ranks.values(), rank) < 1:
        raise InputError(got=f"{folder / _CONFIG} with r {rank}", want="1 or more")
    _check_plain(config)
    held = safetensors.open_file(folder / _WEIGHTS)
    made, used, absent = dict(leaves), set(), []
    for piece in _adapted(name, knobs, {n: x.shape for n, x in leaves.items()}):
        module = _PREFIX + piece.theirs.removesuffix(".weight")
        names = [f"{module}.{part}.weight" for part in ("lora_A", "lora_B")]
        if not any(n in held for n in names):
            absent.append(module)
            continue
        if not all(n in held for n in names):
            raise InputError(got=f"half an adapter of {piece.theirs}", want="both")
        used.update(names)
        a_RI, b_OR = (np.asarray(held[n].read(), np.float32) for n in names)
        for one, values in zip(names, (a_RI, b_OR), strict=True):
            hf.check_finite(one, [values])
        kernel = np.array(made[piece.ours])
        target = kernel if piece.at is None else kernel[piece.at]
        own = _matching(ranks, module, rank)
        if own != a_RI.shape[0]:
            raise InputError(
                got=f"an adapter of {piece.theirs} of rank {a_RI.shape[0]}",
                want=f"rank {own}, as {_CONFIG} says",
            )
        scale = _matching(alphas, module, alpha)
        scale /= math.sqrt(own) if config.get("use_rslora") else own
        update = (a_RI.T @ b_OR.T) * scale
        if update.size != target.size:
            raise InputError(
                got=f"an adapter of {piece.theirs} of {update.shape}, for a kernel of "
                f"{target.shape}",
                want="the adapter of this model",
            )
        target += update.reshape(target.shape)
        made[piece.ours] = kernel
    left = [n for n in held if n not in used]
    if left or not used:
        raise InputError(
            got=f"an adapter of {', '.join(left[:3]) or 'nothing'}",
            want="kernels that the model has by themselves",
        )
    _check_targets(config, used, absent)
    return made


def _check_plain(config: dict[str, Any]) -> None:
    """Refuses by name what makes more of a model than two matrices tell."""
    if config.get("peft_type") != "LORA":
        raise InputError(
            got=f"an adapter of kind {config.get('peft_type')}", want="plain LoRA"
        )
    changed = [
        f"{name} {str(config[name])[:60]}"
        for name in sorted(_CHANGE & config.keys())
        if config[name] and config[name] != _PLAIN.get(name)
    ]
    beginning = config.get("init_lora_weights")
    if not any(beginning is one or beginning == one for one in _BEGINNINGS):
        changed.append(f"init_lora_weights {beginning!r}, which changes the model")
    if changed:
        raise InputError(
            got=f"an adapter with {', '.join(changed)}",
            want="plain LoRA",
            do="merge it into its model by PEFT, and import that",
        )
    unread = sorted(name for name in config.keys() - _KNOWN if config[name])
    if unread:
        print(f"{_CONFIG}: not read: {', '.join(unread)}", flush=True)


def _check_targets(config, used: set[str], absent: list[str]) -> None:
    """Compares the modules that the config adapts with those that have tensors."""
    targets, layers = (config.get(n) for n in ("target_modules", "layers_to_transform"))
    layers = [layers] if isinstance(layers, int) else layers
    if isinstance(targets, str) or not targets or config.get("exclude_modules"):
        return

    def ends(module, target):
        return f".{module.removeprefix(_PREFIX)}".endswith(f".{target}")

    with_tensors = {name.rpartition(".lora_")[0] for name in used}
    for target in targets:
        lacking = [module for module in absent if ends(module, target)]
        if lacking and not any(ends(module, target) for module in with_tensors):
            raise InputError(
                got=f"an adapter without tensors of {target}, which {_CONFIG} targets",
                want="all that it adapts",
                do=f"fetch it again, or take {target} out of target_modules",
            )
        if lacking and layers is None:
            more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
            print(f"adapter without tensors of {lacking[0]}{more}", flush=True)


def _matching(pattern: dict[str, Any], module: str, otherwise: Any) -> Any:
    """The value of the first key that names a module, or the end of its name."""
    name = module.removeprefix(_PREFIX)
    for key, value in pattern.items():
        if re.fullmatch(rf"(.*\.)?({key})", name):
            return value
    return otherwise


def _adapted(name: str, knobs: dict[str, Any], shapes: dict[str, tuple]):
    """The weights of theirs that are one of the named kernels; InputError if shared."""
    dialect = hf.dialect_of(name)
    kernels = {n: shape for n, shape in shapes.items() if n.endswith("/kernel")}
    table = [
        tensor
        for tensor in dialect.tensors(knobs)
        if (tensor.ours if isinstance(tensor.ours, str) else tensor.ours[0]) in kernels
    ]
    for piece in hf.pieces(tuple(table), kernels):
        if len(piece.ours) > 1:
            raise InputError(
                got=f"an adapter of {piece.ours[0]}, which is a part of {piece.theirs}",
                want="kernels that PEFT has by themselves",
            )
        yield Adapted(piece.theirs, piece.ours[0], piece.at)
