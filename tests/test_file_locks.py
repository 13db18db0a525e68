"""One process at a time works in a folder."""

import os
import subprocess
import sys

import pytest

from llm import files
from llm.errors import InputError

_HOLDER = """
import sys, time
from llm import files
with files.lock(sys.argv[1], "waits"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path):
    with files.lock(tmp_path / "new", "waits"):
        again = files.lock(tmp_path / "new", "waits")
        with pytest.raises(InputError, match="another process waits"), again:
            pass
    with files.lock(tmp_path / "new", "waits"):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, tmp_path], stdout=subprocess.PIPE, env=env
    )
    process.stdout.readline()
    with pytest.raises(InputError), files.lock(tmp_path, "waits"):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with files.lock(tmp_path, "waits"):
        pass
