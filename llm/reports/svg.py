"""Line plots and bars as inline SVG, drawn by hand: nothing to download or to run.

Colours come from the page's CSS variables, so a plot follows the reader's light or dark
mode. Hovering a column shows its values, by CSS alone:

    <g class="hit"> ... <text class="on-hover">step 120  train 2.913</text></g>

    lines([Series("train", steps, losses)], x_label="step", y_label="loss")
"""

import itertools
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from llm import units


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
    width: int = 520,
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

    def at(x, y):
        return (
            left + x_axis.share(x) * (right - left),
            bottom - y_axis.share(y) * (bottom - top),
        )

    parts = []
    for tick, label in zip(y_axis.ticks, labels, strict=True):
        y = at(x_axis.low, tick)[1]
        parts.append(_line(left, y, right, y, "grid"))
        parts.append(_text(left - 8, y + 4, label, "tick", "end"))
    for tick in map(float, x_axis.ticks):
        if x_format is None and not tick.is_integer():  # there is no half a step
            continue
        x = at(tick, y_axis.low)[0]
        parts.append(_line(x, bottom, x, bottom + 4, "axis"))
        label = (x_format or units.count)(tick)
        parts.append(_text(x, bottom + 17, label, "tick", "middle"))
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text(right, height - 4, x_label, "tick", "end"))
    for s in sorted(series, key=lambda s: s.style != "faint"):
        points = [at(x, y) for x, y in zip(*_thinned(s.x, s.y, width), strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if s.style != "points":
            parts.append(f'<polyline class="{s.style} c{s.colour}" points="{path}"/>')
        if s.style in ("dots", "points") or len(points) == 1:
            parts += [_dot(x, y, s.colour) for x, y in points]
    shown = [s for s in series if s.style != "faint"]
    formats = (x_format or "{:,.0f}".format, y_format)
    parts += _columns(shown, at, (left, right), (top, bottom), x_label, formats)
    if log_y:
        title += " (log scale)"
    legend = "".join(
        f'<span class="key c{s.colour}">{escape(s.name)}</span>' for s in shown
    )
    return (
        f"<figure><figcaption>{escape(title)}"
        f'<span class="legend">{legend if len(shown) > 1 else ""}</span></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def bar(parts: Sequence[tuple[str, float, str]], *, title: str) -> str:
    """One bar of shares: (name, share of 1, CSS class), the names on hover."""
    rects, start = [], 0.0
    for name, share, colour in parts:
        share = min(max(share, 0.0), 1.0)
        rects.append(
            f'<rect class="{colour}" x="{start * 1000:.2f}" width="{share * 1000:.2f}" '
            f'height="10"><title>{escape(name)} {share:.1%}</title></rect>'
        )
        start += share
    return (
        f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{"".join(rects)}</svg>'
    )


def flow(levels: Sequence[tuple[str, float, str, str]], *, title: str) -> str:
    """A stream from top to bottom, which what is lost leaves to the right.

    Args:
      levels: (name, amount that arrives here, what is said of it, what is said of what
        is lost from here to the next), the first the widest.
    """
    width, height, left, wide = 1000, 74, 190, 430
    most = max((amount for _, amount, _, _ in levels), default=0) or 1
    shapes, texts = [], []
    for n, (name, amount, said, lost) in enumerate(levels):
        top, span = n * height, amount / most * wide
        texts += [
            _text(0, top + 18, name, "value", "start"),
            _text(0, top + 33, said, "", "start"),
        ]
        if n + 1 == len(levels):
            shapes.append(_band(left, left + span, left, left + span, top, top + 26))
            continue
        then = levels[n + 1][1] / most * wide
        shapes.append(
            _band(left, left + span, left, left + span, top, top + 26)
            + _band(left, left + then, left, left + then, top + 26, top + height)
        )
        if span - then > 0.5:
            out = left + wide + 40
            ends = top + 48 - (span - then) / wide * 22, top + 48
            shapes.append(_away(left + then, left + span, out, top + 26, *ends))
        if lost:
            texts.append(_text(left + wide + 50, top + 46, lost, "", "start"))
    tall = (len(levels) - 1) * height + 40
    return (
        f'<svg class="flow" viewBox="0 0 {width} {tall}" role="img" '
        f'aria-label="{escape(title)}">{"".join(shapes)}{"".join(texts)}</svg>'
    )


def _band(x0: float, x1: float, x2: float, x3: float, top: float, end: float) -> str:
    return (
        f'<path class="c1 kept" d="M{x0:.1f} {top:.1f}H{x1:.1f}L{x3:.1f} {end:.1f}'
        f'H{x2:.1f}Z"/>'
    )


def _away(
    x0: float, x1: float, out: float, top: float, first: float, end: float
) -> str:
    """A bend from the stream between x0 and x1 to the right, from `first` to `end`."""
    middle = (x1 + out) / 2
    return (
        f'<path class="c2 lost" d="M{x0:.1f} {top:.1f}H{x1:.1f}'
        f"C{middle:.1f} {top:.1f} {middle:.1f} {first:.1f} {out:.1f} "
        f"{first:.1f}V{end:.1f}C{middle:.1f} {end:.1f} {x0:.1f} {end:.1f} "
        f'{x0:.1f} {top:.1f}Z"/>'
    )


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


def _columns(series, at, sides, ends, x_label, formats):
    """Invisible columns that show a rule, dots and the values while hovered."""
    top, bottom = ends
    most = int(sides[1] - sides[0]) // 5
    values = {s.name: dict(zip(s.x, s.y, strict=True)) for s in series}
    xs = sorted({x for found in values.values() for x in found})
    if len(xs) > most:
        # Marked values (validations) are always among the columns.
        marked = {x for s in series if s.style == "dots" for x in s.x}
        xs = sorted({xs[i * len(xs) // most] for i in range(most)} | marked)
    places = [at(x, series[0].y[0])[0] for x in xs]
    edges = [(a + b) / 2 for a, b in itertools.pairwise(places)]
    edges = [sides[0], *edges, sides[1]]
    parts = []
    for i, (x, place) in enumerate(zip(xs, places, strict=True)):
        words, dots = [f"{x_label} {formats[0](x)}"], []
        for s in series:
            if x in values[s.name]:
                y = values[s.name][x]
                words.append(f"{s.name} {formats[1](y)}")
                dots.append(_dot(*at(x, y), s.colour, "on-hover"))
        parts.append(
            f'<g class="hit"><rect x="{edges[i]:.1f}" y="{top}" '
            f'width="{max(edges[i + 1] - edges[i], 0.1):.1f}" height="{bottom - top}"/>'
            f"{_line(place, top, place, bottom, 'rule on-hover')}{''.join(dots)}"
            f"{_text(sides[1], top - 10, ' · '.join(words), 'on-hover value', 'end')}"
            "</g>"
        )
    return parts


def _line(x1, y1, x2, y2, css):
    return (
        f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    )


def _dot(x, y, colour, css=""):
    return f'<circle class="dot c{colour} {css}" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def _text(x, y, text, css, anchor):
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
