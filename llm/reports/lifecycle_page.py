"""The page of a whole life cycle: every run in its order, its figures, its report.

One self-contained file that lies beside the runs' own directories and links to what
they wrote.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from llm import evals, units
from llm.reports import page

# {result file: [(key, label, format)]}: what a person asks first of each workload.
_FIGURES = {
    "prepare_data.json": [("documents", "documents", "{:,}")],
    "train.json": [
        ("parameters", "parameters", "{:,}"),
        ("trained_parameters", "of them trained", "{:,}"),
        ("tokens", "tokens seen", "{:,}"),
        ("validation_loss", "validation loss", "{:.3f}"),
        ("tokens_per_s", "tokens/s", "{:,.0f}"),
    ],
    "selftest.json": [
        ("requests", "requests answered", "{:,}"),
        ("tokens_per_s", "tokens/s, one stream", "{:,.1f}"),
    ],
}
_PAGES = ("report.html", "compare.html", "interpret.html", "monitor.html")


class Step(NamedTuple):
    """A run of the cycle: its name, its workload, its directory and how long it took.

    Attributes:
      seconds: None for one that has not run.
    """

    name: str
    workload: str
    folder: pathlib.Path
    seconds: float | None


def write(path: pathlib.Path, steps: Sequence[Step]) -> str:
    """The page as HTML; what is not there yet is left out."""
    done = [step for step in steps if step.seconds is not None]
    whole = sum(step.seconds for step in done)
    header = (
        f"<h1>A life cycle</h1><p>{len(done)} of {len(steps)} steps in "
        f"{page.escape(units.duration(whole))}</p>"
    )
    rows = [(step.name, step.workload, units.duration(step.seconds)) for step in done]
    sections = [("Steps", page.panel(page.table(("step", "workload", "time"), rows)))]
    sections += [(step.name.capitalize(), _section(path, step)) for step in done]
    return page.page("A life cycle", header, sections)


def _section(path: pathlib.Path, step: Step) -> str:
    parts = []
    metrics = evals.metrics().values()
    headlines = [(m.name, m.label, m.form) for m in metrics if m.headline]
    for file, wanted in (_FIGURES | {"evaluate.json": headlines}).items():
        held = _read(step.folder / file)
        items = [
            (label, form.format(held[key]))
            for key, label, form in wanted
            if isinstance(held.get(key), (int, float))
        ]
        facts = page.facts([*items, *_objective(held)])
        parts.append(f'<div style="margin-bottom:14px">{facts}</div>')
        for one in held.get("answers", []):
            told = page.badge("through HTTP", "plain")
            parts.append(page.sample(one["what"] + "\n\n", one["answer"], told))
    parts.append(_compressed(_read(step.folder / "compress.json")))
    links = [
        f'<a href="{page.escape(str((step.folder / name).relative_to(path.parent)))}">'
        f"{page.escape(name)}</a>"
        for name in _PAGES
        if (step.folder / name).exists()
    ]
    return page.panel("".join(parts)) + (f"<p>{' '.join(links)}</p>" if links else "")


def _objective(held: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"{name.replace('_', ' ')}, held out", f"{value:.3f}")
        for name, value in held.get("objective", {}).items()
    ]


def _compressed(held: dict[str, Any]) -> str:
    if not held:
        return ""
    rows = [
        (
            when,
            units.size(held[when]["bits"] / 8),
            f"{held[when]['perplexity']:.3f}",
            f"{held[when]['tokens_per_s']:,.1f}",
        )
        for when in ("before", "after")
    ]
    return page.table((held["method"]["name"], "size", "perplexity", "tokens/s"), rows)


def _read(file: pathlib.Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}
