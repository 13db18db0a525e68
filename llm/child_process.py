"""Child processes that end with their parent, and children that answer within limits.

`start` runs a Python file. `Child` runs one that defines a function `answer`, and calls
it there: code that may hang, take all memory or end its process harms no other.

    with Child("child.py", Limits(seconds=10, memory_bytes=2**31)) as child:
        child.ask(text="a", page=b"...")  # calls answer(text="a", page=b"...")
    Verdict(outcome=Outcome.ANSWERED, value={"length": 1}, ...)

The limits contain accidents. They are no sandbox: files of the user can be read and
written, and code that `answer` runs could write its own reply.
"""

import contextlib
import dataclasses
import enum
import json
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

_MAIN = pathlib.Path(__file__).with_name("child_main.py")


class Outcome(enum.Enum):
    """How a request to a child ended."""

    ANSWERED = "answered"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    DIED = "died"
    BAD_REPLY = "wrote no valid reply"
    NOT_STARTED = "did not start"


class Verdict(NamedTuple):
    """How a request ended, and with what.

    Attributes:
      value: what `answer` returned.
      exit_code: of a child that died; -11 is signal 11.
      message: the exception or the reason, where there is one.
      unenforced: limits that this system does not enforce: "network", "processes".
    """

    outcome: Outcome
    value: Any = None
    exit_code: int | None = None
    message: str = ""
    unenforced: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may use; None is without limit.

    Attributes:
      seconds: from a request to its answer.
      cpu_seconds: of user time for a request; processes that it starts do not count.
      memory_bytes: of address space.
      file_bytes: of each file that is written.
      processes: processes and threads beside its own. Needs a user namespace, and a
        user other than root.
      network: False cuts it off, where users may have namespaces.
      reply_bytes: of an answer as JSON.
      temporary_folder: whether the child starts in an empty folder, deleted afterwards.
      environment: its environment variables; None is those of the parent.
      start_seconds: until it is ready.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    file_bytes: int | None = None
    processes: int | None = None
    network: bool = True
    reply_bytes: int = 2**30
    temporary_folder: bool = False
    environment: Mapping[str, str] | None = None
    start_seconds: float = 120.0


class Child:
    """A Python file in a process of its own, which is restarted whenever it ended."""

    def __init__(self, script: pathlib.Path | str, limits: Limits = Limits()):
        self._script, self._limits = script, limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._number = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def pid(self) -> int | None:
        """The number of the process that waits for a request."""
        return self._process.pid if self._process else None

    def ask(self, **arguments: Any) -> Verdict:
        """Calls `answer` of the script with these arguments: JSON values, or bytes."""
        request = _request(arguments)
        with self._lock:
            if not self._alive():
                self._end()
                verdict = self._start()
                if verdict.outcome is not Outcome.ANSWERED:
                    return verdict
            self._number += 1
            return self._exchange(request, self._limits.seconds)

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _alive(self) -> bool:
        """Whether this process can ask it: a fork has no child of its own."""
        if self._process is None or self._owner != os.getpid():
            return False
        # Nothing can be read from one that waits; one that died is at its end.
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            return not selector.select(0)

    def _start(self) -> Verdict:
        limits, self._number, self._unenforced = self._limits, 0, ()
        folder = tempfile.mkdtemp() if limits.temporary_folder else None
        child_end, requests = os.pipe()
        replies, reply_end = os.pipe()
        settings = {"requests": child_end, "replies": reply_end}
        settings["limits"] = dataclasses.asdict(limits) | {"environment": None}
        try:
            self._process = _popen(
                settings, [str(self._script)], (child_end, reply_end),
                cwd=folder, env=limits.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            _close_files(requests, replies)
            _remove(folder)
            return Verdict(Outcome.NOT_STARTED, message=str(error))
        finally:
            _close_files(child_end, reply_end)
        os.set_blocking(requests, False)
        self._owner, self._requests, self._replies = os.getpid(), requests, replies
        self._finish = weakref.finalize(
            self, _finish, self._process, self._owner, (requests, replies), folder
        )
        verdict = self._exchange(b"", limits.start_seconds)
        if verdict.outcome is Outcome.ANSWERED:
            self._unenforced = tuple(verdict.value)
            return verdict
        return verdict._replace(
            outcome=Outcome.NOT_STARTED,
            message=verdict.message or _description(verdict),
        )

    def _exchange(self, request: bytes, seconds: float | None) -> Verdict:
        """Writes a request and reads the reply; any but an answer ends the process."""
        try:
            reply, why = self._transfer(request, seconds)
        except BaseException:  # such as Ctrl-C: half a request may be written
            self._end()
            raise
        verdict = why or self._parsed(reply)
        if verdict.outcome is not Outcome.ANSWERED:
            code = self._end()
            if verdict.outcome in (Outcome.DIED, Outcome.TIMED_OUT):
                # A child that ended by itself was not ended by `_end`.
                verdict = _ended(verdict, code)
        return verdict._replace(unenforced=self._unenforced)

    def _transfer(
        self, request: bytes, seconds: float | None
    ) -> tuple[bytearray, Verdict | None]:
        """(a line, None), or why there is none."""
        deadline = None if seconds is None else time.monotonic() + seconds
        reply, left = bytearray(), memoryview(request)
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            if left:
                selector.register(self._requests, selectors.EVENT_WRITE)
            while not reply.endswith(b"\n"):
                rest = None if deadline is None else deadline - time.monotonic()
                ready = selector.select(rest) if rest is None or rest > 0 else []
                if not ready:
                    return reply, Verdict(Outcome.TIMED_OUT)
                for key, _ in ready:
                    if key.fd == self._replies:
                        part = os.read(self._replies, 2**20)
                        if not part:
                            return reply, Verdict(Outcome.DIED)
                        reply += part
                        continue
                    try:
                        left = left[os.write(self._requests, left[: 2**16]) :]
                    except BrokenPipeError:
                        left = left[:0]  # the end of its replies says how it ended
                    if not left:
                        selector.unregister(self._requests)
                if len(reply) > self._limits.reply_bytes:
                    message = f"more than {self._limits.reply_bytes:,} bytes"
                    return reply, Verdict(Outcome.BAD_REPLY, message=message)
        return reply, None

    def _parsed(self, reply: bytearray) -> Verdict:
        try:
            number, kind, value = json.loads(reply)
        except (ValueError, TypeError, RecursionError):
            return Verdict(Outcome.BAD_REPLY, message="no JSON of a reply")
        if number != self._number:
            return Verdict(Outcome.BAD_REPLY, message="a reply to another request")
        if kind == "value":
            return Verdict(Outcome.ANSWERED, value)
        if kind == "memory":
            return Verdict(Outcome.OUT_OF_MEMORY)
        if kind == "raised":
            return Verdict(Outcome.DIED, exit_code=1, message=str(value))
        return Verdict(Outcome.BAD_REPLY, message="a reply of no known kind")

    def _end(self) -> int | None:
        if self._process is None:
            return None
        self._process = None
        return self._finish()


def _ended(verdict: Verdict, code: int | None) -> Verdict:
    if code == -signal.SIGVTALRM:
        return Verdict(Outcome.TIMED_OUT)
    if verdict.outcome is Outcome.TIMED_OUT and code == -signal.SIGKILL:
        return verdict
    return Verdict(Outcome.DIED, exit_code=verdict.exit_code or code,
                   message=verdict.message)  # fmt: skip


def _description(verdict: Verdict) -> str:
    code = verdict.exit_code
    return verdict.outcome.value + ("" if code is None else f" with exit code {code}")


def _finish(process: subprocess.Popen, owner: int, pipes, folder) -> int | None:
    """Ends a child, and what it started; its exit code, if this process owns it."""
    _close_files(*pipes)
    if os.getpid() != owner:
        return None
    # Before `wait`: until then no other group of processes can have its number.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    _remove(folder)
    return code


def _close_files(*files: int) -> None:
    for file in files:
        os.close(file)


def _remove(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _request(arguments: Mapping[str, Any]) -> bytes:
    """A line of JSON, then the arguments that are bytes."""
    data = {name: v for name, v in arguments.items() if isinstance(v, bytes)}
    values = {name: v for name, v in arguments.items() if name not in data}
    sizes = {name: len(content) for name, content in data.items()}
    line = json.dumps({"values": values, "sizes": sizes}).encode()
    return b"".join([line, b"\n", *data.values()])


def start(script: pathlib.Path | str, *args: str, **knobs) -> subprocess.Popen:
    """Starts a Python file that imports nothing of its own folder.

    Args:
      args: its arguments.
      knobs: of subprocess.Popen.
    """
    return _popen({}, [str(script), *args], **knobs)


def _popen(settings, command, pass_fds=(), **knobs) -> subprocess.Popen:
    read, write = os.pipe()
    # -P: the folder of that file is no place to import from.
    python = [sys.executable, "-X", "utf8", "-P", str(_MAIN)]
    command = [*python, json.dumps(settings | {"parent": read}), *command]
    try:
        process = subprocess.Popen(command, pass_fds=(read, *pass_fds), **knobs)
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    # Open as long as somebody here can ask for the process.
    weakref.finalize(process, os.close, write)
    return process
