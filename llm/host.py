"""What a process wants of the machine it runs on.

A step on a CPU takes hundreds of megabytes of temporaries from the C library and gives
them back at its end, every time; the kernel then maps each 4 KiB page anew, which was a
third of a small model's step. With huge pages there are 500 times fewer to map. glibc
reads the setting when a process starts, so the process starts itself once more.
"""

import os
import pathlib
import sys

_TUNABLE = "glibc.malloc.hugetlb"
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Restarts this Python program with huge pages for malloc, if they can be had.

    Call it first of all, under `if __name__ == "__main__"`. A `GLIBC_TUNABLES` that
    already speaks of them is left alone (`glibc.malloc.hugetlb=0` turns this off), and
    so are systems that have none.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or _TUNABLE in tunables:
        return
    if not _KERNEL.exists() or "[never]" in _KERNEL.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
