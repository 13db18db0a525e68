"""The page of a ladder: what was trained, the law, and what it predicts."""

from collections.abc import Sequence
from typing import Any

from llm import units
from llm.reports import page, svg
from llm.sweeps import scaling_law
from llm.sweeps.scaling_law import Law, Run

_COLOURS = 4
_BUDGETS = (1, 10, 100, 1000)  # times the largest run's FLOPs


def write(title: str, runs: Sequence[Run], law: Law, result: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
      result: what scaling.json holds.
    """
    return page.render(
        "scaling.html.j2",
        title=title,
        runs=sorted(runs),
        law=law,
        doubts=scaling_law.doubts(law),
        plot=_plot(runs, law),
        held_out=result["held_out"],
        ahead=result["next"],
        budgets=_budgets(runs, law),
    )


def _budgets(runs, law) -> list[tuple[float, float, float]]:
    """(FLOPs, parameters, tokens): the best use of each by the law."""
    most = max(6 * r.parameters * r.tokens for r in runs)
    budgets = [times * most for times in _BUDGETS]
    sizes = map(law.parameters, budgets)
    return [(x, size, x / 6 / size) for x, size in zip(budgets, sizes, strict=True)]


def _plot(runs, law) -> tuple[str, str]:
    sizes = sorted({run.parameters for run in runs})
    shown = sizes[:: max(1, len(sizes) // _COLOURS)][-_COLOURS:]
    series = []
    for colour, size in enumerate(shown, start=1):
        own = sorted((r.tokens, r.loss) for r in runs if r.parameters == size)
        spans = [x for x, _ in own]
        name = f"{units.count(size)} parameters"
        series.append(svg.Series(name, spans, [y for _, y in own], colour, "points"))
        fitted = [law.loss(size, x) for x in spans]
        series.append(svg.Series(f"law, {name}", spans, fitted, colour, "faint"))
    return svg.both(
        series, title="validation loss; the lines are the law", x_label="tokens",
        x_format=units.count, log_x=True, log_y=False, height=320,
    )  # fmt: skip
