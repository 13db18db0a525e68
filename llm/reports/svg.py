"""Line plots as inline SVG: the places of what `plot.svg.j2` draws.

Colours come from the page's CSS variables, so a plot follows the reader's light or dark
mode. Hovering a column shows its values, by CSS alone.

    lines([Series("train", steps, losses)], title="Loss", x_label="step")
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from llm import units
from llm.reports import page


class Series(NamedTuple):
    """One line: `style` is line, faint (behind the others), dots (joined marks) or
    points (marks alone)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 1  # of the page's --c1 .. --c4
    style: str = "line"


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    x_format: Callable[[float], str] | None = None,
    y_format: Callable[[float], str] = "{:.3g}".format,
    tick_format: Callable[[float], str] | None = None,
    width: int = 500,
    height: int = 230,
    log_x: bool = False,
    log_y: bool | None = None,
    from_zero: bool = False,
) -> str:
    """A figure with axes, ticks, grid, legend and values on hover.

    Args:
      x_format: None is for whole numbers, such as steps.
      tick_format: of the axis' labels; None takes `y_format`, that of the values.
      log_y: None takes a logarithmic axis where it reads better: all values are
        positive and the largest is over 2.5 times the smallest.
      from_zero: the axis begins at 0 (rates, shares).

    Returns:
      A `<figure>`; '' where no series has a finite point.
    """
    series = [Series(s.name, *_finite(s.x, s.y), s.colour, s.style) for s in series]
    series = [s for s in series if len(s.x)]
    if not series:
        return ""
    xs = [x for s in series for x in s.x]
    ys = [y for s in series for y in s.y]
    if log_y is None:
        log_y = not from_zero and min(ys) > 0 and max(ys) > 2.5 * min(ys)
    x_axis = _Axis(min(xs), max(xs), max(2, width // 110), log=log_x, pad=0.03 * log_x)
    y_axis = _Axis(0 if from_zero else min(ys), max(ys), 5, log=log_y, pad=0.06)

    labels = [(tick_format or y_format)(tick) for tick in y_axis.ticks]
    left = 14 + 6.6 * max(map(len, labels))
    right, top, bottom = width - 14, 26, height - 34

    def across(x):
        return round(left + x_axis.share(x) * (right - left), 1)

    def down(y):
        return round(bottom - y_axis.share(y) * (bottom - top), 1)

    def points(s):
        thinned = zip(*_thinned(s.x, s.y, width), strict=True)
        return [(across(x), down(y)) for x, y in thinned]

    shown = [s for s in series if s.style != "faint"]
    formats = (x_format or "{:,.0f}".format, y_format)
    figure = page.render(
        "plot.svg.j2",
        title=f"{title} (log scale)" if log_y else title,
        width=width,
        height=height,
        sides=(round(left, 1), right, top, bottom),
        x_label=x_label,
        y_ticks=list(zip(map(down, y_axis.ticks), labels, strict=True)),
        x_ticks=[
            (across(tick), (x_format or units.count)(tick))
            for tick in map(float, x_axis.ticks)
            if x_format or tick.is_integer()  # there is no half a step
        ],
        curves=[
            (s, points(s)) for s in sorted(series, key=lambda s: s.style != "faint")
        ],
        shown=shown,
        columns=_columns(shown, across, down, (left, right), x_label, formats),
    )
    return Markup(figure)  # escaped: a template shows it as it is


def both(series: Sequence[Series], *, width: int = 900, **how) -> tuple[str, str]:
    """A plot for a wide page and one for a phone: text keeps its size in both."""
    narrow = how | {"height": 230}
    return lines(series, width=width, **how), lines(series, width=340, **narrow)


class _Axis:
    """Maps values to shares of the axis' length, and knows its ticks."""

    def __init__(self, low, high, count, *, log=False, pad=0.0):
        self._map = math.log if log else float
        if low == high:  # a flat line runs in the middle
            low, high = (low / 1.1, high * 1.1) if log else (low - 0.5, high + 0.5)
        span = self._map(high) - self._map(low)
        if pad and not log:
            # A bottom of zero is a bottom, not a value.
            low, high = low - pad * span * (low != 0), high + pad * span
        elif pad:
            low, high = low * math.exp(-pad * span), high * math.exp(pad * span)
        self.low, self.high = low, high
        ticks = _log_ticks if log else _linear_ticks
        self.ticks = ticks(low, high, count)

    def share(self, value):
        low, high = self._map(self.low), self._map(self.high)
        return (self._map(value) - low) / (high - low)


def _linear_ticks(low, high, count):
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.9g}") for i in range(first, last + 1)]


def _log_ticks(low, high, count):
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for marks in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [m * 10.0**d for d in decades for m in marks]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= count - 1:
            # Many decades: every second or third of them.
            return ticks[:: max(1, len(ticks) // (2 * count))]
    return ticks if len(ticks) > 2 else _linear_ticks(low, high, count)


def _finite(x, y):
    pairs = [
        (a, b)
        for a, b in zip(x, y, strict=True)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _thinned(x, y, columns):
    """At most two points a column, its lowest and highest, so spikes stay."""
    if len(x) <= 2 * columns:
        return x, y
    kept = []
    for c in range(columns):
        part = range(c * len(x) // columns, (c + 1) * len(x) // columns)
        kept += sorted({min(part, key=y.__getitem__), max(part, key=y.__getitem__)})
    return [x[i] for i in kept], [y[i] for i in kept]


def _columns(series, across, down, sides, x_label, formats):
    """Invisible columns that show a rule, dots and the values while hovered."""
    most = int(sides[1] - sides[0]) // 5
    values = [dict(zip(s.x, s.y, strict=True)) for s in series]
    xs = sorted(set().union(*values))
    if len(xs) > most:
        # Marked values (validations) are always among the columns.
        marked = {x for s in series if s.style == "dots" for x in s.x}
        xs = sorted({xs[i * len(xs) // most] for i in range(most)} | marked)
    places = [across(x) for x in xs]
    edges = [(a + b) / 2 for a, b in itertools.pairwise(places)]
    edges = [sides[0], *edges, sides[1]]
    for i, x in enumerate(xs):
        there = [(s, y[x]) for s, y in zip(series, values, strict=True) if x in y]
        words = [f"{s.name} {formats[1](y)}" for s, y in there]
        yield {
            "left": round(edges[i], 1),
            "width": max(round(edges[i + 1] - edges[i], 1), 0.1),
            "rule": places[i],
            "dots": [(down(y), s.colour) for s, y in there],
            "text": " · ".join([f"{x_label} {formats[0](x)}", *words]),
        }
