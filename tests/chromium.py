"""A headless Chromium that a test types into: its DevTools protocol, over a pipe.

with chromium.page(url, folder) as page:
    page.run("document.title")
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

import pytest

PATH = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
NEEDED = [
    pytest.mark.browser,
    pytest.mark.skipif(PATH is None, reason="no chromium on this machine"),
]
IDLE = "!document.getElementById('send').hidden"  # of the server's page
CODES = {
    "Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39,
}  # fmt: skip
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Page:
    """An open page."""

    def __init__(self, commands, replies):
        self._commands, self._replies = commands, replies
        self._numbers = itertools.count(1)
        self._held, self._session = b"", None
        self.errors = []

    def send(self, method, **params):
        """A command of the protocol; its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("method") == "Runtime.exceptionThrown":
                self.errors.append(reply["params"]["exceptionDetails"])
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]

    def _next(self):
        while b"\0" not in self._held:
            new = os.read(self._replies, 1 << 20)
            assert new, "chromium has ended"
            self._held += new
        message, _, self._held = self._held.partition(b"\0")
        return json.loads(message)

    def open(self, url, width=1000, height=800, dark=False):
        """Opens a page in a window of this size."""
        if not self._session:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self.send("Runtime.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.send("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def run(self, script):
        """The value of an expression, awaited."""
        result = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script, seconds=20):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"{script}: not within {seconds} s"
            time.sleep(0.05)

    def write(self, text):
        """Types into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key="Enter"):
        """Presses a key."""
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=CODES[key], **more,
            )  # fmt: skip

    def hover(self, x, y):
        """Moves the pointer."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path):
        """Writes what is seen to a PNG file."""
        shot = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def page(folder):
    """A browser with a new profile in a folder; `open` a page in it."""
    read_commands, commands = os.pipe()
    replies, write_replies = os.pipe()
    script = f'"$0" "$@" 3<&{read_commands} 4>&{write_replies}'
    process = subprocess.Popen(
        ["bash", "-c", script, PATH, *FLAGS, "--remote-debugging-pipe",
         f"--user-data-dir={folder / 'profile'}", "about:blank"],
        pass_fds=(read_commands, write_replies), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(read_commands)
    os.close(write_replies)
    made = Page(commands, replies)
    try:
        yield made
    finally:
        os.close(commands)
        process.terminate()
        process.wait(10)
        os.close(replies)
