"""The process that turns HTML into text for `llm/extract.py`; it may hang or die.

It reads a line of JSON, {"bytes": n, "charset": "", "extractor": ""}, and n bytes of
HTML; it answers with a line: {"text", "language", "licence"} or {"refused": why}.

    python -P llm/extract_child.py
"""

import contextlib
import json
import re
import resource
import sys

MEMORY = 2 * 2**30
_MOSTLY = 20  # letters for one that is lost
_TAGS = re.compile(r"^[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*$")


def main() -> None:
    """Answers until its input ends."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    put("ready")
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        html = sys.stdin.buffer.read(asked["bytes"])
        try:
            put(extracted(html, asked["charset"], asked["extractor"]))
        except (ValueError, RecursionError, MemoryError) as error:
            put({"refused": type(error).__name__})


def put(answer) -> None:
    """Writes one line of JSON."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def extracted(html: bytes, charset: str, extractor: str) -> dict[str, str]:
    """The main text of a page, the language that it says, and a link to its licence."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str
    from resiliparse.parse.html import HTMLTree

    text = bytes_to_str(html, known(html, charset), errors="replace")
    if 1000 * text.count("\0") > len(text):
        return {"refused": "binary"}
    tree = HTMLTree.parse(text)
    root, licence = tree.document.query_selector("html"), ""
    language = (root.getattr("lang") or "").strip() if root else ""
    for link in tree.document.query_selector_all("[rel~=license][href]"):
        licence = link.getattr("href")
        break
    if extractor == "trafilatura":
        import trafilatura

        body = trafilatura.extract(text, include_comments=False) or ""
    else:
        body = extract_plain_text(tree, main_content=True, alt_texts=False)
    return {
        "text": body,
        "language": language if _TAGS.match(language) else "",
        "licence": licence,
    }


def decoded(content: bytes, charset: str) -> str:
    """A plain text: UTF-8 if it is that, else as is said, else by a guess.

    Few others are UTF-8 by chance. One that is said to be, or nearly is, as of a text
    that was cut within a letter, loses what is not.
    """
    from resiliparse.parse.encoding import (
        bytes_to_str,
        detect_encoding,
        map_encoding_to_html5,
    )

    said = map_encoding_to_html5(charset.strip(" \t\"',;"), fallback_utf8=False)
    if not content.isascii() or not said:  # some others are ASCII by their bytes
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode("utf-8-sig")
    if not said:
        text = content.decode("utf-8-sig", "replace")
        if _MOSTLY * text.count("\ufffd") <= sum(map(str.isalpha, text)):
            return text
    elif said == "utf-8":
        return content.decode("utf-8-sig", "replace")
    found = said or detect_encoding(content)
    return bytes_to_str(content, found, errors="replace", fallback_encodings=())


def known(html: bytes, charset: str) -> str:
    """The charset that browsers know by that name, else that of the page or a guess."""
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    name = charset.strip(" \t\"',;")
    found = map_encoding_to_html5(name, fallback_utf8=False)
    found = found or detect_encoding(html, from_html_meta=True)
    # Servers say `unicode` of anything; in UTF-16, tags have a NUL a letter.
    if found.startswith("utf-16") and b"\0" not in html:
        found = detect_encoding(html)
    return found


if __name__ == "__main__":
    main()
