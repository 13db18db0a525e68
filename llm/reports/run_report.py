"""One self-contained HTML page for a run directory: what a person looks at.

    write("runs/quickstart")  ->  runs/quickstart/report.html

The page is made from the files that workloads leave in the directory, and each of them
may be absent: its section is then left out. To show something new, write a section in
`templates/run.html.j2`; one that comes out empty does not appear.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

from llm import evals, files, json_text, metrics, units
from llm.errors import InputError
from llm.reports import page, svg
from llm.training import metric_writer

# The results of workloads that the page shows, one JSON object each.
_RESULTS = (
    "config",
    "prepare_data",
    "train_tokenizer",
    "train",
    "evaluate",
    "generate",
)


class Run(NamedTuple):
    """What a run directory holds; a file that is absent is an empty mapping."""

    name: str
    config: dict[str, Any]
    prepare_data: dict[str, Any]
    train_tokenizer: dict[str, Any]
    train: dict[str, Any]
    evaluate: dict[str, Any]
    generate: dict[str, Any]
    metrics: list[dict[str, Any]]


def read(workdir: str | pathlib.Path) -> Run:
    """Reads a run directory.

    Raises:
      InputError: there is no such directory, or a file of it is not JSON.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise InputError(got=f"run directory {workdir}", want="a directory that exists")
    results = {name: _read_json(workdir / f"{name}.json") for name in _RESULTS}
    name = workdir.resolve().name
    return Run(name=name, metrics=metric_writer.read(workdir), **results)


def write(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into a run directory and returns its path."""
    run = read(workdir)
    html = page.render(
        "run.html.j2",
        run=run,
        scores=_scores,
        events=_events(run),
        loss=_loss(run),
        speeds=_speeds(run),
        config=_groups(run.config.get("config", {})),
    )
    path = pathlib.Path(workdir) / "report.html"
    files.write_text(path, html)
    return path


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    again = "run that workload again, or remove the file"
    want = "a result that a workload wrote"
    found = json_text.parsed(path, path.read_bytes(), want, again)
    if not isinstance(found, dict):
        raise InputError(got=f"{path} with a {type(found).__name__}", want="an object")
    return found


def _scores(figures: dict[str, Any]) -> list[tuple[evals.Metric, float]]:
    """(metric, value) of the figures that stand for a task."""
    return [
        (metric, figures[name])
        for name, metric in evals.metrics().items()
        if metric.headline and isinstance(figures.get(name), (int, float))
    ]


def _events(run: Run) -> list[dict[str, Any]]:
    """What happened on the way: events of training, and losses that were not finite."""
    events = list(run.train.get("events", []))
    for record in run.metrics:
        if not math.isfinite(record.get("loss") or 0.0):
            message = f"The loss was {record['loss']}."
            events.append(
                {"step": record["step"], "event": "not finite", "message": message}
            )
            break
    return events


def _loss(run: Run) -> tuple[str, str]:
    steps, losses = _column(run, "loss")
    series = []
    if losses:
        span = len(losses) / 40
        if span > 1:
            series.append(svg.Series("each step", steps, losses, 1, "faint"))
        series.append(svg.Series("training", steps, metrics.smoothed(losses, span)))
    at, validation = _column(run, "validation_loss")
    if validation:
        series.append(svg.Series("validation", at, validation, 2, "dots"))
    return svg.both(
        series,
        title="Loss, nats a token",
        width=1040,
        height=330,
        y_format="{:.3f}".format,
        tick_format="{:g}".format,
    )


def _speeds(run: Run) -> list[tuple[str, str]]:
    return [
        svg.both(
            [svg.Series(key.replace("_", " "), *_column(run, key), colour)],
            title=title,
            width=500,
            y_format=form,
            from_zero=key != "grad_norm",
        )
        for key, title, form, colour in (
            ("learning_rate", "Learning rate", "{:.2g}".format, 4),
            ("grad_norm", "Gradient norm", "{:.3g}".format, 2),
            ("tokens_per_s", "Tokens per second", units.count, 3),
            ("mfu", "Model FLOPs utilisation", "{:.0%}".format, 1),
        )
    ]


def _groups(config: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """{group of fields: [(name, value)]}; those of the run itself are the first."""
    top = {k: v for k, v in config.items() if not isinstance(v, dict)}
    groups = {"run": top} if top else {}
    groups |= {k: v for k, v in config.items() if isinstance(v, dict)}
    return {name: list(_flat(fields)) for name, fields in groups.items()}


def _flat(values: dict[str, Any], prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value) if value != "" else "''"


def _column(run: Run, key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that have a number there.

    A speed of 0 is that of the first record after a start, which measured none.
    """
    rate = key in ("tokens_per_s", "mfu")
    pairs = [(r["step"], r[key]) for r in run.metrics if r.get(key) is not None]
    pairs = [(step, value) for step, value in pairs if value or not rate]
    return [step for step, _ in pairs], [value for _, value in pairs]
