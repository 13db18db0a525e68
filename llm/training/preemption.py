"""What the machine is told of its own end: maintenance, or that it is wanted back.

A cloud says it on a metadata server, which virtual machines of Google ask at
`metadata.google.internal`; preemption also comes as SIGTERM, often with less time. A
thread asks every few seconds; the training then saves and ends as on SIGTERM.

    with Notices(url, tell) as notices: ...
"""

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

GOOGLE = "http://metadata.google.internal/computeMetadata/v1/instance"
# {what to ask: answers that announce nothing}
_QUIET = {"maintenance-event": ("NONE", "MIGRATE_ON_HOST_MAINTENANCE", ""),
          "preempted": ("FALSE", "")}  # fmt: skip
_EVERY = 5.0  # seconds
_FAILURES = 3  # in a row, after which there is no such server


class Notices:
    """Asks a metadata server, and tells once of what it announces.

    Args:
      url: of the server's folder about this machine; '' asks nobody.
      tell: called with the notice, on another thread.
    """

    def __init__(self, url: str, tell: Callable[[str], None], every: float = _EVERY):
        self._url, self._tell, self._every = url, tell, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        # The server is on this machine's own network: no proxy can know it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def look(self) -> str:
        """What is announced now, or ''; OSError where nobody answers."""
        for name, quiet in _QUIET.items():
            request = urllib.request.Request(
                f"{self._url}/{name}", headers={"Metadata-Flavor": "Google"}
            )
            try:
                with self._opener.open(request, timeout=self._every) as answer:
                    said = answer.read(200).decode("ascii", "replace").strip()
            except urllib.error.HTTPError as error:
                if error.code == 404:  # a server that does not know of such
                    continue
                raise
            except http.client.HTTPException as error:
                raise OSError(str(error)) from error
            if said.upper() not in quiet:
                return f"{name}: {said}"
        return ""

    def _watch(self) -> None:
        failures, said = 0, ""
        while not said and failures < _FAILURES:
            try:
                said, failures = self.look(), 0
            except OSError:
                failures += 1
            if said:
                self._tell(said)
            elif self._done.wait(self._every):
                return

    def __enter__(self) -> "Notices":
        if self._url:
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._done.set()
