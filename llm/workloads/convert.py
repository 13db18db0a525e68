"""Imports models of others into run directories, and exports run directories.

In: a Hugging Face folder or a GGUF file becomes a run directory with a checkpoint at
step 0, which evaluate and generate take as `model_dir`. Out: a Hugging Face folder, or
`model.gguf`. What is written appears whole or not at all; `convert.json` says what was
made of what.
"""

import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, Literal

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from llm import files, registry, tree
from llm.errors import InputError
from llm.inference import import_model, load_model
from llm.inference.import_model import import_adapter, kind_of
from llm.interop import (
    gguf_llama,
    gguf_tokenizer,
    hf,
    hf_tokenizer_files,
    peft,
    safetensors,
)
from llm.knobs import section
from llm.nn import stack
from llm.nn.weights import Lora
from llm.precision import dense

# Number formats of each target; the first is the default.
DTYPES = {"hf": ("float32", "bfloat16", "float16"), "gguf": ("f16", "q8_0", "q4_0"),
          "peft": ("float32",)}  # fmt: skip
_FLOAT16_MOST = 65504.0


@section("convert")
class Convert:
    """Formats of others."""

    # A Hugging Face folder or a GGUF file to import, or a run directory to export.
    source: str = ""
    # hf, gguf or peft; '' imports.
    to: Literal["", "hf", "gguf", "peft"] = ""
    # The model that an adapter of PEFT's, as the source, is added to.
    base: str = ""
    # How numbers are stored; '' is float32 for hf and f16 for gguf.
    dtype: str = ""


# What is imported becomes a run directory, with the config of a training.
SECTIONS = (Convert,)
# What is imported becomes a run directory, with the config of a training.
SECTIONS_OF = ("train",)


def run(c: ConfigDict, workdir: str) -> None:
    """Converts `c.convert.source` into `workdir`."""
    check(c, workdir)
    v, host = c.convert, jax.devices("cpu")[0]
    if v.to:
        result = _export(c, workdir, host)
    elif kind_of(v.source) == "peft":
        # Beside the workdir, which must stay empty until the result is whole.
        with tempfile.TemporaryDirectory() as scratch:
            base = import_model.run_of(v.base, scratch, host)
            result = import_adapter(v.source, base, workdir, c.to_dict(), host)
    else:
        result = import_model.convert(v.source, workdir, c.to_dict(), host)
    print(
        f"{v.source} -> {workdir}: {result['model']} of "
        f"{result['parameters']:,} parameters, vocabulary {result['vocab_size']}",
        flush=True,
    )


def check(c: ConfigDict, workdir: str) -> None:
    """Raises InputError for what cannot be converted, before anything is written."""
    v = c.convert
    if v.to and v.to not in DTYPES:
        raise InputError(
            got=f"convert.to {v.to!r}",
            want=f"{', '.join(DTYPES)}, or nothing to import",
        )
    if v.dtype and v.dtype not in DTYPES.get(v.to, ()):
        what = f"to={v.to}" if v.to else "an import, which keeps float32"
        raise InputError(
            got=f"convert.dtype {v.dtype!r} for {what}",
            want=" or ".join(DTYPES[v.to]) if v.to else "no dtype",
        )
    kind = kind_of(v.source)
    if kind == "peft" and not v.base:
        raise InputError(
            got=f"{v.source}, an adapter, without the model that it adapts",
            want="convert.base=MODEL, as generate.model_dir",
        )
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


def _export(c: ConfigDict, workdir: str, host: jax.Device) -> dict[str, Any]:
    v = c.convert
    dtype = v.dtype or DTYPES[v.to][0]
    loaded = load_model.load(v.source, host)
    is_lora = lambda x: isinstance(x, Lora)  # noqa: E731
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        load_model.joined(v.source, host).params if v.to == "peft" else (),
        is_leaf=is_lora,
    )
    adapted = {tree.name(path): leaf for path, leaf in leaves}
    spec = loaded.config.model.to_dict()
    knobs = {k: tuple(x) if isinstance(x, list) else x for k, x in spec.items()}
    name, vocab_size = knobs.pop("name"), loaded.tokenizer.vocab_size
    params = _stacked(dense(loaded.params))
    if "classifier" in params:
        raise InputError(
            got=f"{v.source}, which has a classifier, for {v.to}",
            want="a model of tokens: classifiers have no table of names yet",
        )
    most = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(params))
    if dtype == "float16" and most > _FLOAT16_MOST:
        raise InputError(
            got=f"parameters of up to {most:g}, for float16",
            want=f"at most {_FLOAT16_MOST:g}",
            do="use dtype=bfloat16",
        )
    special = _special(loaded, name, knobs, vocab_size)
    if v.to == "peft" and not any(isinstance(x, Lora) for x in adapted.values()):
        raise InputError(
            got=f"{v.source}, which was trained without an adapter",
            want="a run of adapter=lora, or to=hf",
        )
    with files.folder(workdir) as partial:
        folder = pathlib.Path(os.fspath(partial))
        if v.to == "peft":
            peft.write(folder, name, knobs, adapted)
        elif v.to == "hf":
            numbers = {"bfloat16": jnp.bfloat16}.get(dtype, dtype)
            hf.write(
                folder, name, knobs, params, vocab_size, dtype=numbers, special=special
            )
            ids = {k: i for k, i in special.items() if k.endswith("_token_id")}
            (folder / "generation_config.json").write_text(
                json.dumps(ids, indent=1), encoding="utf-8"
            )
            for file, content in hf_tokenizer_files.files(loaded.tokenizer).items():
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
        text = json.dumps(result, indent=1) + "\n"
        (partial / "convert.json").write_text(text, encoding="utf-8")
    return result


def _write_gguf(folder, name, knobs, params, tokenizer, special, kind):
    """By way of Hugging Face's form, so that there is one table of names."""
    keys = gguf_tokenizer.keys(tokenizer)
    dialect = hf.dialect_of(name)
    gguf_llama.check(dialect.config(knobs, tokenizer.vocab_size))
    weights = folder / "weights"
    weights.mkdir()
    hf.write(weights, name, knobs, params, tokenizer.vocab_size, special=special)
    config = json.loads((weights / "config.json").read_text("utf-8"))
    tensors = safetensors.open_folder(weights)
    gguf_llama.write(folder / "model.gguf", config, tensors, keys, kind)
    del tensors
    shutil.rmtree(weights)


def _special(loaded: load_model.Loaded, name: str, knobs: Any, vocab_size: int) -> dict:
    """Fields of config.json beside the architecture's."""
    tokenizer = loaded.tokenizer
    ids = {"bos": tokenizer.bos_id, "pad": tokenizer.pad_id}
    special: dict[str, Any] = {f"{n}_token_id": i for n, i in ids.items() if i >= 0}
    if tokenizer.ends:
        more = len(tokenizer.ends) > 1
        special["eos_token_id"] = list(tokenizer.ends) if more else tokenizer.ends[0]
    causal = registry.module("models", name).KIND == "causal"
    # Learned positions have a length, which the architecture's own fields tell.
    if causal and not loaded.model.cfg.context:
        special["max_position_embeddings"] = load_model.context(loaded)
    return special


def _stacked(params: Any) -> Any:
    """Parameters as a scanned stack has them, whatever the run's `how`."""
    if not isinstance(params, dict):
        return params
    if "layer_0" in params:
        return stack.restack(params)
    return {name: _stacked(value) for name, value in params.items()}
