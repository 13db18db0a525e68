"""What a model can be asked, and what it answers: pairs of a request and its result.

A request says nothing about models; `llm/inference/answer_requests.py` answers each
kind in batches.
"""

from typing import Any, NamedTuple


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


class Reward(NamedTuple):
    """Asks a reward model how good an answer is; answered by a number.

    Attributes:
      prompt, answer: each a text, or messages.
      about: definitions of tools, and variables of the template.
    """

    prompt: Any
    answer: Any
    about: tuple[Any, Any] = ((), {})


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
