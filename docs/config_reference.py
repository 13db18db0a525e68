"""Writes docs/config.md: every field of a config, from the sections themselves.

python docs/config_reference.py
"""

import dataclasses
import inspect
import pathlib
import re
import typing
from typing import Any, Literal

from llm import config, knobs, registry

PAGE = pathlib.Path(__file__).parent / "config.md"
HEAD = """# Fields of a config

Written by `python docs/config_reference.py`. A field is set in a config file
(`c.train.batch_size = 64`) or on the command line (`--config.train.batch_size=64`). A
config holds the sections that its workload reads (`config.base("pipeline")`).

"""
PLUGINS = """
## Knobs of plug-ins

A field that names a plug-in (`c.model`, `c.objective`, `c.adapter`, `c.data.source`,
`c.compress.method`) holds its `name` and its knobs; `c.data.stage`, `c.evaluate.task`
and `c.serve.check` hold the knobs of each of their plug-ins by its name. What a knob
means is in the file.
"""


def page() -> str:
    """The whole page."""
    sections = sorted(config.sections(), key=lambda cls: cls.PATH)
    parts = [_section(cls) for cls in sections]
    return HEAD + "\n".join(parts) + PLUGINS + "\n".join(map(_folder, _FOLDERS))


_FOLDERS = [name for name in registry.FOLDERS if name != "workloads"]


def _section(cls: type) -> str:
    title = f"`{cls.PATH}`" if cls.PATH else f"The config itself: {cls.__name__}"
    readers = [
        name
        for name in registry.choices("workloads")
        if cls in config.sections(name) and cls is not config.Run
    ]
    read = f" Read by {', '.join(readers)}." if readers else ""
    doc = " ".join(inspect.getdoc(cls).split())
    lines = [f"## {title}\n\n{doc}{read}\n", "| field | default | bounds | |"]
    lines.append("|---|---|---|---|")
    kinds, comments = knobs.kinds(cls), _comments(cls)
    for field in dataclasses.fields(cls):
        default = "" if field.metadata else f"`{field.default!r}`"
        if field.metadata:
            default = f"llm/{field.metadata['folder']}/"
        cells = (f"`{field.name}`", default, bounds(kinds[field.name]))
        lines.append(f"| {' | '.join(cells)} | {comments.get(field.name, '')} |")
    return "\n".join(lines) + "\n"


def _folder(folder: str) -> str:
    lines = [f"\n### {folder}\n", "| name | knobs |", "|---|---|"]
    for name in registry.choices(folder):
        make = registry.module(folder, name).make
        kinds = knobs.kinds(make)
        known = [
            f"`{knob}={default!r}`" + (f" ({limit})" if limit else "")
            for knob, default in registry.defaults(make).items()
            for limit in [bounds(kinds[knob])]
        ]
        lines.append(f"| [{name}](../llm/{folder}/{name}.py) | {', '.join(known)} |")
    return "\n".join(lines) + "\n"


def bounds(kind: Any) -> str:
    """What values a type allows, in words."""
    if typing.get_origin(kind) is Literal:
        return ", ".join(f"`{value!r}`" for value in typing.get_args(kind))
    limits = [str(b) for b in getattr(kind, "__metadata__", ())]
    return ", ".join(limits)


def _comments(cls: type) -> dict[str, str]:
    """{field: the comment above it}."""
    found, lines = {}, []
    for line in inspect.getsource(cls).splitlines():
        text = line.strip()
        if text.startswith("#"):
            lines.append(text.lstrip("# "))
        elif field := re.match(r"(\w+): ", text):
            found[field[1]] = " ".join(lines).replace("|", "\\|")
            lines = []
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
