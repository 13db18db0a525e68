"""TensorBoard event files, by the protobufs and records of tensorboardX.

Its SummaryWriter writes from a thread, minutes late; here a step is in the file when
`scalars` returns, so a killed process leaves whole records, or one torn at the end of
the file, which readers drop. A reader shows a step once although a run was killed and
resumed: the new file starts with SessionLog START at the first step that will be
written again, and readers drop what older files say from that step on.

    with EventWriter("runs/a/tensorboard", first_step=1) as writer:
        writer.scalars(10, {"loss": 2.9})
"""

import importlib
import importlib.util
import pathlib
import socket
import sys
import time
import types
from collections.abc import Mapping
from typing import Any

from llm import files


def _tensorboardx(*names: str) -> list[Any]:
    """Modules of tensorboardX, without its `__init__`, which imports torch if there
    is one: 4 s and 300 MB of every training."""
    spec = importlib.util.find_spec("tensorboardX")
    package = types.ModuleType("tensorboardX")
    package.__path__ = list(spec.submodule_search_locations)
    whole = sys.modules.get("tensorboardX")
    sys.modules["tensorboardX"] = whole or package
    try:
        return [importlib.import_module(f"tensorboardX.{name}") for name in names]
    finally:
        if not whole:  # who imports the package gets the real one
            del sys.modules["tensorboardX"]


_event, _summary, _records = _tensorboardx(
    "proto.event_pb2", "proto.summary_pb2", "record_writer"
)
_START = _event.SessionLog(status=_event.SessionLog.START)


class EventWriter:
    """Appends scalars to one new event file in a folder.

    Args:
      folder: where TensorBoard looks (`tensorboard --logdir`).
      first_step: the lowest step that this writer will write; older files' values of
        that step and later are superseded.
    """

    def __init__(self, folder: str | pathlib.Path, first_step: int = 0):
        # Readers take files in the order of their names, so these sort by time.
        seconds, rest = divmod(time.time_ns(), 10**9)
        host = socket.gethostname().replace("/", "-") or "localhost"
        name = f"events.out.tfevents.{seconds:010d}.{rest:09d}.{host}"
        self._path = pathlib.Path(files.make_folder(folder)) / name
        with files.writing(self._path):
            self._records = _records.RecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=_START)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step: name -> number."""
        parts = [
            _summary.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
        ]
        self._write(step=step, summary=_summary.Summary(value=parts))

    def close(self) -> None:
        """Closes the file."""
        self._records.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _write(self, **fields) -> None:
        event = _event.Event(wall_time=time.time(), **fields)
        with files.writing(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()
