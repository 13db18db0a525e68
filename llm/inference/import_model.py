"""Models of others as run directories: Hugging Face folders and GGUF files.

An imported run has a checkpoint at step 0 and the tokenizer that came with the model;
whatever takes a run directory takes it. It appears whole or not at all.
"""

import json
import math
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from llm import config, files, json_text, registry, run_dir, tree
from llm.adapters import nested
from llm.checkpoint import Checkpoints, LoopState, State
from llm.errors import InputError
from llm.inference import load_model
from llm.interop import gguf, gguf_llama, gguf_tokenizer, hf, peft
from llm.nn.contract import plain_inputs
from llm.nn.embedding import padded_vocab
from llm.precision import FLOAT32
from llm.tokenizers import hf_tokenizer
from llm.tokenizers import sentencepiece_tokenizer as tokenizers

_WINDOW = 1024  # most tokens of a window in which an imported model is scored
_BESIDE = "model"  # the folder of a run where what it uses is imported to


def run_of(model_dir: str, workdir: str, host: jax.Device) -> str:
    """The run directory of a model: itself, or what is imported of it to `workdir`.

    Args:
      model_dir: a run directory, a Hugging Face folder or a GGUF file.
      host: where parameters pass through on their way.

    Raises:
      InputError: nothing of these, or another model was imported there.
    """
    missing = not epath.Path(model_dir).exists()  # who loads it says so
    if missing or model_dir == workdir or kind_of(model_dir) == "run":
        return model_dir
    made = epath.Path(workdir) / _BESIDE
    if made.exists():
        source = run_dir.load(os.fspath(made))["config"]["convert"]["source"]
        if os.path.realpath(source) != os.path.realpath(model_dir):
            raise InputError(
                got=f"{made}, which was imported from {source}, for {model_dir}",
                want="one model a workdir",
                do="use another --workdir",
            )
    else:
        c = config.base("convert")
        c.convert.source = model_dir
        c.train.dtype = "float32"
        convert(model_dir, os.fspath(made), c.to_dict(), host)
    return os.fspath(made)


def import_adapter(
    source: str, base: str, folder: str, config: dict[str, Any], host: jax.Device
) -> dict[str, Any]:
    """Makes the run directory `folder` of a run with an adapter of PEFT's added in.

    Args:
      base: the run directory of the model that was adapted.
      config: as of `import_model`.

    Returns:
      The content of convert.json.
    """
    loaded = load_model.load(base, host)
    spec = {k: tuple(x) if isinstance(x, list) else x
            for k, x in loaded.config.model.to_dict().items()}  # fmt: skip
    name = spec.pop("name")
    leaves = tree.named_leaves(loaded.params)
    made = peft.merged(source, name, spec, leaves)
    params = _placed(nested(made), host)
    held = loaded.config.to_dict()
    config |= {part: held[part] for part in ("model", "tokenizer", "objective")}
    config["train"]["seq_len"] = held["train"]["seq_len"]
    with files.folder(folder) as partial:
        tokenizers.copy(epath.Path(base) / "tokenizer", partial / "tokenizer")
        result = {"source": str(source), "kind": "peft", "base": base}
        return _finish(partial, params, config, result, loaded.tokenizer, host)


def kind_of(source: str) -> str:
    """What a path is: 'run', 'hf', 'gguf' or 'peft'; InputError for none of them."""
    if not source:
        raise InputError(
            got="nothing to convert",
            want="a Hugging Face folder, a GGUF file or a run directory",
            do="name one: a path",
        )
    path = epath.Path(source)
    if not path.exists():
        raise InputError(
            got=f"{source}, which does not exist{files.relative_to(source)}",
            want="a file or folder",
        )
    if not path.is_dir():
        return "gguf"
    if peft.is_adapter(source):
        return "peft"
    if not (path / "config.json").exists():
        names = sorted(file.name for file in path.iterdir())
        held = f"a folder of {', '.join(names[:3])}" if names else "an empty folder"
        raise InputError(
            got=f"{source}, {held} and no config.json",
            want="a Hugging Face folder, a GGUF file or a run directory",
            do="name the .gguf file itself, if you mean one",
        )
    file = path / "config.json"
    held = json_text.parsed(file, file.read_bytes(), "a whole config.json")
    return "run" if isinstance(held, dict) and "config" in held else "hf"


def convert(
    source: str, folder: str, config: dict[str, Any], host: jax.Device
) -> dict[str, Any]:
    """Makes the run directory `folder` of a Hugging Face folder or a GGUF file.

    Args:
      config: of the run, as plain values; what the model says of itself is put in.

    Returns:
      The content of convert.json.
    """
    kind = kind_of(source)
    if kind == "gguf":
        held = gguf.open_file(source)
        found = gguf_llama.read(held)
        texts, fields = gguf_tokenizer.read(held)
    else:
        found = hf.read(source)
        texts = hf_tokenizer.read_files(source)
        fields = found.config | _generation(source)
    context = _context(found)
    with files.folder(folder) as partial:
        tokenizer = hf_tokenizer.save(
            partial / "tokenizer", texts, rows=found.vocab_size, fields=fields
        )
        params = _placed(_params(found, tokenizer.vocab_size), host)
        config["model"] = registry.spec("models", found.name, **found.knobs)
        config["train"]["seq_len"] = min(context, _WINDOW)
        config["convert"]["context"] = context
        config["tokenizer"] = {"kind": "hf", "vocab_size": tokenizer.vocab_size}
        result = {"source": str(source), "kind": kind}
        return _finish(partial, params, config, result, tokenizer, host)


def _finish(partial, params, config, result, tokenizer, host) -> dict[str, Any]:
    """Writes checkpoint, config.json and convert.json, whose content is returned."""
    checkpoints = Checkpoints(os.fspath(partial), params)
    state = State(jnp.int32(0), params, None, None)
    checkpoints.save(state, LoopState(), None, donated=False)
    checkpoints.close()
    run_dir.claim(os.fspath(partial), config, device=host.device_kind, devices=1)
    result |= {
        "model": config["model"]["name"],
        "parameters": tree.count(params),
        "vocab_size": tokenizer.vocab_size,
    }
    (partial / "convert.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )
    return result


def _params(found: hf.Found, vocab_size: int) -> Any:
    """The parameters; rows that pad the vocabulary are the mean of it, seldom likely.

    Zeros would be: the logits of many models are far below zero.
    """
    spec = registry.spec("models", found.name, **found.knobs)
    size = padded_vocab(vocab_size)
    model = registry.build("models", spec, vocab_size=size, policy=FLOAT32)
    zeros_BT = jnp.zeros((1, 2), jnp.int32)
    abstract = nn.meta.unbox(
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), plain_inputs(zeros_BT))["params"]
        )
    )
    _, dialect = hf.dialects()[found.config["model_type"]]
    by_row = {}
    for ours, _, axes in dialect.tensors(found.knobs):
        right = axes.partition("->")[2].strip()
        if "v" in right and isinstance(ours, str):
            by_row[ours] = right.index("v")
    rows, shapes = found.vocab_size, tree.named_leaves(abstract)
    padding = sum(shapes[n].size // size * (size - rows) for n in by_row)
    held = sum(math.prod(tensor.shape) for tensor in found.tensors.values())
    if tree.count(abstract) - padding > held:  # before so much memory is asked for
        raise InputError(
            got=f"a config for {tree.count(abstract) - padding:,} parameters with "
            f"{held:,} in the files",
            want="the tensors that it tells of",
        )
    params = hf.load_params(found, abstract)
    leaves = tree.named_leaves(params)
    for name, axis in by_row.items():
        table = np.moveaxis(leaves[name], axis, 0)
        table[rows:] = table[:rows].mean(axis=0)
    return params


def _placed(params: Any, device: jax.Device) -> Any:
    """On a device, leaf by leaf: no more than one is there twice."""
    for name, value in params.items():
        if isinstance(value, dict):
            _placed(value, device)
        else:
            params[name] = jax.block_until_ready(jax.device_put(value, device))
    return params


def _context(found: hf.Found) -> int:
    """The longest text that the model was made for."""
    known = ("max_position_embeddings", "n_positions")
    given = [found.config[name] for name in known if name in found.config]
    return given[0] if given and type(given[0]) is int and given[0] > 0 else _WINDOW


def _generation(source: str) -> dict[str, Any]:
    path = epath.Path(source) / "generation_config.json"
    try:
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        ids = {name: found[name] for name in found if name.endswith("_token_id")}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            got=f"{path}, which is not JSON ({error})", want="a table in JSON"
        ) from error
    return ids
