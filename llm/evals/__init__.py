"""The contract of an evaluation: what it asks of a model, and what it makes of it.

A task lists examples; each asks for answers by requests, which say nothing about
models; `measure` turns an example and its answers into figures (a reward, if one
likes), and `summarise` the figures of all examples into those of the task.

A file of this folder exports `make(**knobs, context) -> Task`, `TINY`, and `METRICS`:
its figures, with what reports and comparisons say of them. Where it needs more than
files of its own, `needs(**knobs)` says so: {"corpus"}, the documents of the run, or
{"likelihood"}, a model that gives texts one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llm import registry
from llm.document import Document


class Metric(NamedTuple):
    """A figure of a task.

    Attributes:
      label: its name for a reader.
      better: "higher", "lower", or "" of one that makes no model the better one.
      form: how a value is shown.
      headline: whether it stands for its task on the console and atop a report.
      pooled: of a figure that only all items together have: from pairs of items, those
        of two models, to a function of (0 or 1, counts of the items), the figure.
    """

    name: str
    label: str
    better: str = ""
    form: str = "{:.4g}"
    headline: bool = False
    pooled: Callable[[Sequence[tuple[dict, dict]]], Callable] | None = None

    @property
    def is_share(self) -> bool:
        """Whether its values are shares, from 0 to 1."""
        return self.form.endswith("%}")

    def shown(self, value: float) -> str:
        """A value for a reader."""
        return self.form.format(value)


class Task(NamedTuple):
    """See the module docstring.

    Attributes:
      examples: what is measured, in order.
      requests: of an example.
      measure: (example, answers) -> figures. Among them may stand `id`, which names the
        example in any run, and `values`, {name: (sum, weight)}: what is compared
        between two models, and resampled (`llm/metrics.py`).
      summarise: figures of all examples -> {name: value} of the task.
      about: what the figures depend on beside the model: files, shots, templates.
      on_top: whether the figures stand at the top of evaluate.json, not below the name
        of the task.
    """

    examples: Sequence[Any]
    requests: Callable[[Any], list[Any]]
    measure: Callable[[Any, list[Any]], dict[str, Any]]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]
    about: Mapping[str, Any] = {}
    on_top: bool = False


class Context(NamedTuple):
    """What tasks may look at: held-out documents and the texts of training.

    Attributes:
      classes: of a model that is a classifier.
      task: another task of the config, by its name.
    """

    documents: Sequence[Document]
    training_texts: Callable[[], list[str]]
    count_tokens: Callable[[str], int]
    classes: tuple[str, ...] = ()
    task: Callable[[str], "Task"] | None = None


def needs(spec: Mapping[str, Any]) -> set[str]:
    """What a task of a config needs beside its own files: see above."""
    knobs = dict(spec)
    module = registry.module("evals", knobs.pop("name"))
    return module.needs(**knobs) if hasattr(module, "needs") else set()


def metrics() -> dict[str, Metric]:
    """The metrics of all evaluations by their names, which mean the same everywhere."""
    return {
        metric.name: metric
        for name in registry.choices("evals")
        for metric in registry.module("evals", name).METRICS
    }
