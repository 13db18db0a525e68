"""Dumps of Wikipedia: which pages are taken, and what their markup says."""

import bz2
import pathlib

import pytest

from llm.document import NOTE
from llm.sources import wikipedia

EXAMPLE = pathlib.Path(wikipedia.TINY["path"]).read_bytes()


def read(path):
    skipped = []
    documents = wikipedia.make(path=str(path))(lambda *skip: skipped.append(skip))
    return list(documents), skipped


def test_a_dump(tmp_path):
    talk = b"<page><title>Talk:Tide</title><ns>1</ns><id>9</id></page></mediawiki>"
    content = EXAMPLE.replace(b"</mediawiki>", talk)
    (tmp_path / "x.xml.bz2").write_bytes(bz2.compress(content))
    (document,), skipped = read(tmp_path)
    assert skipped == [
        ("not an article: a redirect", "x.xml.bz2:8"),
        ("not an article: namespace 1", "x.xml.bz2:9"),
    ]
    assert document.id == "en.wikipedia.org/7"
    assert document.text == (
        "Tide\n\nTides are the rise and fall of sea levels.\n\nCauses\n\n- The moon.\n"
    )
    assert document.meta == {
        "title": "Tide", "url": "https://en.wikipedia.org/wiki/Tide", "language": "en",
        "timestamp": "2026-01-01T00:00:00Z", "licence": "CC-BY-SA-4.0",
    }  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_a_dump_that_is_cut_off(tmp_path, pack):
    filler = b"<!-- %s -->" % bytes(range(97, 123)) * 9
    content = pack(EXAMPLE.replace(b"</mediawiki>", filler))
    (tmp_path / "a.xml").write_bytes(content[:-20])
    _, skipped = read(tmp_path)
    damaged = [s for s in skipped if s[0] != "not an article: a redirect"]
    assert len(damaged) == 1 and damaged[0][0].startswith("damaged: ")


def test_the_reason_holds_nothing_of_a_page(tmp_path):
    content = EXAMPLE.replace(b"<text>", b"<text>&jane-at-mail-org;")
    assert content != EXAMPLE
    (tmp_path / "a.xml").write_bytes(content)
    _, skipped = read(tmp_path)
    ((reason, _),) = skipped
    assert reason == "damaged: undefined entity"


@pytest.mark.parametrize(
    "markup, text",
    [
        ("{{a|{{b}}|[[c]]}}d", "d"), ("{|\n|x\n|}y", "y"), ("a<!-- b -->c", "ac"),
        ("a<ref name=x/>b<ref>c</ref>", "ab"), ("''a'' '''b'''", "a b"),
        ("[[File:a.jpg|thumb|of [[b]]]]c", "c"),
        ("[http://a.org the b] [[c|d]]", "the b d"),
        ("== A ==\ntext", "A\n\ntext"), ("a &amp; b&nbsp;c", "a & b\xa0c"),
        ("#x\n## y", "- x\n- y"), ("{{" * 2000 + "a", "{{" * 2000 + "a"),
    ],
)  # fmt: skip
def test_markup(markup, text):
    assert wikipedia.plain(markup) == text


def test_tables_are_counted(tmp_path):
    page = "<page><title>{0}</title><ns>0</ns><id>{1}</id><revision><text>{2}</text>"
    end = "</revision></page>"
    pages = [
        page.format("A", 1, "a {|\n|x\n|} b") + end,
        page.format("B", 2, "b") + end,
    ]
    (tmp_path / "x.xml").write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    documents, skipped = read(tmp_path)
    assert [document.text for document in documents] == ["A\n\na  b\n", "B\n\nb\n"]
    assert skipped == [(NOTE + "the tables of a page are not read", "x.xml:1")]
