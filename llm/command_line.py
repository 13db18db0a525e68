"""The command line: two flags and the dotted fields of a config, with errors that help.

--config=FILE[:ARG] --workdir=DIR [--config.field=value ...]
"""

import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from llm import registry
from llm.errors import InputError, report_input_error

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, path[:args].")
_WORKDIR = flags.DEFINE_string("workdir", "", "Run directory: all output goes here.")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags for `app.run`, with one line and exit code 2 for a bad one."""
    try:
        return _parse(list(argv))
    except InputError as error:
        sys.exit(report_input_error(error))


def _parse(argv: list[str]) -> list[str]:
    if any(word in ("--help", "-help", "-h") for word in argv[1:]):
        print(sys.modules["__main__"].__doc__)
        print(flags.FLAGS.module_help(sys.modules[__name__]))
        sys.exit(0)
    following = [*argv[1:], ""]
    for word, after in zip(argv[1:], following[1:], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            path = (value if equals else after).partition(":")[0]
            if not pathlib.Path(path).is_file():
                near = ", ".join(sorted(map(str, pathlib.Path("configs").glob("*.py"))))
                raise InputError(
                    got=f"--config={path}, which is not a file",
                    want=f"a config{': ' + near if near else ' file'}",
                )
    try:
        return flags.FLAGS(argv)
    except InputError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _explained(error, argv) from error


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
        known = ["config", "workdir", "help"]
        if not any(word.startswith("--config") for word in argv):
            known += ["config=FILE before --config.field=value"]
        name = error.flagname
        return InputError(
            got=f"flag --{name}", want=f"{', '.join(known)}{registry.hint(name, known)}"
        )
    if isinstance(error, (AttributeError, KeyError)):
        name = text.strip("'\"")
        paths = [word.partition("=")[0] for word in argv]
        found = [p for p in paths if p.startswith("--config.") and name in p.split(".")]
        return InputError(
            got=f"the field {found[0] if found else name}, which there is not",
            want="one of llm/fields.py"
            + (f" (did you mean {meant[1]!r}?)" if meant else ""),
        )
    return InputError(
        got=text,
        want="fields and values as the config has them",
        do="see llm/fields.py for every field",
    )


def from_flags(argv: Sequence[str]) -> tuple[ConfigDict, str]:
    """The parsed config, frozen, and the working directory."""
    if len(argv) > 1:
        raise InputError(got=f"argument {argv[1]!r}", want="only --flags")
    if _CONFIG.value is None:
        raise InputError(
            got="no --config",
            want="--config=FILE",
            do="try --config=configs/quickstart.py",
        )
    if not _WORKDIR.value:
        raise InputError(got="no --workdir", want="--workdir=DIR for all output")
    return ConfigDict(_CONFIG.value).lock(), _WORKDIR.value
