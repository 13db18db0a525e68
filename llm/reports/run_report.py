"""One self-contained HTML page for a run directory: what a person looks at.

    write("runs/quickstart")  ->  runs/quickstart/report.html

The page is made from the files that workloads leave in the directory, and each of them
may be absent: its section is then left out. To show something new, write a function
`Run -> html` and put it in `SECTIONS`; what it returns empty does not appear.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

from llm import evals, files, metrics, units
from llm.errors import InputError
from llm.reports import corpus_sections, page, svg
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
    shown = [(heading, section(run)) for heading, section in SECTIONS]
    html = page.page(run.name, _header(run), [s for s in shown if s[1]])
    path = pathlib.Path(workdir) / "report.html"
    files.write_text(path, html)
    return path


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            got=f"{path}, which is not JSON ({error})",
            want="a result that a workload wrote",
            do="run that workload again, or remove the file",
        ) from error
    if not isinstance(found, dict):
        raise InputError(got=f"{path} with a {type(found).__name__}", want="an object")
    return found


def _header(run: Run) -> str:
    config = run.config.get("config", {})
    model = config.get("model", {})
    parts = [
        f"{model['name']} language model" if "name" in model else "",
        f"{units.count(run.train['parameters'])} parameters"
        if "parameters" in run.train
        else "",
        _device(run.config),
        f"commit {run.config['git_commit'][:10]}"
        if run.config.get("git_commit")
        else "",
    ]
    line = " · ".join(part for part in parts if part)
    return (
        f"<h1>{page.escape(run.name)}</h1><p>{page.escape(line)}</p>"
        f"{page.cards(_headlines(run))}"
    )


def _scores(figures: dict[str, Any]):
    """(metric, value) of the figures that stand for a task."""
    for name, metric in evals.metrics().items():
        if metric.headline and isinstance(figures.get(name), (int, float)):
            yield metric, figures[name]


def _headlines(run: Run):
    """The figures people compare, most telling first: (label, value, note)."""
    e, t = run.evaluate, run.train
    split = e.get("split", "test")
    for metric, value in _scores(e):
        if metric.better:  # others are context, which the evaluation shows
            note = f"{metric.better} is better"
            yield f"{metric.label}, {split}", metric.shown(value), note
    if e.get("bits_per_byte") is None and t.get("validation_loss") is not None:
        yield "validation loss", f"{t['validation_loss']:.3f}", "nats a token"
    if "parameters" in t:
        name = run.config.get("config", {}).get("model", {}).get("name", "")
        yield "parameters", units.count(t["parameters"]), name
    if "tokens" in t:
        epochs = t.get("epochs")
        note = f"{epochs:.3g} epochs" if epochs is not None else ""
        yield "tokens trained on", units.count(t["tokens"]), note
    seconds = {
        name: found["seconds"]
        for name, found in (
            ("data", run.prepare_data),
            ("tokenizer", run.train_tokenizer),
            ("training", t),
            ("evaluation", e),
        )
        if "seconds" in found
    }
    if seconds:
        longest = max(seconds, key=seconds.get)
        total = sum(seconds.values())
        note = f"{seconds[longest] / max(total, 1e-9):.0%} of it {longest}"
        yield "wall time", units.duration(total), note


def _learning(run: Run) -> str:
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
    t = run.train
    best = t.get("best_validation_loss")
    summary = page.facts(
        (
            ("steps", f"{t['steps']:,}" if "steps" in t else None),
            ("final validation loss", _fixed(t.get("validation_loss"))),
            ("best validation loss", _fixed(best)),
            ("best at step", f"{t['best_step']:,}" if t.get("best_step") else None),
            ("stopped early", "yes" if t.get("stopped_early") else None),
        )
    )
    plot = _plot(
        series,
        title="Loss, nats a token",
        height=330,
        y_format="{:.3f}".format,
        tick_format="{:g}".format,
    )
    return page.panel(plot) + page.panel(summary)


def _warnings(run: Run) -> str:
    """What happened on the way: events of training, and losses that were not finite."""
    events = list(run.train.get("events", []))
    for record in run.metrics:
        if not math.isfinite(record.get("loss") or 0.0):
            message = f"The loss was {record['loss']}."
            events.append(
                {"step": record["step"], "event": "not finite", "message": message}
            )
            break
    kinds = {"overfit": "warn", "skip": "warn", "not finite": "bad", "nan": "bad"}
    kinds |= {"fail": "bad", "spike": "warn", "warn": "warn"}
    rows = []
    for event in events:
        name = str(event.get("event", "event"))
        kind = next((kinds[word] for word in kinds if word in name.lower()), "plain")
        rows.append(
            f'<li><span class="at">step {event.get("step", 0):,}</span>'
            f"{page.badge(name.replace('_', ' '), kind)}"
            f"<span>{page.escape(str(event.get('message', '')))}</span></li>"
        )
    return page.panel(f'<ul class="events">{"".join(rows)}</ul>') if rows else ""


def _speed(run: Run) -> str:
    panels = []
    for key, title, form, scale in (
        ("learning_rate", "Learning rate", "{:.2g}".format, {"from_zero": True}),
        ("grad_norm", "Gradient norm", "{:.3g}".format, {}),
        ("tokens_per_s", "Tokens per second", units.count, {"from_zero": True}),
        ("mfu", "Model FLOPs utilisation", "{:.0%}".format, {"from_zero": True}),
    ):
        steps, values = _column(run, key)
        colour = {"learning_rate": 4, "grad_norm": 2, "tokens_per_s": 3}.get(key, 1)
        series = [svg.Series(key.replace("_", " "), steps, values, colour)]
        panels.append(page.panel(_plot(series, title=title, y_format=form, **scale)))
    groups = run.train.get("optimizer_groups", [])
    optimizers = page.table(
        ("optimizer", "parameters", "leaves"),
        [
            (g["optimizer"], units.count(g["parameters"]), f"{g['leaves']:,}")
            for g in groups
        ],
    )
    mixture = page.table(
        ("mixture", "share of the rows", "rows", "epochs"),
        [
            (
                name or "none",
                f"{m['share']:.1%}",
                f"{m['rows']:,}",
                f"{m['epochs']:.2f}",
            )
            for name, m in run.train.get("mixture", {}).items()
        ],
    )
    speed = page.facts(
        (
            ("tokens per second", _maybe(units.count, run.train.get("tokens_per_s"))),
            ("MFU", _maybe("{:.1%}".format, run.train.get("mfu"))),
            ("training time", _maybe(units.duration, run.train.get("seconds"))),
            (
                "from start to end",
                _maybe(units.duration, run.train.get("wall_seconds")),
            ),
            (
                "without a process",
                _maybe(units.duration, run.train.get("down_seconds")),
            ),
            ("goodput", _maybe("{:.1%}".format, run.train.get("goodput"))),
        )
    )
    grid = "".join(panels)
    return (
        page.panel(speed)
        + (f'<div class="grid">{grid}</div>' if grid else "")
        + page.panel(optimizers if groups else "")
        + page.panel(mixture if run.train.get("mixture") else "")
    )


def _evaluation(run: Run) -> str:
    e = run.evaluate
    scores = page.facts(
        (
            ("split", e.get("split")),
            *((m.label, m.shown(value)) for m, value in _scores(e) if not m.is_share),
            *(
                (f"{label}: {metric.label}", metric.shown(value))
                for label, figures in e.items()
                if isinstance(figures, dict) and label not in ("before", "objective")
                for metric, value in _scores(figures)
            ),
            ("tokens", _maybe(units.count, e.get("tokens"))),
            ("bytes", _maybe(units.size, e.get("bytes"))),
            ("documents", _maybe("{:,}".format, e.get("documents"))),
            *(
                (f"objective's {name}", _fixed(value, 4))
                for name, value in e.get("objective", {}).items()
            ),
        )
    )
    rows = "".join(
        f'<div><div class="row-head"><b>{page.escape(m.label)}</b>'
        f"<span>{m.shown(share)}</span></div>"
        f"{svg.bar([(m.label, share, 'c1' if m.better else 'c3')], title=m.label)}"
        "</div>"
        for m, share in _scores(e)
        if m.is_share
    )
    return page.panel(scores) + page.panel(
        f'<div class="rows">{rows}</div>' if rows else ""
    )


def _samples(run: Run) -> str:
    shown = []
    for example in run.evaluate.get("syntax_examples", []):
        valid = example.get("valid")
        badge = page.badge("valid" if valid else "invalid", "good" if valid else "bad")
        note = "" if valid else str(example.get("reason", "")).replace("_", " ")
        shown.append((example, badge, note))
    for example in run.generate.get("samples", []):
        reason = str(example.get("stop_reason", ""))
        shown.append((example, page.badge(reason, "plain") if reason else "", ""))
    if not shown:
        return ""
    html = "".join(
        page.sample(str(x.get("prompt", "")), str(x.get("completion", "")), badge, note)
        for x, badge, note in shown
    )
    sampling = run.generate.get("sampling") or {}
    settings = ", ".join(f"{k} {v}" for k, v in sampling.items() if v not in ("", None))
    lead = "The prompt is tinted; the rest is the model's. "
    lead += f"Sampled with {settings}." if settings else ""
    return f'<p class="soft">{page.escape(lead)}</p><div class="samples">{html}</div>'


def _config(run: Run) -> str:
    config = run.config.get("config", {})
    top = {k: v for k, v in config.items() if not isinstance(v, dict)}
    groups = {"run": top} if top else {}
    groups |= {k: v for k, v in config.items() if isinstance(v, dict)}
    html = ""
    for name, values in groups.items():
        rows = "".join(
            f"<div><dt>{page.escape(key)}</dt><dd>{page.escape(value)}</dd></div>"
            for key, value in _flat(values)
        )
        html += f"<div><h3>{page.escape(name)}</h3><dl>{rows}</dl></div>"
    if not html:
        return ""
    return page.panel(page.details("Every field", f'<div class="config">{html}</div>'))


def _flat(values: dict[str, Any], prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value) if value != "" else "''"


def _environment(run: Run) -> str:
    c = run.config
    return page.panel(
        page.facts(
            (
                ("device", _device(c) or None),
                ("Python", c.get("python")),
                ("commit", c.get("git_commit")),
                *((name, str(v)) for name, v in c.get("versions", {}).items()),
            )
        )
    )


SECTIONS = (
    ("Learning", _learning),
    ("Events", _warnings),
    ("Evaluation", _evaluation),
    ("Samples", _samples),
    ("Speed", _speed),
    ("Data", lambda run: corpus_sections.data(run.prepare_data)),
    ("Tokenizer", lambda run: corpus_sections.tokenizer(run.train_tokenizer)),
    ("Config", _config),
    ("Environment", _environment),
)


def _column(run: Run, key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that have a number there.

    A speed of 0 is that of the first record after a start, which measured none.
    """
    rate = key in ("tokens_per_s", "mfu")
    found = [(r["step"], r[key]) for r in run.metrics if r.get(key) is not None]
    found = [(step, value) for step, value in found if value or not rate]
    return [step for step, _ in found], [value for _, value in found]


def _plot(series, *, title: str, height: int = 230, **scale) -> str:
    """A plot for a wide page and one for a phone: text keeps its size in both."""
    sizes = (("wide", 1040 if height > 300 else 500, height), ("narrow", 340, 230))
    drawn = [
        (
            css,
            svg.lines(series, title=title, width=w, height=h, **scale),
        )
        for css, w, h in sizes
    ]
    return "".join(f'<div class="{css}">{plot}</div>' for css, plot in drawn if plot)


def _device(config: dict[str, Any]) -> str:
    if "device_kind" not in config:
        return ""
    return f"{config.get('devices', 1)} × {config['device_kind']}"


def _maybe(form, value):
    return None if value is None else form(value)


def _fixed(value: float | None, decimals: int = 3) -> str | None:
    return None if value is None else f"{value:.{decimals}f}"
