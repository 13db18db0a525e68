"""Architectures at equal parameters and tokens, on the standard library of Python.

    python benchmarks/architectures.py                        # all, 1.5M parameters
    python benchmarks/architectures.py --models=llama,lstm --tokens=2e6

One corpus and one vocabulary for all. Every network is the shape of its config in the
small: its width is the one whose number of parameters, embeddings included, comes
nearest. AdamW with each of a few learning rates; the one with the lowest validation
loss is scored on the test split: in bits per byte where the model gives likelihoods of
texts, else by its own objective, which compares with nothing but itself. Steps after a
first run that is found in --workdir are not repeated.
"""

import argparse
import json
import os
import pathlib

import jax

from llm import config, models, process, registry, tree
from llm.precision import FLOAT32

VOCAB, SEQ_LEN, BATCH = 2048, 256, 16


def transformer(name, width, **more):
    """Four layers of four heads."""
    return {"name": name, "layers": 4, "width": width, "heads": 4, **more}


def mlp(width, share=1):
    """Of three matrices that have as many parameters as two of four times the width."""
    return round(width / 3 * share) * 8


# The network of a width, a multiple of 8.
SHAPES = {
    "llama": lambda w: transformer(
        "llama", w, kv_heads=2, head_dim=w // 4, mlp=mlp(w), embed_scale=1.0
    ),
    "gpt": lambda w: transformer("gpt", w, length=SEQ_LEN),
    "moe": lambda w: transformer(
        "moe", w, kv_heads=2, head_dim=w // 4, mlp=mlp(w, 1 / 4), experts=8, top_k=2,
        embed_scale=1.0,
    ),
    "lstm": lambda w: {"name": "lstm", "layers": 2, "width": w},
    "gru": lambda w: {"name": "gru", "layers": 2, "width": w},
    "bert": lambda w: transformer("bert", w, length=SEQ_LEN),
    "t5": lambda w: {
        "name": "t5", "layers": 2, "width": w, "heads": 4, "head_dim": w // 4,
        "mlp": mlp(w),
    },
}  # fmt: skip
OBJECTIVES = {"bert": "masked_lm", "t5": "span_corruption"}


def of_size(name, parameters):
    """(spec of the model, its parameters) of the width that comes nearest."""
    objective = registry.spec("objectives", OBJECTIVES.get(name, "causal_lm"))
    found = []
    for width in range(64, 321, 8):
        knobs = SHAPES[name](width)
        spec = registry.spec("models", **knobs)
        made = models.build(spec, objective, FLOAT32, VOCAB)
        shapes = jax.eval_shape(made.init, jax.random.key(0))
        found.append((abs(tree.count(shapes) - parameters), tree.count(shapes), spec))
    _, count, spec = min(found, key=lambda one: one[0])
    return spec, count


def settings(name, spec, tokens, rate, corpus):
    """The config of a run."""
    c = config.base()
    c.workload = "train"
    c.data.corpus_dir = corpus
    c.tokenizer.vocab_size = VOCAB
    c.model = spec
    c.objective = registry.spec("objectives", OBJECTIVES.get(name, "causal_lm"))
    c.optimizer.update(name="adamw", learning_rate=rate, weight_decay=0.1, b2=0.99)
    c.schedule.update(name="cosine", warmup=0.05, final=0.1)
    c.train.update(tokens=int(tokens), batch_size=BATCH, seq_len=SEQ_LEN)
    c.train.update(log_every=50, validation_sequences=128, keep_best=0)
    own = name in OBJECTIVES
    c.evaluate.update(tasks=() if own else ("perplexity",), objective=own)
    return c


def once(workload, c, folder):
    """Runs a workload whose result is not there yet; returns the result."""
    path = pathlib.Path(folder) / f"{workload}.json"
    if not path.exists():
        registry.build("workloads", workload)(c, os.fspath(folder))
    return json.loads(path.read_text("utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--parameters", type=float, default=1.5e6)
    parser.add_argument("--tokens", type=float, default=1e6)
    parser.add_argument("--rates", default="1e-3,3e-3,1e-2")
    parser.add_argument("--workdir", default="runs/architectures")
    args = parser.parse_args()
    root = pathlib.Path(args.workdir)
    corpus = os.fspath(root / "corpus")
    once("prepare_data", config.base(), corpus)
    rows = []
    for name in args.models.split(","):
        spec, count = of_size(name, args.parameters)
        runs = {}
        for rate in map(float, args.rates.split(",")):
            folder = root / f"{name}-{rate:g}"
            c = settings(name, spec, args.tokens, rate, corpus)
            once("train_tokenizer", c, folder)
            runs[rate] = (once("train", c, folder)["validation_loss"], folder, c)
        best = min(runs, key=lambda rate: runs[rate][0])
        loss, folder, c = runs[best]
        score = once("evaluate", c, folder)
        bits = score.get("bits_per_byte")
        accuracy = score.get("token_accuracy") or score["objective"]["accuracy"]
        rows.append(
            f"| `{name}` | {spec['width']} | {count / 1e6:.2f}M | {best:g} | "
            f"{loss:.3f} | {accuracy:.1%} | {f'{bits:.3f}' if bits else 'none'} |"
        )
        print(rows[-1], flush=True)
    print("\n| Model | Width | Parameters | Rate | Validation loss | Accuracy | Bits |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    process.prepare()
    main()
