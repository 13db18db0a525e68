"""The web page: three files of this folder, served as they are, but for two settings.

No build step and nothing from elsewhere; the headers forbid it.
"""

import html
import pathlib
from typing import Any

_HERE = pathlib.Path(__file__).parent
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
    return {
        "/": (text.encode(), "text/html; charset=utf-8"),
        "/page.css": ((_HERE / "page.css").read_bytes(), "text/css; charset=utf-8"),
        "/page.js": (
            (_HERE / "page.js").read_bytes(),
            "text/javascript; charset=utf-8",
        ),
    }
