"""Runs of `python -m llm.main` as processes of their own, without the wait for imports.

A server imports everything once and forks a child for every run, before any device is
looked for. A child has its own process id, signals, exit code, stdout and stderr.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent

_SERVER = """
import atexit, gc, json, os, sys, threading
from absl import app
import llm.main
from llm import cli, registry
for folder in ("evals", "models", "objectives", "sources", "stages", "workloads"):
    for name in registry.choices(folder):
        registry.module(folder, name)
# A child copies each page of memory that it writes to: a collection of garbage, or the
# end of the interpreter, would write to all of them.
gc.freeze()

for line in sys.stdin:
    case = json.loads(line)
    if "wait" in case:
        _, status = os.waitpid(case["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    child = os.fork()
    if not child:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(case[name], os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["llm/main.py", *case["words"]]
        code = 1
        try:
            app.run(llm.main.main, flags_parser=cli.parse)
        except SystemExit as end:
            code = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    print(child, flush=True)
"""


class Run:
    """A run that was started."""

    def __init__(self, server, words):
        self._server = server
        folder = pathlib.Path(tempfile.mkdtemp(dir=server.folder))
        self._paths = {name: str(folder / name) for name in ("out", "err")}
        for path in self._paths.values():
            pathlib.Path(path).touch()
        self.pid = server.ask({"words": words, **self._paths})

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def over(self):
        """Whether it has ended, and waits to be asked how."""
        status = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "Z"

    def out(self):
        """What it has written to stdout so far."""
        return pathlib.Path(self._paths["out"]).read_text()

    def wait(self):
        """(exit code, stdout, stderr)."""
        code = self._server.ask({"wait": self.pid})
        return code, self.out(), pathlib.Path(self._paths["err"]).read_text()


class Server:
    """Starts runs; use it as a context manager."""

    def __init__(self, folder, cwd=ROOT, **environment):
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )

    def ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, *words):
        return Run(self, words)

    def run(self, *words):
        """(exit code, stdout, stderr) of a run to its end."""
        return self.start(*words).wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        assert self._process.wait() == 0


def until(condition, seconds=120):
    """Waits until `condition()`; an error after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
