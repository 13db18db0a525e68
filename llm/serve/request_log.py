"""A line of JSON for every answer: what was asked of the server, and how it went.

The fields are those of `llm/serve/request_record.py`, and some more.

Figures alone, unless `serve.log_prompts`; then the texts too, with what looks like an
address, a number of a person or a card, or a key taken out. No name of a client is
kept: `client` is a hash that changes with every start.
"""

import hashlib
import json
import re
import secrets
import threading
import time
from typing import Any

from etils import epath

from llm.text import personal_data

FILE = "requests.jsonl"
_SALT = secrets.token_bytes(16)
# A log may lose more than a corpus may: what only looks like personal data goes first,
# and then what `llm/text/personal_data.py` knows besides. The order matters: what a
# later one would cut in two stands before it.
_LOOKS = (
    ("url_login", re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")),
    ("email", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    ("key", re.compile(r"\b(?:sk|pk|ghp|gho|xox[abp]|AKIA|hf)[-_A-Za-z0-9]{14,}")),
    (
        "iban",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    ),
    ("ip", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")),
    ("ssn", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("card", re.compile(r"\b(?:\d[ -]?){12,18}\d\b")),
    ("phone", re.compile(r"(?<![\w.])\+?\(?\d(?:[ ()/.-]{0,2}\d){7,14}(?![\w])")),
)


def scrub(text: str) -> str:
    """The text with what tells of a person replaced by what it was, as in [email]."""
    for name, pattern in _LOOKS:
        text = pattern.sub(f"[{name}]", text)
    found = personal_data.find(text, public_only=False)
    return personal_data.redacted(text, found, str.lower)


class RequestLog:
    """Appends lines to requests.jsonl of a folder.

    Args:
      prompts: whether texts are written, scrubbed.
    """

    def __init__(self, folder: str, *, prompts: bool = False):
        self._path = epath.Path(folder) / FILE
        self._prompts = prompts
        self._lock = threading.Lock()

    def write(self, *, client: str, prompt: str, answer: str, **figures: Any) -> None:
        """One answer, at this time."""
        hashed = hashlib.sha256(_SALT + client.encode()).hexdigest()[:12]
        line = {"time": round(time.time(), 3), "client": hashed, **figures}
        if self._prompts:
            line |= {"prompt": scrub(prompt), "completion": scrub(answer)}
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(text)
