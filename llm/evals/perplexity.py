"""How well a model predicts held-out text: bits per byte, perplexity, accuracy.

Every token of every document, its end included, is scored once. Bits per byte divides
by the UTF-8 bytes of the raw text as it was read, before normalisation, so that figures
of models with other tokenizers and cleaning compare.
"""

import math
from typing import Any

from llm.task import Context, Rolling, Task

TINY: dict[str, Any] = {}


def make(*, context: Context) -> Task:
    """Perplexity of the context's documents."""

    def measure(document, answers):
        (scored,) = answers
        return {**scored._asdict(), "bytes": document.raw_bytes}

    return Task(
        examples=context.documents,
        requests=lambda document: [Rolling(document.text)],
        measure=measure,
        summarise=summarise,
    )


def summarise(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over documents: sums are divided last."""
    nats, tokens, correct, size = (
        sum(f[key] for f in figures) for key in ("nats", "tokens", "correct", "bytes")
    )
    return {
        "bits_per_byte": nats / math.log(2) / size,
        "perplexity": math.exp(min(nats / tokens, 700.0)),
        "token_accuracy": correct / tokens,
        "tokens": tokens,
        "bytes": size,
        "documents": len(figures),
    }
