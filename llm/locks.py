"""A folder that one process works in at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from etils import epath

from llm import atomic
from llm.errors import InputError


@contextlib.contextmanager
def held(folder: epath.PathLike, does: str, *, name: str = ".lock") -> Iterator[None]:
    """Makes the folder and holds it; it is free again when this process ends.

    Args:
      does: what the other process does there, such as `runs trials`.
      name: of the lock, where one process holds several in a folder.

    Raises:
      InputError: another process holds it.
    """
    path = atomic.make_folder(folder) / name
    with atomic.writing(path.parent), _locked(path, does):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: epath.Path, does: str) -> Iterator[None]:
    while True:
        with path.open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    got=f"{path.parent}, in which another process {does}",
                    want="one at a time",
                    do="wait for it, or use another --workdir",
                ) from error
            # Whoever held it may have removed the file after we opened it: then the
            # next process would lock another one.
            own = os.fstat(file.fileno()).st_ino
            if path.exists() and os.stat(path).st_ino == own:
                yield
                return
