"""The page of a sweep: the best trial, the metric against each field, all trials."""

import math
import os
import pathlib
import statistics
from collections.abc import Sequence

from llm import units
from llm.reports import page, svg
from llm.sweeps.search import Axis
from llm.sweeps.trials import Trial, Wanted, best
from llm.training import metric_writer

_MOST_CURVES = 24
_ENDS = {"done": "", "halved": "stopped at a rung"}


def write(
    root: pathlib.Path, trials: Sequence[Trial], axes: Sequence[Axis], wanted: Wanted
) -> str:
    """The page as HTML, of the trials so far."""
    leader = best(trials, wanted)
    ended = [t for t in trials if t.status != "running"]
    line = f"{len(ended)} of {len(trials)} trials ended" if len(ended) < len(trials) \
        else f"{len(trials)} trials"  # fmt: skip
    header = f"<h1>{page.escape(root.resolve().name)}</h1><p>{line}</p>" + page.cards(
        _cards(ended, leader, wanted)
    )
    sections = [
        ("Best", _best(root, leader) if leader else ""),
        ("Fields", _fields(trials, axes, wanted)),
        ("Course", _course(root, trials, leader, wanted)),
        ("Trials", _table(trials, wanted)),
    ]
    title = f"Sweep of {', '.join(axis.name for axis in axes)}"
    return page.page(title, header, [s for s in sections if s[1]])


def number(value: float) -> str:
    """A value of a field, as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cards(ended, leader, wanted):
    if leader:
        yield f"best {wanted.metric}", f"{leader.value:.4g}", f"trial {leader.number}"
    counts = [(s, sum(t.status == s for t in ended)) for s in ("halved", "failed")]
    note = ", ".join(f"{n} {s}" for s, n in counts if n)
    yield "trials", str(len(ended)), note
    spent = sum(t.seconds for t in ended)
    yield "time of trials", units.duration(spent), "of all processes together"


def _best(root, leader) -> str:
    values = page.table(
        ("field", "value"), [(f, number(v)) for f, v in leader.values.items()]
    )
    folder = os.path.join(os.fspath(root), "trials", f"{leader.number:04d}")
    command = (
        f"python -m llm.main --config=configs/again.py:run={folder} "
        "--workdir=runs/best --config.workload=pipeline"
    )
    return page.panel(
        f"{values}<p>Its run is <code>{page.escape(folder)}</code>. Once more, or "
        f"longer:</p><pre>{page.escape(command)}</pre>"
    )


def _fields(trials, axes, wanted) -> str:
    """The metric against each field: a plot of numbers, a table of anything else."""
    parts = []
    done = [t for t in trials if t.value is not None]
    for axis in axes:
        field = axis.fields[0]
        values = [t.values[field] for t in done]
        numbers = all(type(v) in (int, float) for v in values)
        if values and numbers and len(axis.fields) == 1 and len(set(values)) > 1:
            parts.append(_plot(done, axis, wanted))
        elif values:
            parts.append(_choices(done, axis, wanted))
    return "".join(map(page.panel, parts))


def _plot(done, axis, wanted) -> str:
    field = axis.fields[0]
    shown = [
        svg.Series(name, *_points(done, field, status), colour, "points")
        for name, status, colour in (
            ("to the end", "done", 1), ("stopped at a rung", "halved", 3)
        )
    ]  # fmt: skip
    values = [t.values[field] for t in done]
    spread = min(values) > 0 and max(values) > 8 * min(values)
    return svg.lines(
        shown, title=f"{wanted.metric} by {field}", x_label=field.rpartition(".")[2],
        x_format=number, y_format="{:.4g}".format, log_y=False, width=900,
        log_x=axis.how == "log" or spread,
    )  # fmt: skip


def _points(done, field, status):
    found = sorted((t.values[field], t.value) for t in done if t.status == status)
    return [x for x, _ in found], [y for _, y in found]


def _choices(done, axis, wanted) -> str:
    rows = []
    for choice in axis.values if axis.how == "values" else ():
        held = [
            t.value for t in done
            if tuple(t.values[f] for f in axis.fields) == choice and t.status == "done"
        ]  # fmt: skip
        if held:
            least = min(held, key=lambda v: wanted.sign * v)
            shown = ", ".join(map(number, choice))
            middle = statistics.median(held)
            rows.append((shown, str(len(held)), f"{least:.4g}", f"{middle:.4g}"))
    return page.table((axis.name, "trials", "best", "median"), rows) if rows else ""


def _course(root, trials, leader, wanted) -> str:
    """The best so far, trial after trial, and how each of them learned."""
    done = [t for t in trials if t.status == "done"]
    so_far = [
        wanted.sign * min(wanted.sign * t.value for t in done[: n + 1])
        for n in range(len(done))
    ]
    at = [float(t.number) for t in done]
    course = svg.lines(
        [
            svg.Series("a trial", at, [t.value for t in done], 2, "points"),
            svg.Series("best so far", at, so_far),
        ],
        title=f"{wanted.metric}, trial after trial", x_label="trial", log_y=False,
        y_format="{:.4g}".format, width=900,
    )  # fmt: skip
    ranked = sorted(
        (t for t in trials if t.value is not None), key=lambda t: wanted.sign * t.value
    )
    curves = []
    for trial in ranked[:_MOST_CURVES][::-1]:
        records = metric_writer.read(root / "trials" / f"{trial.number:04d}")
        held = [(r["step"], r[wanted.metric]) for r in records
                if isinstance(r.get(wanted.metric), float)]  # fmt: skip
        if len(held) > 1:
            steps, values = zip(*held, strict=True)
            first = leader and trial.number == leader.number
            name = f"trial {trial.number}, the best" if first else ""
            curves.append(svg.Series(name, steps, values, 1 if first else 2,
                                       "dots" if first else "faint"))  # fmt: skip
    return page.panel(course) + page.panel(
        svg.lines(curves, title=f"{wanted.metric} by step", width=900)
    )


def _table(trials, wanted) -> str:
    def rank(t):
        order = ("done", "halved", "running", "failed").index(t.status)
        return order, wanted.sign * t.value if t.value is not None else math.inf

    fields = list(trials[0].values) if trials else []
    head = ("trial", *fields, wanted.metric, "steps", "time", "how it ended")
    rows = [
        (
            str(t.number),
            *(number(t.values[f]) for f in fields),
            "" if t.value is None else f"{t.value:.4f}",
            f"{t.steps:,}" if t.steps else "",
            units.duration(t.seconds),
            t.reason or _ENDS.get(t.status, t.status),
        )
        for t in sorted(trials, key=rank)
    ]
    return page.panel(page.table(head, rows))
