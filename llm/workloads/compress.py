"""Makes a smaller model of a run: a run directory like any other, and what it cost.

compress.json holds the size in bits and, before and after, the perplexity on a text and
the speed of generating. The result is used wherever a run directory is, but not to
train from.
"""

import os
import time
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from llm import compress, registry, run_dir, tree, units
from llm.adapters import named_boxes
from llm.checkpoint import Checkpoints, LoopState, State
from llm.errors import InputError
from llm.inference import calibration, import_model, load_model, sampling
from llm.inference.decoding import generate
from llm.inference.score import rolling_scorer
from llm.knobs import section
from llm.registry import plugin
from llm.tokenizers import sentencepiece_tokenizer as tokenizers

_NEW = 64  # tokens that are generated to time it
_WINDOW = 1024  # tokens: a model of a long context need not score in rows as long
_PROMPTS = ("The", "def main(", "In the")


@section("compress")
class Compress:
    """Smaller models."""

    # As generate.model_dir.
    model_dir: str = ""
    # How: a file of llm/compress/ and its knobs.
    method: dict = plugin("compress", "int8")
    # A text file or folder that perplexity is measured on; '' is our own source.
    text: str = ""
    # A text file or folder: int4 weighs the errors of a kernel by how large its inputs
    # are there (some of the training text is best). '' weighs all alike.
    calibration: str = ""


SECTIONS = (Compress,)


def run(c: ConfigDict, workdir: str) -> None:
    """Compresses `c.compress.model_dir` into `workdir`."""
    check(c)
    k = c.compress
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    texts = _texts(k.text)
    done = epath.Path(workdir) / "compress.json"
    if done.exists():
        raise InputError(
            got=f"{workdir}, which holds a compressed model", want="a new --workdir"
        )
    loaded = load_model.load(import_model.run_of(k.model_dir, workdir, host), device)
    compress.check_plain(loaded.params)
    axes = {n: box.names for n, box in named_boxes(load_model.boxes(loaded)).items()}
    method = k.method.to_dict()
    made = loaded._replace(params=_smaller(loaded, axes, c))
    result: dict[str, Any] = {
        "model_dir": k.model_dir,
        "method": method,
        "calibration": k.calibration,
        "before": _figures(loaded, texts, c),
        "after": _figures(made, texts, c),
        "zeros": _zeros(made.params, axes),
    }
    config = loaded.config.to_dict()
    config |= {"workload": "compress", "compressed": method, "init_from": ""}
    config["adapter"] = registry.spec("adapters", "full")
    _write(workdir, made, config, host, result, k.model_dir)
    for what in ("before", "after"):
        print(f"{what}: {_line(result[what])}", flush=True)
    ratio = result["before"]["bits"] / result["after"]["bits"]
    print(f"{ratio:.2f} times smaller, {result['zeros']:.0%} of its kernels zero")


def _smaller(loaded: load_model.Loaded, axes: compress.Axes, c: ConfigDict) -> Any:
    """The compressed parameters."""
    method = compress.build(c.compress.method.to_dict())
    if not c.compress.calibration:
        return jax.jit(lambda p: method.apply(p, axes))(loaded.params)
    texts = _texts(c.compress.calibration)
    squares = calibration.input_squares(loaded, texts)
    return jax.jit(lambda p, s: method.apply(p, axes, s))(loaded.params, squares)


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be compressed, before anything is read."""
    if not c.compress.model_dir:
        raise InputError(
            got="nothing to compress",
            want="a run directory, a Hugging Face folder or a GGUF file",
            do="name it: --config=configs/compress.py:model=MODEL",
        )
    method = compress.build(c.compress.method.to_dict())
    if c.compress.calibration and not method.calibrated:
        raise InputError(
            got=f"compress.calibration with method {c.compress.method.name}",
            want="int4, whose errors are weighed by it",
        )


def _texts(path: str) -> list[str]:
    """Some text to score; of none, what this program says of itself."""
    where = path or os.fspath(epath.Path(__file__).parent)
    knobs = {"path": where} if path else {"path": where, "pattern": "*.py"}
    source = registry.build("sources", {"name": "text", **knobs})
    texts = [document.text for document in source(lambda reason, name: None)]
    if not texts:
        raise InputError(got=f"no text in {path}", want="a text that is not empty")
    return texts


def _figures(
    loaded: load_model.Loaded, texts: list[str], c: ConfigDict
) -> dict[str, Any]:
    score = rolling_scorer(
        loaded.model, loaded.params, loaded.tokenizer,
        length=min(loaded.config.train.seq_len, _WINDOW), overlap=0.0, batch_size=8,
        policy=loaded.model.policy,
    )  # fmt: skip
    scored = score(texts)
    tokens = sum(one.tokens for one in scored)
    nats = sum(one.nats for one in scored)
    knobs = sampling.Sampling(temperature=1.0)
    decoding = (*load_model.for_decoding(loaded), loaded.tokenizer)
    seconds, made = 0.0, []
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        made = generate(
            *decoding, _PROMPTS[:1], knobs=knobs, max_tokens=_NEW, seed=c.seed
        )
        seconds = time.perf_counter() - start
    count = len(loaded.tokenizer.encode(made[0].text)) + (made[0].stop_reason == "end")
    return {
        "bits": compress.bits(loaded.params),
        "perplexity": float(jnp.exp(nats / tokens)),
        "text_tokens": tokens,
        "tokens_per_s": count / seconds,
    }


def _zeros(params: Any, axes: compress.Axes) -> float:
    """The share of the weights of hidden layers' kernels that are zero."""
    zeros = weights = 0
    for name, leaf in tree.named_leaves(params).items():
        name = name.removesuffix("/values")
        if name not in axes or axes[name] == compress.OUTPUT:
            continue
        if compress.inputs_of(name, axes[name])[1]:
            zeros, weights = zeros + int((leaf == 0).sum()), weights + leaf.size
    return zeros / max(weights, 1)


def _write(workdir, made, config, host, result, source) -> None:
    root = epath.Path(workdir)
    origin = epath.Path(import_model.run_of(source, workdir, host))
    tokenizers.copy(origin / "tokenizer", root / "tokenizer")
    checkpoints = Checkpoints(workdir, made.params)
    state = State(jnp.int32(made.step), made.params, None, None)
    checkpoints.save(state, LoopState(), None, donated=False)
    checkpoints.close()
    run_dir.claim(workdir, config, device=host.device_kind, devices=1)
    run_dir.write(workdir, "compress.json", result)


def _line(figures: dict[str, Any]) -> str:
    return (
        f"{units.size(figures['bits'] / 8)}, perplexity {figures['perplexity']:.3f}, "
        f"{figures['tokens_per_s']:.1f} tokens/s"
    )
