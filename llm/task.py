"""The contract of an evaluation: what it asks of a model, and what it makes of it.

A task lists examples; each asks for answers by requests, which say nothing about
models; `measure` turns an example and its answers into figures (a reward, if one
likes), and `summarise` the figures of all examples into those of the task.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm.document import Document


class Rolling(NamedTuple):
    """Asks for the likelihood of a whole text; answered by `Scored`.

    Attributes:
      end: whether the end of the text counts, too.
    """

    text: str
    end: bool = True


class Scored(NamedTuple):
    """Sums over the tokens of a text, its end included."""

    nats: float
    tokens: int
    correct: int


class Score(NamedTuple):
    """Asks how likely a continuation is after a prompt; answered by `Likelihood`.

    Attributes:
      prompt: may be empty: then it follows what texts begin with.
      beside: of a masked model, only the tokens that the continuation shares with this
        other one count; others take no notice.
    """

    prompt: str
    continuation: str
    beside: str = ""


class Likelihood(NamedTuple):
    """Of a continuation: log-probability in nats, its tokens, and whether each of them
    is the most likely one; and the tokens in front that were too many to be read."""

    logprob: float
    tokens: int
    greedy: bool
    cut: int = 0


class Predict(NamedTuple):
    """Asks a classifier about a text; answered by `Predicted`."""

    text: str


class Predicted(NamedTuple):
    """The probability of each class, in the order of the classifier."""

    probabilities: dict[str, float]

    @property
    def best(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


class Generate(NamedTuple):
    """Asks for a continuation; answered by `Generated`.

    Attributes:
      prompt: a text, or messages to answer: ((role, content), ...).
      stop: regular expression that ends the text, which is cut where it matches.
      temperature: 0 is greedy.
    """

    prompt: str | tuple[tuple[str, str], ...]
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
