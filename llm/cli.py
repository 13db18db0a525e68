"""The command line: three flags and the fields of a config, with errors that help.

--config=FILE[:ARG] --workdir=DIR [--plugins=DIR ...] [--config.field=value ...]

Unknown flags and a bad workdir are refused before the config is loaded, since a config
may read a data file to decide its fields.
"""

import os
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from llm import config, files, registry
from llm.errors import InputError, report_input_error

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, path[:args], or a shipped one: 1b.py."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Run directory: all output goes here.")
_PLUGINS = flags.DEFINE_multi_string(
    "plugins", [], "Folder with plug-ins of your own, such as models/NAME.py."
)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags for `app.run`, with one line and exit code 2 for a bad one."""
    try:
        return _parse(list(argv))
    except InputError as error:
        sys.exit(report_input_error(error))


def _parse(argv: list[str]) -> list[str]:
    if any(word in ("--help", "-help", "-h") for word in argv[1:]):
        started = sys.modules.get("llm.main", sys.modules["__main__"])
        print(started.__doc__)
        print(flags.FLAGS.module_help(sys.modules[__name__]))
        sys.exit(0)
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    try:
        # First without the config, which may take long to load: it may read data.
        words = _without_config(argv)
        _check(argv, flags.FLAGS(words))
        for folder in _PLUGINS.value:
            registry.add_plugins(folder)
        flags.FLAGS.unparse_flags()
        return flags.FLAGS(_with_found_config(argv))
    except InputError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _explained(error, argv) from error


def _is_config(word: str) -> bool:
    return bool(re.match(r"--?(no)?config([.=]|$)", word))


def _without_config(argv: list[str]) -> list[str]:
    """The words that are neither `--config`, nor a field of it, nor their values."""
    kept, words = argv[:1], argv[1:]
    while words:
        word = words.pop(0)
        if word == "--":  # no flags from here on
            return [*kept, word, *words]
        if not _is_config(word):
            kept.append(word)
        elif "=" not in word and words and not _is_flag(words[0]):
            words.pop(0)
    return kept


def _is_flag(word: str) -> bool:
    """Whether a word is a flag that there is; a value may begin with '-', too."""
    name = word.partition("=")[0].lstrip("-")
    return word.startswith("-") and (_is_config(word) or name in flags.FLAGS)


def _check(argv: list[str], left: list[str]) -> None:
    """Raises InputError for what is wrong whatever the config says."""
    for word in argv:
        if re.search("[\ud800-\udfff]", word):
            raise InputError(
                got=f"{files.shown(word)}, which is not UTF-8",
                want="names in UTF-8, which reports and manifests can hold",
                do="rename it",
            )
    if len(left) > 1:
        raise InputError(got=f"argument {left[1]!r}", want="only --flags")
    given = _given_config(argv)
    if given is None:
        raise InputError(
            got="no --config",
            want="--config=FILE"
            + (" before --config.field=value" if any(map(_is_config, argv)) else ""),
            do="try --config=configs/quickstart.py",
        )
    if not _WORKDIR.value:
        raise InputError(got="no --workdir", want="--workdir=DIR for all output")
    path = given[1].partition(":")[0]
    if not config.find_config(path):
        known = config.config_names()
        near = registry.hint(f"configs/{pathlib.PurePath(path).name}", known)
        raise InputError(
            got=f"--config={path}, which is not a file{files.relative_to(path)}, "
            f"nor a config of {config.CONFIGS}",
            want=f"a config file: one of your own, or {', '.join(known)}{near}",
        )
    if "://" in _WORKDIR.value:
        return
    workdir = pathlib.Path(_WORKDIR.value)
    for place in (workdir, *workdir.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            raise InputError(
                got=f"--workdir={workdir}"
                + (f", below {place}," if place != workdir else ",")
                + " which is a file or a link to nothing",
                want="a folder, or a path where one can be made",
            )


def _given_config(argv: list[str]) -> tuple[int, str] | None:
    """Where the value of the last `--config` stands, and the value."""
    found = None
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if number and name in ("--config", "-config"):
            if equals:
                found = number, value
            elif number + 1 < len(argv):
                found = number + 1, argv[number + 1]
    return found


def _with_found_config(argv: list[str]) -> list[str]:
    """The words, with the path of a shipped config where one of those is named."""
    number, value = _given_config(argv)
    path, colon, arg = value.partition(":")
    changed = list(argv)
    flag = "--config=" if _is_config(argv[number]) else ""
    changed[number] = f"{flag}{config.find_config(path)}{colon}{arg}"
    return changed


def _explained(error: Exception, argv: list[str]) -> InputError:
    """One line for what absl and ml_collections raise in many shapes."""
    # A bad value inside a config file is raised while a flag is parsed.
    cause = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        cause = cause.__cause__ or cause.__context__
    # The text of a KeyError is quoted, and holds its newlines and quotes escaped.
    text = str(error).replace("\\n", "\n").replace("\\'", "'")
    text, meant = text.splitlines()[0], re.search(r'Did you mean "(\w+)"', text)
    if isinstance(error, flags.UnrecognizedFlagError):
        known = ["config", "workdir", "plugins", "help"]
        name = error.flagname
        return InputError(
            got=f"flag --{name}", want=f"{', '.join(known)}{registry.hint(name, known)}"
        )
    if isinstance(error, (AttributeError, KeyError)):
        name = text.strip("'\"")
        paths = [word.partition("=")[0] for word in argv]
        found = [p for p in paths if p.startswith("--config.") and name in p.split(".")]
        return InputError(
            got=f"unknown field {found[0] if found else name}",
            want="a field of this config (docs/config.md)"
            + (f" (did you mean {meant[1]!r}?)" if meant else ""),
        )
    return InputError(
        got=text,
        want="fields and values as the config has them",
        do="see docs/config.md for every field",
    )


def from_flags(argv: Sequence[str]) -> tuple[ConfigDict, str]:
    """The parsed config, frozen, and the working directory."""
    if len(argv) > 1:
        raise InputError(got=f"argument {argv[1]!r}", want="only --flags")
    return ConfigDict(_CONFIG.value).lock(), _WORKDIR.value
