"""Writes files and folders so that a reader sees the whole of them or nothing.

Everything goes into a sibling, `.<name>.partial`, and is renamed when it is complete: a
process killed at any instant leaves the old content or the new one, and at most a
partial sibling that the next write of the same name replaces. One writer at a time.

A disk that is full or read-only is for the user to mend, not a bug of ours, so those
OSErrors become `MachineError`; use `writing(path)` around other writes (an append).

Paths may be local or `gs://`. On an object store a folder is renamed object by object;
readers there should look for the file that is written last, such as a manifest.

`lock(folder, ...)` keeps a folder to one process; `shown` and `relative_to` are how
paths of the user stand in messages.

    with files.folder(workdir / "corpus") as partial:
        (partial / "train.jsonl").write_text(lines)
    files.write_text(workdir / "done.json", "{}")
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from etils import epath

from llm.errors import InputError, MachineError

# What a user can mend: free space, another folder, permissions.
_REASONS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EFBIG: "raise the limit on files (ulimit -f), or write to another disk",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EACCES: "choose a folder that you may write, or change its permissions",
    errno.EPERM: "choose a folder that you may write, or change its permissions",
    errno.ENOTDIR: "choose a path whose parents are folders",
    errno.EEXIST: "choose a path whose parents are folders",
    errno.EISDIR: "move that folder away",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk into MachineError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        where = error.filename or os.fspath(path)
        raise MachineError(
            got=f"{error.strerror} at {where}",
            want=f"to write {os.fspath(path)}",
            do=_REASONS[error.errno],
        ) from error


def make_folder(path: epath.PathLike) -> epath.Path:
    """Makes the folder `path` and its parents, unless they are there."""
    path = epath.Path(path)
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            # /proc says so; elsewhere mkdir makes whatever is missing.
            raise PermissionError(errno.EACCES, "Cannot be made", str(path)) from error
    return path


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Replaces the file `path`, making its parent folders."""
    path = epath.Path(path)
    partial = _partial(path)
    with writing(path):
        make_folder(path.parent)
        try:
            with partial.open("wb") as file:
                file.write(content)
                _flush(file)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: epath.PathLike, content: str) -> None:
    """Replaces the file `path` by UTF-8 text, making its parent folders."""
    write_bytes(path, content.encode("utf-8"))


@contextlib.contextmanager
def folder(path: epath.PathLike) -> Iterator[epath.Path]:
    """Gives an empty folder to fill, which becomes `path` when the block ends well.

    A folder already at `path` stays untouched until then, and is then replaced. An
    exception in the block leaves nothing behind.
    """
    path = epath.Path(path)
    partial, old = _partial(path), path.parent / f".{path.name}.old"
    with writing(path):
        make_folder(path.parent)
        _remove(partial)
        make_folder(partial)
        try:
            yield partial
            _flush_all(partial)
            _remove(old)
            if path.exists():
                path.rename(old)
            partial.rename(path)
        except BaseException:
            _remove(partial)
            raise
        _remove(old)


def _partial(path: epath.Path) -> epath.Path:
    return path.parent / f".{path.name}.partial"


def _remove(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()


def _flush(file) -> None:
    """Puts a local file on the disk itself: a rename may outlive a power cut alone."""
    if hasattr(file, "fileno"):
        file.flush()
        os.fsync(file.fileno())


def _flush_all(folder: epath.Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _flush_all(path)
        else:
            with path.open("rb") as file:
                _flush(file)


@contextlib.contextmanager
def lock(folder: epath.PathLike, does: str, *, name: str = ".lock") -> Iterator[None]:
    """Makes the folder and holds it; it is free again when this process ends.

    Args:
      does: what the other process does there, such as `runs trials`.
      name: of the lock, where one process holds several in a folder.

    Raises:
      InputError: another process holds it.
    """
    path = make_folder(folder) / name
    with writing(path.parent), _locked(path, does):
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
