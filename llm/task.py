"""The contract of an evaluation: what it asks of a model, and what it makes of it.

A task lists examples; each asks for answers by requests, which say nothing about
models; `measure` turns an example and its answers into figures (a reward, if one
likes), and `summarise` the figures of all examples into those of the task.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm.document import Document


class Rolling(NamedTuple):
    """Asks for the likelihood of a whole text; answered by `Scored`."""

    text: str


class Scored(NamedTuple):
    """Sums over the tokens of a text, its end included."""

    nats: float
    tokens: int
    correct: int


class Generate(NamedTuple):
    """Asks for a continuation; answered by `Generated`.

    Attributes:
      stop: regular expression that ends the text, which is cut where it matches.
      temperature: 0 is greedy.
    """

    prompt: str
    stop: str
    max_tokens: int
    temperature: float


class Generated(NamedTuple):
    """A continuation and why it ended: 'end' of text, 'stop' or 'length'."""

    text: str
    stop_reason: str


class Task(NamedTuple):
    """See the module docstring.

    Attributes:
      examples: what is measured, in order.
      requests: of an example.
      measure: (example, answers) -> figures.
      summarise: figures of all examples -> {name: value} of the task.
    """

    examples: Sequence[Any]
    requests: Callable[[Any], list[Any]]
    measure: Callable[[Any, list[Any]], dict[str, Any]]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]


class Context(NamedTuple):
    """What tasks may look at: held-out documents and the texts of training."""

    documents: Sequence[Document]
    training_texts: Callable[[], list[str]]
    count_tokens: Callable[[str], int]
