"""What every request passes before it is read: host, key, size. Plain ASGI.

Errors have OpenAI's shape wherever they come from.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from llm import files
from llm.errors import InputError
from llm.serve import web_page

# Without a key:
OPEN = ("/", *(f"/{name}" for name in web_page.FILES), "/health", "/ready", "/metrics")
_MOST_DROPPED = 256 << 20  # bytes of a body that is refused
_WHOLE = 60.0  # seconds for a body to come
_SECONDS, _PAUSE = 20.0, 1.0  # for all of it, and for a part
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error",
}  # fmt: skip


def error_of(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = _TYPES.get(status, kind)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def read_keys(path: str) -> tuple[str, ...]:
    """The keys of a file, one a line; # begins a comment. () where there is none.

    Raises:
      InputError: a file that cannot be read, or without a key.
    """
    if not path:
        return ()
    try:
        lines = epath.Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            got=f"{path} ({error}){files.relative_to(path)}",
            want="a file with a key a line",
        ) from error
    keys = tuple(line.strip() for line in lines)
    keys = tuple(key for key in keys if key and not key.startswith("#"))
    if not keys or min(map(len, keys)) < 8 or not all(map(str.isascii, keys)):
        raise InputError(
            got=f"{path}, with {len(keys)} keys", want="keys of 8 plain letters or more"
        )
    return keys


class Border:
    """Middleware. Puts `client`, whom a request is counted for, in its scope.

    Args:
      keys: one of which a request must bear; () asks for none.
      most_bytes: of a request's body.
      local: whether to answer only requests for this machine's own names, so that no
        page of another host can be made to speak to this server.
      metrics: counts what is refused.
    """

    def __init__(
        self,
        app: Any,
        *,
        keys: Sequence[str],
        most_bytes: int,
        local: bool,
        metrics: Any,
    ):
        self._app, self._keys = app, [_hashed(key.encode()) for key in keys]
        self._most, self._local, self._metrics = most_bytes, local, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        status, message = self._refusal(scope, headers)
        if status:
            if headers.get(b"expect", b"").lower() != b"100-continue":
                await _heard_out(receive)
            await self._answer(send, status, message)
            return
        body, more = b"", True
        end = time.monotonic() + _WHOLE
        while more:
            try:
                left = max(end - time.monotonic(), 0.0)
                event = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                await self._answer(send, 408, f"the body took more than {_WHOLE:g} s")
                return
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
            if len(body) > self._most:
                await _heard_out(receive, more)
                await self._answer(send, 413, self._too_large())
                return
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def again():
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)

    def _refusal(self, scope, headers) -> tuple[int, str]:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        if self._local and name.lower() not in _LOCAL:
            return 403, f"got host {host[:100]!r}; want {', '.join(_LOCAL)}"
        given = headers.get(b"authorization", b"").partition(b" ")
        token = _hashed(given[2].strip() if given[0].lower() == b"bearer" else b"")
        known = [key for key in self._keys if hmac.compare_digest(key, token)]
        if self._keys and not known and scope["path"] not in OPEN:
            return 401, "got no known key; want the header Authorization: Bearer KEY"
        address = (scope.get("client") or ("",))[0]
        scope["state"] = {**scope.get("state", {}), "client": (known or [address])[0]}
        size = headers.get(b"content-length", b"0")
        if size.isdigit() and len(size) < 20 and int(size) > self._most:
            return 413, self._too_large()
        return 0, ""

    def _too_large(self) -> str:
        return f"got a body of more bytes than the {self._most} that are taken"

    async def _answer(self, send, status, message):
        self._metrics.refused(status)
        body = json.dumps(error_of(status, message)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # what was not read is not to be read on
        ]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})


async def _heard_out(receive: Any, more: bool = True) -> None:
    """Drops the rest of a body: most clients read no answer before they have sent all.

    Not of one without an end, or of a client that pauses: the connection is closed
    after the answer.
    """
    dropped, end = 0, time.monotonic() + _SECONDS
    while more and dropped < _MOST_DROPPED and time.monotonic() < end:
        try:
            event = await asyncio.wait_for(receive(), _PAUSE)
        except TimeoutError:
            return
        dropped += len(event.get("body", b""))
        more = event.get("more_body", False)


def _hashed(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
