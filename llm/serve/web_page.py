"""The web page: files of this folder, served as they are, but for a few settings.

No build step and nothing from elsewhere; the headers forbid it.
"""

import html
import pathlib
from typing import Any

_HERE = pathlib.Path(__file__).parent
FILES = ("page.css", "markdown.js", "odds.js", "page.js")  # besides page.html
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src "
    "'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def files(service: Any) -> dict[str, tuple[bytes, str]]:
    """{path: (content, type)}."""
    text = (_HERE / "page.html").read_text("utf-8")
    settings = {
        "MODEL": html.escape(service.name),
        "CONTEXT": str(service.context),
        "CHATS": str(service.chats).lower(),
        "GENERATES": str(service.scheduler is not None).lower(),
        "FEEDBACK": str(service.feedback is not None).lower(),
    }
    for name, value in settings.items():
        text = text.replace("{{" + name + "}}", value)
    read = {"/": (text.encode(), "text/html; charset=utf-8")}
    for name in FILES:
        kind = "css" if name.endswith(".css") else "javascript"
        content = (_HERE / name).read_bytes()
        read[f"/{name}"] = content, f"text/{kind}; charset=utf-8"
    return read
