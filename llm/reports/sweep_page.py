"""The page of a sweep: the best trial, the metric against each field, all trials."""

import math
import os
import pathlib
import statistics
from collections.abc import Sequence

from llm.reports import page, svg
from llm.sweeps.search import Axis
from llm.sweeps.trials import Trial, Wanted, best
from llm.training import metric_writer

_MOST_CURVES = 24


def write(
    root: pathlib.Path, trials: Sequence[Trial], axes: Sequence[Axis], wanted: Wanted
) -> str:
    """The page as HTML, of the trials so far."""
    leader = best(trials, wanted)
    return page.render(
        "sweep.html.j2",
        title=f"Sweep of {', '.join(axis.name for axis in axes)}",
        root=root.resolve(),
        folder=os.path.join(root, "trials", f"{leader.number:04d}") if leader else "",
        ended=[t for t in trials if t.status != "running"],
        trials=sorted(trials, key=lambda t: _rank(t, wanted)),
        leader=leader,
        metric=wanted.metric,
        axes=_axes([t for t in trials if t.value is not None], axes, wanted),
        plots=[_course(trials, wanted), _curves(root, trials, leader, wanted)],
        number=number,
    )


def number(value: float) -> str:
    """A value of a field, as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rank(trial, wanted):
    order = ("done", "halved", "running", "failed").index(trial.status)
    return order, math.inf if trial.value is None else wanted.sign * trial.value


def _axes(done, axes, wanted):
    """(name, plot, choices): a plot of numbers, a table of anything else."""
    for axis in axes:
        values = [t.values[axis.fields[0]] for t in done]
        numbers = all(type(v) in (int, float) for v in values)
        if numbers and len(axis.fields) == 1 and len(set(values)) > 1:
            yield axis.name, _plot(done, axis, wanted), []
        else:
            yield axis.name, ("", ""), list(_choices(done, axis, wanted))


def _plot(done, axis, wanted) -> tuple[str, str]:
    field = axis.fields[0]
    shown = [
        svg.Series(name, *_points(done, field, status), colour, "points")
        for name, status, colour in (
            ("to the end", "done", 1), ("stopped at a rung", "halved", 3)
        )
    ]  # fmt: skip
    values = [t.values[field] for t in done]
    spread = min(values) > 0 and max(values) > 8 * min(values)
    return svg.both(
        shown, title=f"{wanted.metric} by {field}", x_label=field.rpartition(".")[2],
        x_format=number, y_format="{:.4g}".format, log_y=False,
        log_x=axis.how == "log" or spread,
    )  # fmt: skip


def _points(done, field, status):
    found = sorted((t.values[field], t.value) for t in done if t.status == status)
    return [x for x, _ in found], [y for _, y in found]


def _choices(done, axis, wanted):
    """(choice, trials that came to the end, the best of them, the median)."""
    for choice in axis.values if axis.how == "values" else ():
        values = [
            t.value for t in done
            if tuple(t.values[f] for f in axis.fields) == choice and t.status == "done"
        ]  # fmt: skip
        if values:
            least = min(values, key=lambda v: wanted.sign * v)
            shown = ", ".join(map(number, choice))
            yield shown, len(values), least, statistics.median(values)


def _course(trials, wanted) -> tuple[str, str]:
    """The best so far, trial after trial."""
    done = [t for t in trials if t.status == "done"]
    so_far = [
        wanted.sign * min(wanted.sign * t.value for t in done[: n + 1])
        for n in range(len(done))
    ]
    at = [float(t.number) for t in done]
    return svg.both(
        [
            svg.Series("a trial", at, [t.value for t in done], 2, "points"),
            svg.Series("best so far", at, so_far),
        ],
        title=f"{wanted.metric}, trial after trial", x_label="trial", log_y=False,
        y_format="{:.4g}".format,
    )  # fmt: skip


def _curves(root, trials, leader, wanted) -> tuple[str, str]:
    """How the best trials learned, the best of all in front."""
    ranked = sorted(
        (t for t in trials if t.value is not None), key=lambda t: wanted.sign * t.value
    )
    curves = []
    for trial in ranked[:_MOST_CURVES][::-1]:
        records = metric_writer.read(root / "trials" / f"{trial.number:04d}")
        points = [(r["step"], r[wanted.metric]) for r in records
                  if isinstance(r.get(wanted.metric), float)]  # fmt: skip
        if len(points) > 1:
            look = ("", *zip(*points, strict=True), 2, "faint")
            if trial == leader:
                name = f"trial {trial.number}, the best"
                look = (name, *look[1:3], 1, "dots")
            curves.append(svg.Series(*look))
    return svg.both(curves, title=f"{wanted.metric} by step")
