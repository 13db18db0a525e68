"""Loss against tokens: our recipe and a nanoGPT-style one, same data and parameters.

    python benchmarks/learning.py --text=tinyshakespeare.txt
    python benchmarks/learning.py --text=book.txt --tokens=3072000 --seeds=3

The first text is input.txt of karpathy/char-rnn (GitHub); any long text will do.

The peer is the recipe that nanoGPT publishes for a CPU, as in its README: 4 layers of
width 128, 4 heads, context 64, batch 12, no dropout; LayerNorm, GELU, learned
positions, tied head; AdamW from 1e-3 to 1e-4 by cosine with 100 steps of warm-up, betas
0.9 and 0.99, decay 0.1 on matrices, clipping at 1. It is written out below. Ours is
`llm/models/llama.py` with Muon and as many parameters within 2 %. Both read characters
(the first 90 % of the text train, the rest is held out) with the same context, and are
scored on the same held-out windows in the same precision (float32). Printed: held-out
loss (nats a character) at equal tokens, and whether ours passes the peer's final loss
in half of its tokens. Each of our lengths is a run of its own, as its schedule ends
where the run ends.
"""

import argparse
import json
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llm import process, tree
from llm.losses import cross_entropy
from llm.models import llama
from llm.nn.contract import plain_inputs, with_head
from llm.precision import Policy
from llm.training import optim
from llm.training.train_step import logical_axes

LENGTH = 64
POLICY = Policy("float32", "cpu")


def read_characters(path):
    """Ids of the training and held-out characters, and how many kinds there are."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    kinds = sorted(set(text))
    number = {c: i for i, c in enumerate(kinds)}
    ids = np.array([number[c] for c in text], np.int32)
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(kinds)


def windows(ids, starts):
    """[B, LENGTH + 1] windows of the text."""
    return ids[starts[:, None] + np.arange(LENGTH + 1)]


def peer(vocab_size, layers=4, width=128, heads=4):
    """A GPT of nanoGPT's form: (init, loss of a [B, LENGTH + 1] batch)."""
    head_dim = width // heads

    def init(key):
        keys = iter(jax.random.split(key, 100))

        def normal(*shape, std=0.02):
            return std * jax.random.normal(next(keys), shape)

        out = 0.02 / math.sqrt(2 * layers)
        blocks = [
            {
                "norm1": jnp.ones(width),
                "attend": normal(width, 3 * width),
                "out": normal(width, width, std=out),
                "norm2": jnp.ones(width),
                "up": normal(width, 4 * width),
                "down": normal(4 * width, width, std=out),
            }
            for _ in range(layers)
        ]
        return {
            "tokens": normal(vocab_size, width),
            "positions": normal(LENGTH, width),
            "blocks": blocks,
            "norm": jnp.ones(width),
        }

    def norm(x, scale):
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * scale

    def loss(params, batch):
        tokens, targets = batch[:, :-1], batch[:, 1:]
        x = params["tokens"][tokens] + params["positions"][None]
        B, T, D = x.shape
        for block in params["blocks"]:
            q, k, v = jnp.split(norm(x, block["norm1"]) @ block["attend"], 3, axis=-1)
            q, k, v = (y.reshape(B, T, heads, head_dim) for y in (q, k, v))
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + y.reshape(B, T, D) @ block["out"]
            h = jax.nn.gelu(norm(x, block["norm2"]) @ block["up"], approximate=False)
            x = x + h @ block["down"]
        logits = norm(x, params["norm"]) @ params["tokens"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    return init, loss


def peer_optimizer(steps):
    """nanoGPT's AdamW."""
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, steps, 1e-4)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            rate, b1=0.9, b2=0.99, weight_decay=0.1,
            mask=lambda p: jax.tree.map(lambda x: x.ndim >= 2, p),
        ),
    )  # fmt: skip


def ours(vocab_size):
    """Our model: (init, loss of a [B, LENGTH + 1] batch, axes)."""
    model = llama.make(
        vocab_size=vocab_size, layers=4, width=128, heads=4, kv_heads=4, head_dim=32,
        mlp=344, qk_norm=True, tied=False, how="unroll", policy=POLICY,
    )  # fmt: skip
    apply = with_head(model)

    def boxed(key):
        return model.init(key, plain_inputs(jnp.zeros((1, 2), jnp.int32)))["params"]

    def init(key):
        return jax.tree.map(
            lambda b: b.value, boxed(key), is_leaf=lambda b: hasattr(b, "value")
        )

    def loss(params, batch):
        _, head = apply(params, plain_inputs(batch[:, :-1]))
        weights = jnp.ones(batch[:, 1:].shape)
        total, _ = cross_entropy(head, batch[:, 1:], weights, policy=POLICY)
        return total / weights.size

    return init, loss, logical_axes(jax.eval_shape(boxed, jax.random.key(0)))


def our_optimizer(steps, axes, args):
    """Muon for the matrices, AdamW for the rest; linear decay to a tenth or to zero."""
    factor = optim.schedule("linear", steps, warmup=args.warmup, final=args.final)
    tx = optim.optimizer(
        "muon", factor, axes, learning_rate=args.adam_rate,
        muon_learning_rate=args.muon_rate, b2=0.99, weight_decay=args.decay,
    )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(1.0), tx)


def train(init, loss, tx, train_ids, held_ids, *, steps, batch, seed, points):
    """Held-out losses at `points` step counts."""
    params = jax.jit(init)(jax.random.key(seed))
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    score = jax.jit(loss)
    held = windows(held_ids, np.arange(0, len(held_ids) - LENGTH - 1, LENGTH))
    held = held[: len(held) // 128 * 128].reshape(-1, 128, LENGTH + 1)
    draw = np.random.default_rng(seed)
    seen = {}
    for at in range(1, steps + 1):
        starts = draw.integers(0, len(train_ids) - LENGTH - 1, batch)
        params, state, _ = step(params, state, windows(train_ids, starts))
        if at in points:
            seen[at] = float(np.mean([score(params, part) for part in held]))
    return seen, tree.count(params)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=1_536_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=12, help="ours; the peer's is 12")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=5e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--warmup", type=float, default=0.02)
    parser.add_argument("--final", type=float, default=0.0)
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    train_ids, held_ids, kinds = read_characters(args.text)
    results = []
    for seed in range(args.seeds):
        result = {"seed": seed}
        if not args.no_peer:
            steps = args.tokens // (12 * LENGTH)
            init, loss = peer(kinds)
            seen, count = train(
                init, loss, peer_optimizer(steps), train_ids, held_ids,
                steps=steps, batch=12, seed=seed,
                points={round(steps * i / 8) for i in range(1, 9)},
            )  # fmt: skip
            result["peer"] = {s * 12 * LENGTH: v for s, v in seen.items()}
            result["peer_parameters"] = count
        init, loss, axes = ours(kinds)
        for share in (0.25, 0.5, 1.0):
            steps = round(share * args.tokens / (args.batch * LENGTH))
            seen, count = train(
                init, loss, our_optimizer(steps, axes, args), train_ids, held_ids,
                steps=steps, batch=args.batch, seed=seed, points={steps},
            )  # fmt: skip
            result.setdefault("ours", {})[round(share * args.tokens)] = seen[steps]
        result["our_parameters"] = count
        results.append(result)
        print(json.dumps(result), flush=True)
    ours_half = statistics.median(r["ours"][args.tokens // 2] for r in results)
    ours_full = statistics.median(r["ours"][args.tokens] for r in results)
    print(f"ours: {ours_half:.3f} after half the tokens, {ours_full:.3f} after all")
    if not args.no_peer:
        final = statistics.median(list(r["peer"].values())[-1] for r in results)
        verdict = "at most half" if ours_half <= final else "more than half"
        print(f"peer: {final:.3f}; ours reaches it in {verdict} of its tokens")


if __name__ == "__main__":
    process.prepare()
    main()
