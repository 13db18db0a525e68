"""Finds plug-ins by file name: adding a thing is adding one file.

A plug-in folder holds one file per thing; the file's name is its name in configs, and
the file exports `make(**knobs)`, whose signature is the only home of the defaults (of
some, a frozen dataclass: `knobs.maker`), and `TINY`, the knobs of its smallest useful
instance. There is no table to edit.

    >>> choices("sources")
    ('stdlib', 'text')
    >>> spec("sources", "text", path="books/")["path"]
    'books/'

Plug-ins of your own lie outside the package, in folders of the same names:
`mine/models/parallel.py` after `--plugins=mine`. A package that is installed offers its
plug-ins by an entry point of the group `llm.plugins` that names it.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from llm import knobs as bounds
from llm.errors import InputError, hint

__all__ = (
    "add_plugins", "build", "check_knobs", "check_spec", "choices", "defaults",
    "every_plugin", "hint", "knobs", "module", "plugin", "spec",
)  # fmt: skip

# The folders of plug-ins; their contracts are in the `__init__.py` of most.
FOLDERS = (
    "adapters", "compress", "evals", "guards", "models", "objectives", "rewards",
    "sources", "stages", "workloads",
)  # fmt: skip
_ROOT = pathlib.Path(__file__).parent
# Folders of plug-ins of one's own; child processes inherit it.
_VARIABLE = "LLM_PLUGINS"
_GROUP = "llm.plugins"
# Where a config names plug-ins of a folder; those of the others are named many times.
_SECTIONS = {
    "adapters": "adapter", "compress": "compress.method", "evals": "evaluate.task.{}",
    "guards": "serve.check.{}", "models": "model", "objectives": "objective",
    "rewards": "rollouts.reward.{}", "sources": "data.source",
    "stages": "data.stage.{}",
}  # fmt: skip
_LITERALS = (bool, int, float, str, tuple)


def choices(folder: str) -> tuple[str, ...]:
    """The names of the plug-ins of a folder, sorted."""
    return tuple(sorted({*_names(_ROOT / folder), *_outside(folder)}))


def module(folder: str, name: str) -> Any:
    """The module of a plug-in, ours or one from outside.

    Raises:
      InputError: an unknown name, or a file from outside without what it must export.
    """
    known = choices(folder)
    if name not in known:
        near = hint(name, known)
        raise InputError(
            got=f"{folder} {name!r}",
            want=f"one of {', '.join(known)}{near}",
            do="" if near else "pass --plugins=DIR if it is a plug-in of your own",
        )
    path = _outside(folder).get(name)
    if path is None:
        return importlib.import_module(f"llm.{folder}.{name}")
    return _load(folder, path)


def add_plugins(path: str) -> None:
    """Makes the plug-ins in a folder's folders known, here and to child processes.

    Raises:
      InputError: no such folder, a folder in it that is nearly one of ours, or a name
        that we have.
    """
    root = pathlib.Path(path).resolve()
    inner = [p.name for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    near = [name for name in inner if name not in FOLDERS and hint(name, FOLDERS)]
    if near or not set(inner) & set(FOLDERS):
        inside = f" with the folder {near[0]}" if near else ""
        raise InputError(
            got=f"--plugins={path}{inside}",
            want=f"a folder with some of {', '.join(FOLDERS)} in it",
        )
    for folder in set(inner) & set(FOLDERS):
        for name in set(_names(root / folder)) & set(_names(_ROOT / folder)):
            raise InputError(
                got=f"{root / folder / name}.py, the name of a plug-in of this package",
                want="a name of its own",
            )
    known = os.environ.get(_VARIABLE, "").split(os.pathsep)
    os.environ[_VARIABLE] = os.pathsep.join(
        dict.fromkeys([*filter(None, known), str(root)])
    )


def _names(folder: pathlib.Path) -> list[str]:
    return [p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")]


def _outside(folder: str) -> dict[str, pathlib.Path]:
    """{name: file} of the plug-ins that are not of this package."""
    roots = os.environ.get(_VARIABLE, "").split(os.pathsep)
    found: dict[str, pathlib.Path] = {}
    for root in (*filter(None, roots), *_installed()):
        for name in _names(pathlib.Path(root, folder)):
            path = pathlib.Path(root, folder, f"{name}.py")
            if found.setdefault(name, path) != path:
                raise InputError(
                    got=f"{found[name]} and {path}", want="one plug-in of a name"
                )
    return found


@functools.cache
def _installed() -> tuple[str, ...]:
    """Folders of the packages that declare the entry point."""
    specs = [
        importlib.util.find_spec(entry.value)
        for entry in importlib.metadata.entry_points(group=_GROUP)
    ]
    return tuple(
        path for s in specs if s for path in s.submodule_search_locations or ()
    )


def _load(folder: str, path: pathlib.Path) -> Any:
    """The module of a file from outside, imported once in a process."""
    name = f"llm_plugins.{folder}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
        needed = ("run",) if folder == "workloads" else ("make", "TINY")
        for export in needed:
            if not hasattr(loaded, export):
                raise InputError(
                    got=f"{path} without {export}",
                    want=f"what a file of {folder} exports: {' and '.join(needed)}",
                )
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


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
    check_spec(folder, {"name": name, **knobs})
    return found.make(**knobs, **given)


def check_spec(folder: str, spec: Mapping[str, Any], where: str = "") -> None:
    """Raises InputError for a knob that a plug-in lacks or that is out of its bounds.

    Args:
      where: the section of the config, for the message.
    """
    values = dict(spec)
    name = values.pop("name")
    make = module(folder, name).make
    check_knobs(f"{folder} {name!r}", values, defaults(make))
    bounds.check(where or _SECTIONS.get(folder, "{}").format(name), make, values)


def check_knobs(what: str, knobs: dict[str, Any], known: dict[str, Any]) -> None:
    """Raises InputError, naming the nearest choice, for a knob that is not known."""
    for knob in knobs:
        if knob not in known:
            listed = ", ".join(sorted(known)) or "no knobs"
            raise InputError(
                got=f"knob {knob!r} for {what}", want=f"{listed}{hint(knob, known)}"
            )


def plugin(folder: str, name: str) -> Any:
    """A field of a section that names a plug-in, with its knobs."""
    return _field(folder, lambda: spec(folder, name))


def every_plugin(folder: str) -> Any:
    """A field of a section with the knobs of every plug-in of a folder."""
    return _field(
        folder, lambda: {name: knobs(folder, name) for name in choices(folder)}
    )


def _field(folder: str, make: Callable) -> Any:
    return dataclasses.field(default_factory=make, metadata={"folder": folder})
