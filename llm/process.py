"""What a process needs of the machine it runs on: memory that stays, and UTF-8.

A step on a CPU takes hundreds of megabytes of temporaries from the C library and gives
them back at its end, every time; the kernel then maps each 4 KiB page anew, which was
a third of a small model's step, and on a virtual machine the host may have to find the
memory again, which doubled a large model's. So glibc is told to keep what it has, in
one heap for all threads (only that one can grow without bounds), and to ask for huge
pages. It reads this when a process starts, so the process starts itself once more.
"""

import atexit
import os
import platform
import sys
from typing import NoReturn

_TUNABLES = {
    "glibc.malloc.hugetlb": "1",
    "glibc.malloc.mmap_max": "0",
    "glibc.malloc.trim_threshold": str(2**40),
    "glibc.malloc.arena_max": "1",
}


def prepare() -> None:
    """Restarts this Python program where its environment is not the one we need.

    Call it first of all, under `if __name__ == "__main__"`. The C library is to keep
    its memory, and names of files and output are to be UTF-8 whatever the locale, as
    the content of files is.
    """
    needed = _memory_settings() | _utf8_settings()
    if needed:
        os.environ.update(needed)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _memory_settings() -> dict[str, str]:
    """A `GLIBC_TUNABLES` that already speaks of these settings is left alone.

    `glibc.malloc.hugetlb=0` turns all of this off. Systems without glibc need nothing.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or any(name in tunables for name in _TUNABLES):
        return {}
    if platform.libc_ver()[0] != "glibc":
        return {}
    ours = [f"{name}={value}" for name, value in _TUNABLES.items()]
    return {"GLIBC_TUNABLES": ":".join(filter(None, [tunables, *ours]))}


def _utf8_settings() -> dict[str, str]:
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return {}
    return {"PYTHONUTF8": "1"}


def print_any_text() -> None:
    """Makes stdout and stderr escape what their encoding lacks, instead of failing.

    Texts and paths hold any character; a terminal without UTF-8 shows `\\u2192`.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def leave(code: int) -> NoReturn:
    """Ends the process in the middle of its work, but for what atexit has to do.

    Threads of XLA that still compute do not survive the end of Python: they crash.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
