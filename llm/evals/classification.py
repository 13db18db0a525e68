"""A trained classifier on texts of one's own: accuracy, F1, and calibration.

Fields: `text` and `label`, which must be one of the classes that the model was trained
with. `macro_f1` counts all classes alike, however rare; `calibration_error` says how
far the model's confidence is from how often it is right.
"""

from typing import Any

import numpy as np

from llm.data import eval_records
from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Predict, Predicted
from llm.metrics import calibration_error, macro_f1, of_items, resampled, summary

TINY: dict[str, Any] = {"limit": 4}


def _pooled_f1(pairs):
    classes = sorted({item[k] for pair in pairs for item in pair
                      for k in ("target", "output")})  # fmt: skip
    number, size = {name: n for n, name in enumerate(classes)}, len(classes)
    places = [
        np.array(
            [number[p[run]["target"]] * size + number[p[run]["output"]] for p in pairs]
        )
        for run in (0, 1)
    ]

    def statistic(run, counts_N):
        flat = np.bincount(places[run], weights=counts_N, minlength=size * size)
        return macro_f1(flat.reshape(size, size))

    return statistic


METRICS = (
    Metric("accuracy", "accuracy", "higher", "{:.1%}", headline=True),
    Metric(
        "macro_f1", "macro F1", "higher", "{:.1%}", headline=True, pooled=_pooled_f1
    ),
    Metric("log_loss", "log loss", "lower", "{:.4f}"),
    Metric("calibration_error", "calibration error", "lower", "{:.3f}"),
)


def make(
    *,
    path: str = "",
    fields: str = "",
    columns: str = "",
    limit: int = 0,
    context: Context,
) -> Task:
    """Classification of the texts of a local file, of which at most `limit`."""
    read = eval_records.read(path, fields=fields, columns=columns)
    chosen = eval_records.spread(read.items, limit)
    if not context.classes:
        raise InputError(
            got="classification by a model that is no classifier of texts",
            want="one that was trained with the objective classify",
            do="train one: configs/classify.py",
        )
    for item in chosen:
        eval_records.text(item, "text")
        if str(item["label"]) not in context.classes:
            raise InputError(
                got=f"{item.id} with label {item['label']!r:.60}",
                want=f"one of {', '.join(context.classes)}",
            )

    def measure(item, answers: list[Predicted]):
        (answer,) = answers
        right, said = str(item["label"]), answer.best
        log_loss = -np.log(max(answer.probabilities[right], 1e-12))
        return {
            "id": item.id,
            "content": item.digest,
            "input": item["text"][:600],
            "target": right,
            "output": said,
            "probability": answer.probabilities[said],
            "values": {
                "accuracy": (float(said == right), 1.0),
                "log_loss": (float(log_loss), 1.0),
            },
        }

    def summarise(figures):
        return totals(figures, context.classes)

    about = {"path": path, "sha256": read.sha256, "items": len(read.items)}
    return Task(
        chosen,
        lambda item: [Predict(item["text"])],
        measure,
        summarise,
        about | {"fields": fields, "limit": limit},
    )


def totals(figures: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    """Figures of all texts, and how often which class was taken for which."""
    number = {name: i for i, name in enumerate(classes)}
    pair_N = np.array(
        [number[f["target"]] * len(classes) + number[f["output"]] for f in figures]
    )
    sure_N = np.array([f["probability"] for f in figures])
    hit_N = np.array([f["target"] == f["output"] for f in figures], float)

    def confusion(counts_N):
        size = len(classes)
        flat = np.bincount(pair_N, weights=counts_N, minlength=size * size)
        return flat.reshape(size, size)

    found = of_items(figures)
    found["macro_f1"] = resampled(lambda n: macro_f1(confusion(n)), len(figures))
    made = summary(found)
    made["calibration_error"] = calibration_error(sure_N, hit_N)
    made["confusion"] = {
        name: dict(zip(classes, map(int, row), strict=True))
        for name, row in zip(classes, confusion(np.ones(len(figures))), strict=True)
    }
    return made
