"""A folder that one process works in at a time."""

import contextlib
import fcntl
from collections.abc import Iterator

from etils import epath

from llm import atomic
from llm.errors import InputError


@contextlib.contextmanager
def held(folder: epath.PathLike, does: str) -> Iterator[None]:
    """Makes the folder and holds it; it is free again when this process ends.

    Args:
      does: what the other process does there, such as `runs trials`.

    Raises:
      InputError: another process holds it.
    """
    folder = atomic.make_folder(folder)
    with atomic.writing(folder), (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                got=f"{folder}, in which another process {does}",
                want="one at a time",
                do="wait for it, or use another --workdir",
            ) from error
        yield
