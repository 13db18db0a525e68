"""The process that turns HTML into text for `extract.py`; it may hang or die.

`answer` gets the HTML, its charset and the name of an extractor, and returns {"text",
"language", "licence"} or {"refused": why}.

resiliparse takes `<ul>` for a menu wherever it lies less than four elements deep, or a
fifth of its letters are links, and drops all labels and buttons: ingredients,
materials, steps. So lists that are a part of the text are put deeper, and their links
and labels become spans, before it looks. It also takes a lone character of three bytes,
such as the Chinese word for salt, for an icon; these get a mark that goes again.
"""

import contextlib
import re
from html import unescape

_MOSTLY = 20  # letters for one that is lost
# Lists that are no menu of the site, and not a part of another list.
_LISTS = "ul:not(nav ul, header ul, footer ul, aside ul, li ul, ul ul)"
_BOXES = "aside[class*=ingredient], aside[class*=material], aside[class*=equipment]"
_DEEP = 4  # elements around a list that the extractor does not take for a menu
_BARE = ("a", "label", "button")  # what it counts or drops within a list
# A mark no text has (a noncharacter), and characters that stand alone in an element.
_ALONE = "\ufdd0"
_LONE = re.compile(r"(?i)(>\s*)([\u0800-\uffff]|&#(?:\d+|x[\da-f]+);)(?=\s*<)")
_LINK = re.compile(r"(?is)<a\b[^>]*>(.*?)</a>")
_MARKUP = re.compile(r"(?s)<[^>]*>|\s+")
_AMOUNT = re.compile(r"[^\w½⅓⅔¼¾⅛]*[\d½⅓⅔¼¾⅛]")
_MOST_LINKED = 0.6  # of the letters of a list
# Letters of a paragraph, at least; of a short item, and of one that is all link, on
# average.
_SENTENCE, _SHORT, _SHORT_LINK = 17, 35, 20
_NEAR = 3  # elements before and behind a list
_TAGS = re.compile(r"^[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*$")


def answer(html: bytes, charset: str, extractor: str) -> dict[str, str]:
    """The main text of a page, or why there is none."""
    try:
        return extracted(html, charset, extractor)
    except (ValueError, RecursionError) as error:
        return {"refused": type(error).__name__}


def extracted(html: bytes, charset: str, extractor: str) -> dict[str, str]:
    """The main text of a page, the language that it says, and a link to its licence."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str
    from resiliparse.parse.html import HTMLTree

    text = bytes_to_str(html, known(html, charset), errors="replace")
    if 1000 * text.count("\0") > len(text):
        return {"refused": "binary"}
    tree = HTMLTree.parse(marked(text) if extractor == "resiliparse" else text)
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
        body = body.replace(_ALONE, "")
    return {
        "text": body,
        "language": language if _TAGS.match(language) else "",
        "licence": licence,
    }


def marked(html: str) -> str:
    """HTML with a mark behind each letter or digit that is all of an element."""

    def mark(match: re.Match) -> str:
        char = unescape(match[2])
        return match[0] + _ALONE if len(char) == 1 and char.isalnum() else match[0]

    return _LONE.sub(mark, html.replace(_ALONE, ""))


def keep_lists(tree) -> None:
    """Puts lists of the text where the extractor does not drop them."""
    document = tree.document
    for box in document.query_selector_all(_BOXES)[:]:
        _replace(box, document.create_element("div"))
    # Slices: the library looks for all again for each one that an iteration gives.
    for found in document.query_selector_all(_LISTS)[:]:
        if not _is_text(found):
            continue
        for tag in _BARE:
            if f"<{tag}" in found.inner_html:
                for part in found.query_selector_all(tag)[:]:
                    _replace(part, document.create_element("span"))
        inner = document.create_element("div")
        outer = inner
        for _ in range(_DEEP - 1):
            above = document.create_element("div")
            above.append_child(outer)
            outer = above
        found.parent.replace_child(outer, found)
        inner.append_child(found)


def _replace(old, new) -> None:
    for child in old.child_nodes[:]:
        new.append_child(child)
    old.parent.replace_child(new, old)


def _is_text(found) -> bool:
    """Whether a list is of the text: it stands beside a paragraph, or has short items.

    Items with links are text if each has words of its own, and menus and teasers are
    left out; beside no paragraph, half of them must begin with an amount. Short items
    that are links as a whole are text between two paragraphs. A list in a form is text
    if all that it asks for are ticks, and the form stands beside a paragraph.
    """
    form = _form(found)
    if form is not None:
        asks = form.query_selector_all("input, select, textarea")[:]
        if any(one.getattr("type") != "checkbox" for one in asks):
            return False
        if not _beside_paragraph(form) and not _beside_paragraph(found):
            return False
    whole = found.inner_html
    letters, linked = _letters(whole), _letters("".join(_LINK.findall(whole)))
    items = [item.inner_html for item in found.children[:] if item.tag == "li"]
    if not letters or not items:
        return False
    own = [_LINK.sub("", item) for item in items] if linked else items
    bare = any(a != b and not _letters(a) for a, b in zip(own, items, strict=True))
    if bare or linked > _MOST_LINKED * letters:
        short = letters <= _SHORT_LINK * len(items)
        return short and _beside_paragraph(found, both=True)
    if letters <= _SHORT * len(items):
        amounts = sum(bool(_AMOUNT.match(_MARKUP.sub("", item))) for item in own)
        if not linked or 2 * amounts >= len(items):
            return True
    return _beside_paragraph(found)


def _form(found):
    """The form that a list is in, or None."""
    above = found.parent
    while above is not None and above.tag != "form":
        above = above.parent
    return above


def _beside_paragraph(found, both: bool = False) -> bool:
    sides = 0
    for step in ("previous_element_sibling", "next_element_sibling"):
        near = found
        for _ in range(_NEAR):
            near = getattr(near, step)
            if near is None:
                break
            if near.tag == "p" and _letters(near.inner_html) >= _SENTENCE:
                sides += 1
                break
    return sides > both


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
