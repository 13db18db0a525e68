"""The contract of an evaluation: what it asks of a model, and what it makes of it.

A task lists examples; each asks for answers by requests, which say nothing about
models; `measure` turns an example and its answers into figures (a reward, if one
likes), and `summarise` the figures of all examples into those of the task.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm.document import Document


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
    """

    examples: Sequence[Any]
    requests: Callable[[Any], list[Any]]
    measure: Callable[[Any, list[Any]], dict[str, Any]]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]
    about: dict[str, Any] = {}


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
