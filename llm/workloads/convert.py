"""Imports models of others into run directories, and exports run directories.

In: a Hugging Face folder or a GGUF file becomes a run directory with a checkpoint at
step 0, which evaluate and generate take as `model_dir`. Out: a Hugging Face folder, or
`model.gguf`. What is written appears whole or not at all; `convert.json` says what was
made of what.
"""

import json
import math
import os
import pathlib
import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import atomic, registry, run_directory, tree
from llm.checkpoint import Checkpoints, State
from llm.data import foreign_tokenizer
from llm.errors import InputError
from llm.inference import load
from llm.interop import gguf, gguf_llama, gguf_tokenizer, hf, hf_tokenizer, safetensors
from llm.nn import stack
from llm.nn.contract import plain_inputs
from llm.nn.embed import padded_vocab
from llm.precision import FLOAT32

# Number formats of each target; the first is the default.
DTYPES = {"hf": ("float32", "bfloat16", "float16"), "gguf": ("f16", "q8_0", "q4_0")}
_WINDOW = 1024  # most tokens of a window in which an imported model is scored
_FLOAT16_MOST = 65504.0


def run(c: ConfigDict, workdir: str) -> None:
    """Converts `c.convert.source` into `workdir`."""
    kind = check(c, workdir)
    result = _export(c, workdir) if c.convert.to else _import(c, workdir, kind)
    print(
        f"{c.convert.source} -> {workdir}: {result['model']} of "
        f"{result['parameters']:,} parameters, vocabulary {result['vocab_size']}",
        flush=True,
    )


def check(c: ConfigDict, workdir: str) -> str:
    """What the source is: 'run', 'hf' or 'gguf'.

    Raises:
      InputError: what cannot be converted, before anything is written.
    """
    v = c.convert
    if v.to and v.to not in DTYPES:
        raise InputError(
            got=f"convert.to {v.to!r}", want="hf or gguf, or nothing to import"
        )
    if v.dtype and v.dtype not in DTYPES.get(v.to, ()):
        what = f"to={v.to}" if v.to else "an import, which keeps float32"
        raise InputError(
            got=f"convert.dtype {v.dtype!r} for {what}",
            want=" or ".join(DTYPES[v.to]) if v.to else "no dtype",
        )
    kind = _kind(v.source)
    if kind == "run" and not v.to:
        raise InputError(
            got=f"{v.source}, which is a run directory already",
            want="to=hf or to=gguf, to export it",
        )
    if kind != "run" and v.to:
        raise InputError(
            got=f"{v.source}, which is not a run directory",
            want="one, to export",
            do="import it first: the same command without to",
        )
    root = epath.Path(workdir)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(
            got=f"{workdir}, which is not empty", want="a new or empty --workdir"
        )
    if v.to and "://" in str(workdir):
        raise InputError(got=f"{workdir}, for an export", want="a local folder")
    return kind


def _kind(source: str) -> str:
    if not source:
        raise InputError(
            got="nothing to convert",
            want="a Hugging Face folder, a GGUF file or a run directory",
            do="add :source=PATH to the config",
        )
    path = epath.Path(source)
    if not path.exists():
        raise InputError(got=f"{source}, which there is not", want="a file or folder")
    if not path.is_dir():
        return "gguf"
    if not (path / "config.json").exists():
        raise InputError(
            got=f"{source}, which has no config.json",
            want="a Hugging Face folder, a GGUF file or a run directory",
        )
    try:
        held = json.loads((path / "config.json").read_text())
    except ValueError as error:
        raise InputError(
            got=f"{path / 'config.json'}, which is not JSON ({error})",
            want="a whole config.json",
        ) from error
    return "run" if isinstance(held, dict) and "config" in held else "hf"


def _import(c: ConfigDict, workdir: str, kind: str) -> dict[str, Any]:
    source = c.convert.source
    if kind == "gguf":
        held = gguf.open_file(source)
        found = gguf_llama.read(held)
        files, fields = gguf_tokenizer.read(held)
    else:
        found = hf.read(source)
        files = foreign_tokenizer.read_files(source)
        fields = found.config | _generation(source)
    device = jax.devices("cpu")[0]
    context = _context(found)
    with atomic.folder(workdir) as partial:
        tokenizer = foreign_tokenizer.save(
            partial / "tokenizer", files, rows=found.vocab_size, fields=fields
        )
        params = jax.device_put(_params(found, tokenizer.vocab_size), device)
        state = State(jnp.int32(0), params, None, None)
        checkpoints = Checkpoints(os.fspath(partial))
        checkpoints.save(state, {}, None)
        checkpoints.close()
        config = c.to_dict()
        config["model"] = registry.spec("models", found.name, **found.knobs)
        config["train"]["seq_len"] = min(context, _WINDOW)
        config["convert"]["context"] = context
        config["tokenizer"] = {"kind": "hf", "vocab_size": tokenizer.vocab_size}
        run_directory.claim(
            os.fspath(partial), config, device=device.device_kind, devices=1
        )
        result = {
            "source": str(source),
            "kind": kind,
            "model": found.name,
            "parameters": tree.count(params),
            "vocab_size": tokenizer.vocab_size,
        }
        _write_result(partial, result)
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


def _context(found: hf.Found) -> int:
    """The longest text that the model was made for."""
    known = ("max_position_embeddings", "n_positions")
    given = [found.config[name] for name in known if name in found.config]
    return given[0] if given and type(given[0]) is int and given[0] > 0 else _WINDOW


def _generation(source: str) -> dict[str, Any]:
    path = epath.Path(source) / "generation_config.json"
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
        ids = {name: found[name] for name in found if name.endswith("_token_id")}
    except (ValueError, TypeError) as error:
        raise InputError(
            got=f"{path}, which is not JSON ({error})", want="a table in JSON"
        ) from error
    return ids


def _export(c: ConfigDict, workdir: str) -> dict[str, Any]:
    v = c.convert
    dtype = v.dtype or DTYPES[v.to][0]
    loaded = load.load(v.source, jax.devices("cpu")[0])
    spec = loaded.config.model.to_dict()
    knobs = {k: tuple(x) if isinstance(x, list) else x for k, x in spec.items()}
    name, vocab_size = knobs.pop("name"), loaded.tokenizer.vocab_size
    params = _stacked(loaded.params)
    most = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(params))
    if dtype == "float16" and most > _FLOAT16_MOST:
        raise InputError(
            got=f"parameters of up to {most:g}, for float16",
            want=f"at most {_FLOAT16_MOST:g}",
            do="use dtype=bfloat16",
        )
    special = _special(loaded, name, knobs, vocab_size)
    with atomic.folder(workdir) as partial:
        folder = pathlib.Path(os.fspath(partial))
        if v.to == "hf":
            numbers = {"bfloat16": jnp.bfloat16}.get(dtype, dtype)
            hf.write(
                folder, name, knobs, params, vocab_size, dtype=numbers, special=special
            )
            ids = {k: i for k, i in special.items() if k.endswith("_token_id")}
            (folder / "generation_config.json").write_text(json.dumps(ids, indent=1))
            for file, content in hf_tokenizer.files(loaded.tokenizer).items():
                (folder / file).write_bytes(content)
        else:
            _write_gguf(folder, name, knobs, params, loaded.tokenizer, special, dtype)
        result = {
            "source": str(v.source),
            "to": v.to,
            "dtype": dtype,
            "step": loaded.step,
            "model": name,
            "parameters": tree.count(params),
            "vocab_size": vocab_size,
        }
        _write_result(partial, result)
    return result


def _write_gguf(folder, name, knobs, params, tokenizer, special, kind):
    """By way of Hugging Face's form, so that there is one table of names."""
    keys = gguf_tokenizer.keys(tokenizer)
    dialect = getattr(registry.module("models", name), "HF", None)
    if dialect is None:
        raise InputError(got=f"model {name!r}, for GGUF", want="a llama")
    gguf_llama.check(dialect.config(knobs, tokenizer.vocab_size))
    weights = folder / "weights"
    weights.mkdir()
    hf.write(weights, name, knobs, params, tokenizer.vocab_size, special=special)
    config = json.loads((weights / "config.json").read_text())
    tensors = safetensors.open_folder(weights)
    gguf_llama.write(folder / "model.gguf", config, tensors, keys, kind)
    del tensors
    shutil.rmtree(weights)


def _special(loaded: load.Loaded, name: str, knobs: Any, vocab_size: int) -> dict:
    """Fields of config.json beside the architecture's."""
    tokenizer = loaded.tokenizer
    ids = {"bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    special: dict[str, Any] = {f"{n}_token_id": i for n, i in ids.items() if i >= 0}
    if tokenizer.ends:
        more = len(tokenizer.ends) > 1
        special["eos_token_id"] = list(tokenizer.ends) if more else tokenizer.ends[0]
    if name == "llama":
        context = loaded.config.get("convert", {}).get("context", 0)
        special["max_position_embeddings"] = context or loaded.config.train.seq_len
    return special


def _stacked(params: Any) -> Any:
    """Parameters as a scanned stack has them, whatever the run's `how`."""
    if not isinstance(params, dict):
        return params
    if "layer_0" in params:
        return stack.restack(params)
    return {name: _stacked(value) for name, value in params.items()}


def _write_result(folder: epath.Path, result: dict[str, Any]) -> None:
    (folder / "convert.json").write_text(json.dumps(result, indent=1) + "\n")
