"""Knobs: the fields that a config may set, each written once, beside what reads it.

A section of a config is a dataclass. A field has a type with its bounds, a default, and
above it the comment that explains it:

    @section("schedule")
    class Schedule:
        \"\"\"The learning rate over time.\"\"\"

        # Warm-up as a share of the run.
        warmup: Share = 0.05

`llm/config.py` makes configs of sections and checks them; docs/config.md lists all. The
knobs of a plug-in are the parameters of its `make`, whose types bound them alike.
"""

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from llm.errors import InputError, hint


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`; `above` and `below` leave that end out."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        low = number > self.least if self.above else number >= self.least
        high = number < self.most if self.below else number <= self.most
        return low and high and math.isfinite(number)

    def __str__(self):
        if self.least == -math.inf:
            return "a finite number"
        if self.most == math.inf:
            return f"above {self.least:g}" if self.above else f"{self.least:g} or more"
        if not self.above and not self.below:
            return f"from {self.least:g} to {self.most:g}"
        low = f"{'above' if self.above else 'at least'} {self.least:g}"
        return f"{low} and {'below' if self.below else 'at most'} {self.most:g}"


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Amount = Annotated[float, Range(0)]
Above0 = Annotated[float, Range(0, above=True)]
Finite = Annotated[float, Range()]
Share = Annotated[float, Range(0, 1)]
ShareAbove0 = Annotated[float, Range(0, 1, above=True)]
ShareBelow1 = Annotated[float, Range(0, 1, below=True)]
Between0And1 = Annotated[float, Range(0, 1, above=True, below=True)]


def section(path: str) -> Callable[[type], type]:
    """Makes a class the section `path` of a config; '' is the config itself."""

    def decorate(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
        cls.PATH = path
        return cls

    return decorate


def check(where: str, of: Callable, values: Mapping[str, Any]) -> None:
    """Raises InputError for a value that its parameter of `of` does not allow.

    Args:
      where: the section, for the message.
      of: a dataclass, or a function whose parameters have types.
    """
    for name, kind in kinds(of).items():
        if name in values:
            want = _refused(kind, values[name])
            if want:
                label = f"{where}.{name}".lstrip(".")
                raise InputError(got=f"{label} {shown(values[name])}", want=want)


def kinds(of: Callable) -> dict[str, Any]:
    """The types of the parameters of a function or fields of a dataclass, by name."""
    parameters = inspect.signature(of).parameters.values()
    return {p.name: p.annotation for p in parameters}


def maker(build: Callable[[Any], Any], config: type) -> Callable[..., Any]:
    """The `make(**knobs)` of a plug-in whose knobs are the fields of a dataclass."""

    def make(**given: Any) -> Any:
        return build(config(**given))

    make.__signature__ = inspect.signature(config)
    return make


def _refused(kind: Any, value: Any) -> str:
    """What is wanted instead of a value; '' where it is allowed."""
    if typing.get_origin(kind) is Literal:
        known = typing.get_args(kind)
        if value in known:
            return ""
        return f"one of {', '.join(known)}{hint(str(value), known)}"
    for bound in getattr(kind, "__metadata__", ()):
        if isinstance(bound, Range) and value not in bound:
            return str(bound)
    return ""


def shown(value: Any) -> str:
    """A value as a message has it."""
    return repr(value) if isinstance(value, str) else str(value)
