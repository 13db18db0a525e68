"""Finds plug-ins by file name: adding a thing is adding one file.

A plug-in folder holds one file per thing; the file's name is its name in configs, and
the file exports `make(**knobs)`, whose signature is the only home of the defaults (of a
model, that of its frozen `Config`), and `TINY`, the knobs of its smallest useful
instance. There is no table to edit.

    >>> choices("sources")
    ('stdlib', 'text')
    >>> spec("sources", "text", path="books/")["path"]
    'books/'
"""

import difflib
import importlib
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

from llm.errors import InputError

_ROOT = pathlib.Path(__file__).parent
_LITERALS = (bool, int, float, str, tuple)


def choices(folder: str) -> tuple[str, ...]:
    """The names of the plug-ins of a folder, sorted."""
    files = (_ROOT / folder).glob("*.py")
    return tuple(sorted(f.stem for f in files if not f.stem.startswith("_")))


def module(folder: str, name: str) -> Any:
    """The module `llm/<folder>/<name>.py`; an unknown name raises InputError."""
    known = choices(folder)
    if name not in known:
        raise InputError(
            got=f"{folder} {name!r}",
            want=f"one of {', '.join(known)}{hint(name, known)}",
        )
    return importlib.import_module(f"llm.{folder}.{name}")


def defaults(make: Callable) -> dict[str, Any]:
    """The knobs of `make` that a config may set: keywords with a literal default."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, _LITERALS)}


def spec(folder: str, name: str, **knobs: Any) -> dict[str, Any]:
    """A config entry for a plug-in: its name and all its knobs, defaults filled in."""
    known = defaults(module(folder, name).make)
    check_knobs(f"{folder} {name!r}", knobs, known)
    return {"name": name, **known, **knobs}


def knobs(folder: str, name: str) -> dict[str, Any]:
    """What `spec` returns, without the name."""
    found = spec(folder, name)
    del found["name"]
    return found


def build(folder: str, spec: Any, **given: Any) -> Any:
    """Imports `llm/<folder>/<name>.py` and calls what it exports.

    Args:
      spec: a name, or a mapping with `name` and knobs as `spec()` returns it.
      given: arguments that code supplies and a config does not (a tokenizer, a policy).

    Returns:
      `make(**knobs, **given)`; for the folder `workloads`, its `run` function.

    Raises:
      InputError: no such plug-in, or a knob that it does not have.
    """
    knobs = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = knobs.pop("name")
    found = module(folder, name)
    if folder == "workloads":
        return found.run
    check_knobs(f"{folder} {name!r}", knobs, defaults(found.make))
    return found.make(**knobs, **given)


def check_knobs(what: str, knobs: dict[str, Any], known: dict[str, Any]) -> None:
    """Raises InputError, naming the nearest choice, for a knob that is not known."""
    for knob in knobs:
        if knob not in known:
            listed = ", ".join(sorted(known)) or "no knobs"
            raise InputError(
                got=f"knob {knob!r} for {what}", want=f"{listed}{hint(knob, known)}"
            )


def hint(name: str, known: Any) -> str:
    """' (did you mean X?)' where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
