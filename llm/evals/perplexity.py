"""How well a model predicts held-out text: bits per byte, perplexity, accuracy.

Every token of every document, its end included, is scored once. Bits per byte divides
by the UTF-8 bytes of the raw text as it was read, before normalisation, so that figures
of models with other tokenizers and cleaning compare.
"""

import hashlib
import math
from typing import Any

from llm.evals import Context, Metric, Task
from llm.inference.requests import Rolling
from llm.metrics import ratio

TINY: dict[str, Any] = {}
METRICS = (
    Metric("bits_per_byte", "bits per byte", "lower", "{:.4f}", headline=True),
    Metric("perplexity", "perplexity", "lower", "{:.2f}", headline=True),
    Metric("token_accuracy", "token accuracy", "higher", "{:.2%}", headline=True),
    Metric("nats_per_token", "nats a token", "lower", "{:.4f}"),
)


def needs() -> set[str]:
    """Held-out documents, whose tokens get a likelihood."""
    return {"corpus", "likelihood"}


def make(*, context: Context) -> Task:
    """Perplexity of the context's documents."""

    def measure(document, answers):
        (scored,) = answers
        bits = scored.nats / math.log(2)
        values = {
            "bits_per_byte": (bits, float(document.raw_bytes)),
            "nats_per_token": (scored.nats, float(scored.tokens)),
            "token_accuracy": (float(scored.correct), float(scored.tokens)),
        }
        figures = {**scored._asdict(), "bytes": document.raw_bytes}
        content = hashlib.sha256(document.text.encode("utf-8", "surrogatepass"))
        about = {"id": document.id, "content": content.hexdigest()[:16]}
        return {**about, **figures, "values": values}

    return Task(
        examples=context.documents,
        requests=lambda document: [Rolling(document.text)],
        measure=measure,
        summarise=summarise,
        on_top=True,
    )


def summarise(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over documents: sums are divided last."""
    nats, tokens, correct, size = (
        sum(f[key] for f in figures) for key in ("nats", "tokens", "correct", "bytes")
    )
    by_token = ratio([(f["nats"], f["tokens"]) for f in figures])
    intervals = {
        "bits_per_byte": ratio(
            [(f["nats"] / math.log(2), f["bytes"]) for f in figures]
        ),
        "perplexity": by_token.mapped(lambda x: math.exp(min(x, 700.0))),
        "token_accuracy": ratio([(f["correct"], f["tokens"]) for f in figures]),
    }
    return {
        "bits_per_byte": nats / math.log(2) / size,
        "perplexity": math.exp(min(nats / tokens, 700.0)),
        "token_accuracy": correct / tokens,
        "tokens": tokens,
        "bytes": size,
        "documents": len(figures),
        "interval": {name: [f.low, f.high] for name, f in intervals.items()},
    }
