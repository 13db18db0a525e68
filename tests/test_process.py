"""How a process ends in the middle of its work."""

import subprocess
import sys
import textwrap

LEAVING = """
    import atexit, os, sys, threading, time
    from llm import process

    class Crashes:
        def __del__(self):
            os.abort()

    held = Crashes()
    held.itself = held  # only the end of Python takes it away
    threading.Thread(target=time.sleep, args=(600,)).start()
    atexit.register(print, "cleaned up")
    print("written")
    {}
"""


def test_leaving_cleans_up_and_waits_for_no_thread():
    code = textwrap.dedent(LEAVING).format("process.leave(75)")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 75 and not done.stderr
    assert done.stdout == "written\ncleaned up\n"
