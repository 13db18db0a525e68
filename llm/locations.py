"""Where things lie that a command names: shipped configs, and paths of the user.

The configs of a checkout are its `configs/`; a wheel installs the same files as
`llm/_configs/` (setup.py), so that `--config=1b.py` works in any directory.

    >>> find_config("1b.py")            # a file of the current directory comes first
    PosixPath('/home/me/llm/configs/1b.py')
    >>> relative_to("texts")
    ' (relative to /home/me)'
"""

import os
import pathlib

_PACKAGE = pathlib.Path(__file__).parent
_INSTALLED = _PACKAGE / "_configs"
# The folder of the configs that come with this package.
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"


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


def shown(name: str) -> str:
    """The name of a file as text: bytes in it that are not UTF-8 become `\\xe9`.

    Python holds such bytes as surrogates, which no output can hold.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def relative_to(path: str | os.PathLike) -> str:
    """For an error about a missing path: the directory that a relative one starts at.

    '' for an absolute path, for a URL such as `gs://bucket`, and for one that exists.
    """
    path = os.fspath(path)
    if not path or os.path.isabs(path) or "://" in path or os.path.exists(path):
        return ""
    return f" (relative to {os.getcwd()})"
