"""Starts child processes that end when their parent does, whatever ends the parent.

A child that is started here has the read end of a pipe whose write end the parent
keeps. However the parent ends, `kill -9` too, the kernel closes that end. Two things
notice: the kernel sends SIGIO, which ends a process even in a call into C that never
returns to Python; and where pipes send none, a thread that reads until the end. (Linux'
own signal for this, PR_SET_PDEATHSIG, comes already when the thread ends that started
the child.) The watch begins before the script of the child is read.

    process = start("extract_child.py", stdin=subprocess.PIPE)
"""

import contextlib
import fcntl
import os
import pathlib
import runpy
import select
import subprocess
import sys
import threading
import weakref


def start(script: pathlib.Path | str, *args: str, **knobs) -> subprocess.Popen:
    """Starts a Python file that imports nothing of its own folder.

    Args:
      args: its arguments.
      knobs: of subprocess.Popen.
    """
    read, write = os.pipe()
    # -P: the folder of these files is no place to import from.
    python = [sys.executable, "-X", "utf8", "-P"]
    command = [*python, __file__, str(read), str(script), *args]
    try:
        process = subprocess.Popen(command, pass_fds=(read,), **knobs)
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    # Open as long as somebody here can ask for the process.
    weakref.finalize(process, os.close, write)
    return process


def watch(parent: int) -> None:
    """Ends this process when the other end of the pipe `parent` is closed."""
    os.set_inheritable(parent, False)
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(parent, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(parent, fcntl.F_GETFL)
        fcntl.fcntl(parent, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([parent], [], [], 0)[0]:  # it ended before that
        os._exit(1)

    def wait() -> None:
        os.read(parent, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    watch(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
