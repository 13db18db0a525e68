"""A reward model on held-out pairs: how often the preferred answer has more of it.

The documents are those of the run's own split, or records of a file of preferences
(`llm/data/record_forms.py`). The model's probability that people prefer the chosen
answer is sigmoid(margin), of the difference of both rewards; `calibration_error` says
how far it is from how often that is so. Equal rewards are not right.
"""

import hashlib
import json
import math
from typing import Any

import numpy as np

from llm import registry
from llm.data import eval_records
from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Reward
from llm.knobs import Count
from llm.metrics import calibration_error, of_items, summary

TINY: dict[str, Any] = {"limit": 4}
METRICS = (
    Metric("accuracy", "accuracy", "higher", "{:.1%}", headline=True),
    Metric("log_loss", "log loss", "lower", "{:.4f}"),
    Metric("margin", "margin", "higher", "{:.3f}"),
    Metric("calibration_error", "calibration error", "lower", "{:.3f}"),
)


def needs(path: str = "", **given: Any) -> set[str]:
    """The corpus, where there is no file."""
    return set() if path else {"corpus"}


def make(*, path: str = "", limit: Count = 0, context: Context) -> Task:
    """Preferences of a local file or of the corpus, of which at most `limit`."""
    documents = context.documents
    if path:
        read = registry.build("sources", registry.spec("sources", "records", path=path))
        documents = list(read(lambda reason, id: None))
    pairs = [d for d in documents if "rejected" in d.meta.get("record", {})]
    if not pairs:
        raise InputError(
            got=f"no preferences among {len(documents)} documents",
            want="records of prompt, chosen and rejected",
        )

    def requests(document):
        record = document.meta["record"]
        about = record.get("tools", ()), record.get("variables", {})
        answers = record["chosen"], record["rejected"]
        return [Reward(record["prompt"], answer, about) for answer in answers]

    def measure(document, rewards):
        chosen, rejected = map(float, rewards)
        margin = chosen - rejected
        log_loss = max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
        content = json.dumps(document.meta["record"], sort_keys=True)
        return {
            "id": document.id,
            "content": hashlib.sha256(content.encode()).hexdigest()[:16],
            "chosen": chosen,
            "rejected": rejected,
            "values": {
                "accuracy": (float(margin > 0), 1.0),
                "log_loss": (log_loss, 1.0),
                "margin": (margin, 1.0),
            },
        }

    return Task(
        eval_records.spread(pairs, limit),
        requests,
        measure,
        totals,
        {"path": path, "limit": limit, "pairs": len(pairs)},
    )


def totals(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all pairs."""
    made = summary(of_items(figures))
    margin_N = np.array([f["chosen"] - f["rejected"] for f in figures])
    sure_N = 1 / (1 + np.exp(-np.abs(margin_N)))
    made["calibration_error"] = calibration_error(sure_N, (margin_N > 0).astype(float))
    return made
