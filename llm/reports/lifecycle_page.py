"""The page of a whole life cycle: every run in its order, its figures, its report.

One self-contained file that lies beside the runs' own directories and links to what
they wrote.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from llm import evals
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
    return page.render(
        "lifecycle.html.j2",
        total=len(steps),
        done=[(step, *_results(step), _links(path, step)) for step in done],
    )


def _results(step: Step) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(results with the figures that are shown of each, that of a compression)."""
    metrics = evals.metrics().values()
    headlines = [(m.name, m.label, m.form) for m in metrics if m.headline]
    results = []
    for file, wanted in (_FIGURES | {"evaluate.json": headlines}).items():
        result = _read(step.folder / file)
        figures = [
            (label, form.format(result[key]))
            for key, label, form in wanted
            if isinstance(result.get(key), (int, float))
        ]
        results.append(result | {"figures": figures})
    return results, _read(step.folder / "compress.json")


def _links(path: pathlib.Path, step: Step) -> list[tuple[str, str]]:
    """(address, name) of the pages of a step."""
    return [
        (str((step.folder / name).relative_to(path.parent)), name)
        for name in _PAGES
        if (step.folder / name).exists()
    ]


def _read(file: pathlib.Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}
