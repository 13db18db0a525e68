"""The process that turns HTML into text for `llm/extract.py`; it may hang or die.

It reads a line of JSON, {"bytes": n, "charset": "", "extractor": ""}, and n bytes of
HTML; it answers with a line: {"text", "language", "licence"} or {"refused": why}.

resiliparse takes `<ul>` for a menu wherever it lies less than four elements deep, or a
fifth of its letters are links, and drops all labels: ingredients, materials, steps. So
lists that are a part of the text become `<menu>`, which it leaves alone, before it
looks: F1 0.9166 for 0.9163 on the pages of `benchmarks/extraction.py`.

    python -P llm/extract_child.py
"""

import contextlib
import json
import re
import resource
import sys

MEMORY = 2 * 2**30
_MOSTLY = 20  # letters for one that is lost
# Lists that are no menu of the site, and not a part of another list.
_LISTS = "ul:not(nav ul, header ul, footer ul, aside ul, form ul, li ul, ul ul)"
_LINK = re.compile(r"(?is)<a\b[^>]*>(.*?)</a>")
_MARKUP = re.compile(r"(?s)<[^>]*>|\s+")
_AMOUNT = re.compile(r"[^\w½⅓⅔¼¾⅛]*[\d½⅓⅔¼¾⅛]")
_MOST_LINKED = 0.6  # of the letters of a list
_SENTENCE, _SHORT = (
    17,
    35,
)  # letters of a paragraph, at least; of a short item, on average
_NEAR = 3  # elements before and behind a list
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
    root = tree.document.query_selector("html")
    language = (root.getattr("lang") or "").strip() if root else ""
    link = tree.document.query_selector("[rel~=license][href]")
    licence = link.getattr("href") if link else ""
    if extractor == "trafilatura":
        import trafilatura

        body = trafilatura.extract(text, include_comments=False) or ""
    else:
        keep_lists(tree)
        body = extract_plain_text(tree, main_content=True, alt_texts=False)
    return {
        "text": body,
        "language": language if _TAGS.match(language) else "",
        "licence": licence,
    }


def keep_lists(tree) -> None:
    """Makes lists of the text into elements that the extractor does not drop."""
    document = tree.document
    # Slices: the library looks for all again for each one that an iteration gives.
    for found in document.query_selector_all(_LISTS)[:]:
        if not _is_text(found):
            continue
        for inner in (found, *found.query_selector_all("ul")[:]):
            menu = document.create_element("menu")
            for name in inner.attrs:  # by which it may still be one of the site
                menu.setattr(name, inner.getattr(name))
            _replace(inner, menu)
            if "<label" in menu.inner_html:
                for label in menu.query_selector_all("label")[:]:
                    _replace(label, document.create_element("span"))


def _replace(old, new) -> None:
    for child in old.child_nodes[:]:
        new.append_child(child)
    old.parent.replace_child(new, old)


def _is_text(found) -> bool:
    """Whether a list is of the text: it stands beside a paragraph, or has short items.

    Items with links are text if each has words of its own, and menus and teasers are
    left out; beside no paragraph, half of them must begin with an amount.
    """
    whole = found.inner_html
    letters, linked = _letters(whole), _letters("".join(_LINK.findall(whole)))
    items = [item.inner_html for item in found.children[:] if item.tag == "li"]
    if not letters or not items or linked > _MOST_LINKED * letters:
        return False
    own = [_LINK.sub("", item) for item in items] if linked else items
    if any(a != b and not _letters(a) for a, b in zip(own, items, strict=True)):
        return False
    if letters <= _SHORT * len(items):
        amounts = sum(bool(_AMOUNT.match(_MARKUP.sub("", item))) for item in own)
        if not linked or 2 * amounts >= len(items):
            return True
    return _beside_paragraph(found)


def _beside_paragraph(found) -> bool:
    for step in ("previous_element_sibling", "next_element_sibling"):
        near = found
        for _ in range(_NEAR):
            near = getattr(near, step)
            if near is None:
                break
            if near.tag == "p" and _letters(near.inner_html) >= _SENTENCE:
                return True
    return False


def _letters(html: str) -> int:
    return len(_MARKUP.sub("", html))


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
