"""What a child of `child_process.py` runs: it ends with its parent, then the script.

A child has the read end of a pipe whose write end the parent keeps. However the parent
ends, `kill -9` too, the kernel closes that end. Two things notice: the kernel sends
SIGIO, which ends a process even in a call into C that never returns to Python; and
where pipes send none, a thread that reads until the end. (Linux' own signal for this,
PR_SET_PDEATHSIG, comes already when the thread ends that started the child.)

    python -P child_main.py '{"parent": 5}' script.py
    python -P child_main.py '{"parent": 5, "requests": 6, "replies": 7, "limits": {}}' …
"""

import contextlib
import fcntl
import json
import os
import pathlib
import resource
import runpy
import select
import signal
import sys
import threading
import traceback
import types
from collections.abc import Mapping
from typing import Any

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET
_OWN_THREADS = 2  # the main thread of a child, and the one that watches its parent


def watch(parent: int) -> None:
    """Ends this process when the other end of the pipe `parent` is closed."""
    # The leader of a group ends with all that it started.
    leader = os.getpgrp() == os.getpid()
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(parent, fcntl.F_SETOWN, -os.getpid() if leader else os.getpid())
        flags = fcntl.fcntl(parent, fcntl.F_GETFL)
        fcntl.fcntl(parent, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([parent], [], [], 0)[0]:  # it ended before that
        os._exit(1)

    def wait() -> None:
        os.read(parent, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _serve(settings: Mapping[str, Any], script: str) -> None:
    """Loads the script, then answers until the requests end."""
    limits, replies = settings["limits"], settings["replies"]
    try:
        unenforced = _apply(limits)
        watch(settings["parent"])
        answer = _loaded(script)["answer"]
    except Exception as error:
        _write(replies, _line(0, "raised", _last_line(error)))
        return
    _write(replies, _line(0, "value", unenforced))
    number = 0
    with open(settings["requests"], "rb") as requests:
        for line in iter(requests.readline, b""):
            request, number = json.loads(line), number + 1
            sizes = request["sizes"].items()
            data = {name: requests.read(size) for name, size in sizes}
            arguments = request["values"] | data
            _answer(answer, arguments, replies, number, limits["cpu_seconds"] or 0)


def _answer(answer, arguments, replies: int, number: int, cpu_seconds: float) -> None:
    # Without a handler the kernel ends the process, even within a call into C.
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    try:
        content = _line(number, "value", answer(**arguments))
    except MemoryError:
        content = _line(number, "memory", None)
    except Exception as error:
        content = _line(number, "raised", _last_line(error))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    _write(replies, content)


def _apply(limits: Mapping[str, Any]) -> list[str]:
    """Sets the limits of this process; which of them this system does not enforce."""
    _set(resource.RLIMIT_AS, limits["memory_bytes"])
    _set(resource.RLIMIT_FSIZE, limits["file_bytes"])
    unenforced = []
    if not limits["network"] and not _unshare(_NEW_USER | _NEW_NETWORK):
        unenforced.append("network")
    if limits["processes"] is not None:
        # In a namespace of its own, other processes of the user do not count.
        own = not (limits["network"] or unenforced) or _unshare(_NEW_USER)
        if own and _refuses_forks():
            _set(resource.RLIMIT_NPROC, limits["processes"] + _OWN_THREADS)
        else:
            unenforced.append("processes")
    return unenforced


def _set(kind: int, limit: int | None) -> None:
    if limit is not None:
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _unshare(flags: int) -> bool:
    """Moves this process into new namespaces, if the kernel lets its user."""
    if hasattr(os, "unshare"):  # Python 3.12
        try:
            os.unshare(flags)
        except OSError:
            return False
        return True
    import ctypes

    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    return unshare is not None and unshare(flags) == 0


def _refuses_forks() -> bool:
    """Whether the kernel counts the processes of this user: not those of root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        child = os.fork()
    except OSError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return False


def _loaded(script: str) -> dict[str, Any]:
    module = types.ModuleType("child_script")
    module.__file__ = script
    sys.modules[module.__name__] = module
    content = pathlib.Path(script).read_bytes()
    exec(compile(content, script, "exec"), module.__dict__)
    return module.__dict__


def _line(*reply: Any) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def _write(replies: int, content: bytes) -> None:
    while content:
        content = content[os.write(replies, content) :]


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _main() -> None:
    settings = json.loads(sys.argv[1])
    sys.argv = sys.argv[2:]
    # What the child starts has none of its pipes.
    for name in {"parent", "requests", "replies"} & set(settings):
        os.set_inheritable(settings[name], False)
    if "replies" in settings:
        _serve(settings, sys.argv[0])
    else:
        watch(settings["parent"])
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
