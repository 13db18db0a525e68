"""One training step against `transformers`' Llama in CPU PyTorch, interleaved.

    python benchmarks/train_step.py                     # 1M, 10M and 125M parameters
    python benchmarks/train_step.py --sizes=10m --rounds=9

Both sides train the same shapes with AdamW on the same number of threads. The peer runs
in every form that may be its best (eager or compiled, float32 or bfloat16 autocast,
always with scaled-dot-product attention and fused AdamW), and both sides with the batch
whole or in four or eight micro-batches, whose activations may stay in the cache; a
first round picks the best form of each side in each precision, and these then work in
turns (`in_turns.py`). Printed: median seconds a step, tokens/s, and the median over
rounds of the ratio peer / ours (above 1: ours is faster).

Needs the `oracle` extra for the peer.
"""

import argparse
import json
import os
import platform
import time

from in_turns import best_forms, in_turns

from llm import process

SIZES = {
    "1m": {
        "layers": 4, "width": 128, "heads": 4, "kv_heads": 2, "head_dim": 32,
        "mlp": 352, "vocab_size": 1024, "batch": 32, "length": 256, "steps": 5,
    },
    "10m": {
        "layers": 6, "width": 384, "heads": 6, "kv_heads": 2, "head_dim": 64,
        "mlp": 1024, "vocab_size": 2048, "batch": 16, "length": 256, "steps": 3,
    },
    "125m": {
        "layers": 12, "width": 768, "heads": 12, "kv_heads": 4, "head_dim": 64,
        "mlp": 2048, "vocab_size": 32_000, "batch": 4, "length": 512, "steps": 1,
    },
}  # fmt: skip


def ours(size, dtype, micro):
    """Some of our steps."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from llm import sharding
    from llm.models import llama
    from llm.nn.contract import plain_inputs, with_head
    from llm.objectives import causal_lm
    from llm.precision import Policy
    from llm.training import optim, train_step

    s = dict(size)
    batch, length, steps = s.pop("batch"), s.pop("length"), s.pop("steps")
    policy = Policy(dtype, "cpu")
    model = llama.make(**s, qk_norm=False, tied=True, how="unroll", policy=policy)
    objective = causal_lm.make(z_loss=0.0)

    def init(key):
        return model.init(key, plain_inputs(jnp.zeros((1, 2), jnp.int32)))["params"]

    mesh = sharding.make_mesh((("data", 1),), jax.devices()[:1])
    axes = train_step.logical_axes(jax.eval_shape(init, jax.random.key(0)))
    factor = optim.schedule("constant", 1000)
    tx = optim.optimizer("adamw", factor, axes, learning_rate=1e-4, weight_decay=0.1)
    abstract = train_step.abstract_state(init, tx, mesh, "fsdp")
    state = train_step.init_state(init, tx, abstract, 0)
    knobs = train_step.Knobs(
        steps=1000, tokens_per_step=batch * length, accumulate=micro
    )
    step = jax.jit(
        train_step.build_step(with_head(model), objective, tx, knobs, policy),
        donate_argnums=0,
    )
    tokens = np.random.default_rng(0).integers(0, s["vocab_size"], (batch, length + 1))
    record = {
        "tokens": tokens.astype(np.int32),
        "segments": np.ones_like(tokens, np.int32),
        "positions": np.tile(np.arange(length + 1, dtype=np.int32), (batch, 1)),
    }
    rows = [
        causal_lm.features({k: v[i] for k, v in record.items()}, None)
        for i in range(batch)
    ]
    data = {k: jnp.stack([row[k] for row in rows]) for k in rows[0]}

    def run():
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, data)
        float(metrics["loss"])
        return (time.perf_counter() - start) / steps

    return {"step": run}


def peer(size, dtype, micro, compiled):
    """The same of `transformers` in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    s = size
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=s["vocab_size"],
            hidden_size=s["width"],
            intermediate_size=s["mlp"],
            num_hidden_layers=s["layers"],
            num_attention_heads=s["heads"],
            num_key_value_heads=s["kv_heads"],
            head_dim=s["head_dim"],
            max_position_embeddings=s["length"],
            tie_word_embeddings=True,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, weight_decay=0.1, fused=True
    )
    tokens = torch.randint(0, s["vocab_size"], (s["batch"], s["length"]))
    parts = tokens.chunk(micro)
    forward = torch.compile(model) if compiled else model
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def run():
        start = time.perf_counter()
        for _ in range(s["steps"]):
            for part in parts:
                with autocast:
                    loss = forward(input_ids=part, labels=part).loss / micro
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        float(loss.detach())
        return (time.perf_counter() - start) / s["steps"]

    return {"step": run}


def compare(name, rounds, with_peer, micro):
    """Times one size; returns its figures."""
    size = SIZES[name]
    tokens = size["batch"] * size["length"]
    batches = {
        "whole batch" if parts == 1 else f"{parts} micro-batches": (parts,)
        for parts in micro
        if size["batch"] % parts == 0
    }
    # Where cutting helps the peer, it helps its compiled form.
    forms = {"eager, whole batch": (1, False)} | {
        f"compiled, {label}": (*micro, True) for label, micro in batches.items()
    }
    sides = {"ours": (ours, batches)} | ({"peer": (peer, forms)} if with_peer else {})
    workers = {}
    for side, (make, options) in sides.items():
        for dtype in ("bfloat16", "float32"):
            given = {label: (size, dtype, *more) for label, more in options.items()}
            found = best_forms(f"{side} {dtype}", make, given, {"step": tokens})
            for label, worker in found.values():
                workers[side, f"{dtype}, {label}"] = worker
    figures = in_turns(workers, "step", tokens, rounds)
    for worker in workers.values():
        worker.stop()
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1m,10m,125m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro", default="1,4,8", help="micro-batches to try")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", default="", help="write the figures here")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    results = {}
    for name in args.sizes.split(","):
        print(name, SIZES[name])
        micro = map(int, args.micro.split(","))
        results[name] = compare(name, args.rounds, not args.no_peer, micro)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    process.prepare()  # for both sides
    main()
