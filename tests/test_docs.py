"""Links of the documents: every relative link and every anchor leads somewhere."""

import re

import promised
import pytest

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.S | re.M)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.M)


def prose(path):
    """A page without its blocks of code."""
    return _FENCED.sub("", path.read_text("utf-8"))


def anchors(path):
    """Those of the headings of a page, as GitHub makes them."""
    found = []
    for heading in _HEADING.findall(prose(path)):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found.count(words)
        found.append(f"{words}-{count}" if count else words)
    return found


def broken(path):
    """Links of a page that lead nowhere."""
    # Code in a link's text stays out of the way; code that shows a link is none.
    for link in _LINK.findall(_CODE.sub("code", prose(path))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        known = anchors(target) if target.suffix == ".md" and target.exists() else []
        if not target.exists() or (anchor and anchor not in known):
            yield link


@pytest.mark.parametrize("path", promised.documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    assert list(broken(path)) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` c\n\n[x](#a-b-c) [y](#d) [z](no.md) [w](page.md#a-b-c) `[v](u.md)`\n\n"
        "```\n# no heading\n[t](s.md)\n```\n[r](page.md#no-heading) [q](https://a.b/c)\n",
        "utf-8",
    )
    assert list(broken(page)) == ["#d", "no.md", "page.md#no-heading"]


def test_every_page_is_in_the_list_of_pages():
    listed = _LINK.findall((promised.ROOT / "docs" / "index.md").read_text("utf-8"))
    pages = {path.name for path in (promised.ROOT / "docs").glob("*.md")}
    assert pages - {"index.md"} <= set(listed)
