"""Configs: from a file and its argument to every field.

A config is a Python file with `get_config(arg=None) -> ConfigDict`. It starts from the
sections that its workload reads, which docs/config.md lists, and changes what it must:

    def get_config(arg=None):
        arg = config.parse_arg(arg, debug=False)
        c = config.base("pipeline")
        c.model = registry.spec("models", "llama", layers=24)
        return c

The argument string picks structure (`configs/1b.py:debug`), dotted flags set values
(`--config.optimizer.learning_rate=0.01`, see `llm/cli.py`).
"""

import dataclasses
import importlib.util
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from llm import knobs, registry, run_dir
from llm.errors import InputError

_PACKAGE = pathlib.Path(__file__).parent
_INSTALLED = _PACKAGE / "_configs"
# The folder of the configs that come with this package.
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"


@knobs.section("")
class Run:
    """What every run has."""

    # What to do: a file of llm/workloads/.
    workload: str = "train"
    # The seed of everything: initial weights, data order, dropout, sampling.
    seed: int = 0


def base(workload: str = "") -> ConfigDict:
    """The sections of a workload with their defaults; '' has those of all workloads.

    A ConfigDict cannot override None or lists, so absence is 0, '' or () in it, and
    ordered things are tuples.
    """
    c = ConfigDict()
    for cls in sections(workload):
        _fill(c, cls)
    c.workload = workload or c.workload
    return c


def extend(c: ConfigDict, workload: str) -> None:
    """Gives a config another workload, and the sections that it lacks for that."""
    more = base(workload)
    for name in set(more) - set(c):
        c[name] = more[name]
    c.workload = workload


def sections(workload: str = "") -> list[type]:
    """The sections that a workload reads; '' is all workloads."""
    names = [workload] if workload else registry.choices("workloads")
    return list(dict.fromkeys([Run, *(cls for name in names for cls in _own(name))]))


def _own(workload: str) -> list[type]:
    """Those that the file of a workload declares, and those of workloads like it."""
    module = registry.module("workloads", workload)
    more = [cls for name in getattr(module, "SECTIONS_OF", ()) for cls in _own(name)]
    return [*more, *getattr(module, "SECTIONS", ())]


def check(c: ConfigDict) -> None:
    """Raises InputError for a field that is out of its bounds, or a section not there.

    Nothing is read or built for it; what depends on several fields, on files or on the
    machine, the workload checks.
    """
    for cls in sections(c.workload):
        name = cls.PATH.partition(".")[0]
        if name and name not in c:
            raise InputError(
                got=f"a config without the section {name}, with the workload "
                f"{c.workload}",
                want="a config made for that workload, such as "
                f"configs/{c.workload}.py",
            )
        _check_section(c, cls)


def _fill(c: ConfigDict, cls: type) -> None:
    """Adds a section with its defaults."""
    defaults = cls()
    for part in filter(None, cls.PATH.split(".")):
        if part not in c:
            c[part] = ConfigDict()
        c = c[part]
    for field in dataclasses.fields(cls):
        value = getattr(defaults, field.name)
        c[field.name] = ConfigDict(value) if isinstance(value, dict) else value


def _check_section(c: ConfigDict, cls: type) -> None:
    for part in filter(None, cls.PATH.split(".")):
        c = c[part]
    knobs.check(cls.PATH, cls, c)
    for field in dataclasses.fields(cls):
        folder = field.metadata.get("folder")
        if folder and field.name in c:
            where = f"{cls.PATH}.{field.name}".lstrip(".")
            _check_plugins(folder, where, c[field.name])


def _check_plugins(folder: str, where: str, entry: ConfigDict) -> None:
    """One plug-in with its knobs, or many by their labels."""
    if "name" in entry:
        registry.check_spec(folder, entry, where)
        return
    for label, values in entry.items():
        spec = {"name": label, **values}
        registry.check_spec(folder, spec, f"{where}.{label}")


def debug(c: ConfigDict) -> ConfigDict:
    """The smallest form of a config: same structure, three steps, tiny shapes, CPU."""
    if "model" in c:
        c.model.update(registry.module("models", c.model.name).TINY)
        c.mesh = (("data", -1),)
    if "train" in c:
        c.train.update(steps=3, tokens=0, epochs=0.0, batch_size=8, seq_len=64)
        c.train.update(log_every=1, validate_every=0, validation_sequences=8)
        c.train.update(checkpoint_every=2, accumulate=min(c.train.accumulate, 2))
    if "evaluate" in c:
        c.evaluate.batch_size = 8
        for label, task in c.evaluate.task.items():
            task.update(registry.module("evals", task.get("name", label)).TINY)
    for name, values in _SMALL.items():
        if name in c:
            c[name].update(values)
    if "data" in c:
        c.data.source.max_documents = 60
    return c


_SMALL = {
    "tokenizer": {"vocab_size": 512},
    "filter": {"documents": 60, "bits": 12},
    "topics": {"count": 2, "documents": 60, "bits": 12},
    "generate": {"max_tokens": 16},
    "serve": {"slots": 2, "context": 128, "port": 0},
}


def find_config(path: str) -> pathlib.Path | None:
    """The file of a config: of the current directory, else a shipped one, else None.

    `1b.py` and `configs/1b.py` both name a shipped config, since the documentation
    writes them as a checkout has them.
    """
    if os.path.isfile(path):
        return pathlib.Path(path)
    name = pathlib.PurePath(path)
    if name.parts in ((name.name,), ("configs", name.name)):
        shipped = CONFIGS / name.name
        if shipped.is_file():
            return shipped
    return None


def config_names() -> list[str]:
    """The shipped configs, as `--config` takes them in any directory."""
    return sorted(f"configs/{path.name}" for path in CONFIGS.glob("*.py"))


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Parses `debug,layers=4` into the given fields, each typed by its default.

    Raises:
      InputError: a field that is not among `defaults`, or a value of another type.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, has_value, text = part.partition("=")
        if name not in defaults:
            raise InputError(
                got=f"config argument {name!r}",
                want=f"{', '.join(defaults)}{registry.hint(name, defaults)}",
            )
        values[name] = _typed(name, text if has_value else "true", defaults[name])
    return ConfigDict(values)


def of_run(path: str) -> ConfigDict:
    """The config of a run directory, or of a config.json; of older ones with defaults.

    Raises:
      InputError: there is none.
    """
    folder = pathlib.Path(path)
    name = folder.name if folder.suffix == ".json" else "config.json"
    held = run_dir.load(str(folder.parent if name == folder.name else folder), name)
    values = held["config"]
    workload = values.get("workload", "")
    if workload not in registry.choices("workloads"):
        workload = ""
    defaults = base(workload).to_dict()
    if values.keys() - defaults.keys():  # made from another, such as a smaller model
        workload, known = "", defaults.keys()
        defaults = base().to_dict()
        defaults = {k: defaults[k] for k in defaults if k in values or k in known}
    for cls in sections(workload):
        _forget_knobs(defaults, cls)
    return ConfigDict(_filled(values, defaults))


def _forget_knobs(defaults: Any, cls: type) -> None:
    """The knobs of a plug-in depend on its name: no default is right for another."""
    for part in filter(None, cls.PATH.split(".")):
        defaults = defaults.get(part, {})
    for field in dataclasses.fields(cls):
        if field.metadata and "name" in defaults.get(field.name, {}):
            defaults[field.name] = {}


def _filled(held: Any, defaults: Any) -> Any:
    """What JSON gives back, its lists as tuples, with the fields that it lacks."""
    if isinstance(held, list):
        return tuple(_filled(value, None) for value in held)
    if not isinstance(held, dict):
        return held
    defaults = defaults if isinstance(defaults, dict) else {}
    made = {k: _filled(v, defaults.get(k)) for k, v in held.items()}
    return {k: defaults[k] for k in defaults.keys() - held} | made


def with_new_fields(values: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A recorded config, with the fields that are newer than it at their defaults.

    Sections that it lacks stay away: they are of other workloads.

    Args:
      now: the config at hand. Plug-ins that were not there then are as in it: no list
        of that config could name them.
    """
    made = ConfigDict(values).to_dict()
    workload = values.get("workload", "")
    for cls in sections(workload if workload in registry.choices("workloads") else ""):
        place, here = made, now
        for part in filter(None, cls.PATH.split(".")):
            place, here = place.get(part, {}), here.get(part, {})
        if cls.PATH and not place:
            continue
        for field in dataclasses.fields(cls):
            name, folder = field.name, field.metadata.get("folder")
            if folder and name in place:
                place[name] = _newer_knobs(folder, place[name], here.get(name, {}))
            elif name not in place and (cls.PATH or not folder):
                place[name] = getattr(cls(), name)
    return made


def _newer_knobs(folder: str, entry: dict[str, Any], now: dict[str, Any]) -> Any:
    """A plug-in with its knobs, or many by their labels, with those they lack."""
    if "name" in entry:
        return _knobs(folder, entry["name"]) | entry
    return {
        label: _knobs(folder, values.get("name", label)) | values
        for label, values in (now | entry).items()
    }


def _knobs(folder: str, name: str) -> dict[str, Any]:
    known = name in registry.choices(folder)
    return registry.defaults(registry.module(folder, name).make) if known else {}


def begin_with(c: ConfigDict, sibling: str, model: str) -> None:
    """What a config's argument `model=` names: a size, or a model that there is.

    A size is a config beside `sibling`, whose network and tokenizer are taken; all else
    is a path for `init_from`, of which the network is taken when the run begins.

    Raises:
      InputError: a name that is both.
    """
    if "/" in model or not _beside(sibling, model):
        c.init_from = model
        return
    if pathlib.Path(model).exists():
        raise InputError(
            got=f"model={model}, which is a size and also a path here",
            want=f"model=./{model} for what lies there, or another folder",
        )
    held = load(sibling, model)
    c.model, c.tokenizer = held.model, held.tokenizer


def records(c: ConfigDict, path: str, *, task: str) -> None:
    """What a config's argument `data=` names: records of one's own.

    Without it, records of a task about the functions of the standard library.
    """
    if path:
        c.data.source = registry.spec("sources", "records", path=path)
        c.data.stages = ("exact_dedup",)
        return
    c.data.stages = (*c.data.stages, "functions")
    c.data.stage.functions = registry.knobs("stages", "functions") | {"task": task}


def chats(path: str) -> bool:
    """Whether records of one's own are conversations, as those of ours are ('')."""
    if not path:
        return True
    source = registry.build("sources", registry.spec("sources", "records", path=path))
    for document in source(lambda reason, id: None):
        record = document.meta.get("record", {})
        return "messages" in record or isinstance(record.get("prompt"), list)
    return True


# What a model that learned the default instruction data is asked.
QUESTION = (
    "Write the Python function `def mean(values):`\n\n"
    "Return the arithmetic mean of the values.",
)


def source(text: str) -> dict[str, Any]:
    """The source for a config's argument `text=PATH`: a file or a folder of text.

    A single file is cut in pieces, so that some can be held out. `NAME:PATH`, such as
    `warc:crawl/`, is read by the source of that name. Without a path it is the standard
    library of this Python.
    """
    name, colon, path = text.partition(":")
    if colon and name in registry.choices("sources"):
        known = registry.defaults(registry.module("sources", name).make)
        if "path" in known:
            return registry.spec("sources", name, path=path)
    if not text:
        return registry.spec("sources", "stdlib")
    whole = pathlib.Path(text).is_dir()
    return registry.spec(
        "sources", "text", path=text, piece_bytes=0 if whole else 20_000
    )


def _typed(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        words = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() in words:
            return words[text.lower()]
    else:
        try:
            return type(default)(text)
        except ValueError:
            pass
    raise InputError(
        got=f"config argument {name}={text!r}", want=f"a {type(default).__name__}"
    )


def _beside(sibling: str, name: str) -> pathlib.Path | None:
    """The file of the config `name`, in the folder of `sibling` or a shipped one."""
    for folder in (pathlib.Path(sibling).parent, CONFIGS):
        path = folder / f"{name}.py"
        if path.exists():
            return path
    return None


def load(sibling: str, name: str, arg: str | None = None) -> ConfigDict:
    """The config `name` in the folder of the file `sibling` (pass `__file__`).

    A config of your own finds the shipped ones, too, after those of its folder.
    Configs such as `1b.py` cannot be imported: their names start with a digit.
    """
    path = _beside(sibling, name)
    if not path:
        folders = pathlib.Path(sibling).parent, CONFIGS
        known = sorted({p.stem for folder in folders for p in folder.glob("*.py")})
        raise InputError(
            got=f"config {name!r}",
            want=f"one of {', '.join(known)}{registry.hint(name, known)}",
        )
    found = importlib.util.spec_from_file_location(f"llm_config_{name}", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.get_config(arg)
