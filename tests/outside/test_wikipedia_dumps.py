"""Dumps of Wikipedia as they are published: names, namespaces, markup of real pages."""

import bz2
import gzip

import pytest

from llm.errors import InputError
from llm.sources import wikipedia

HEAD = """<mediawiki xml:lang="{language}"><siteinfo>
<base>https://{language}.wikipedia.org/wiki/Main</base>
<namespaces><namespace key="-2">{media}</namespace><namespace key="0" />
<namespace key="1">{talk}</namespace><namespace key="4">Wikipedia</namespace>
<namespace key="6">{file}</namespace><namespace key="14">{category}</namespace>
</namespaces></siteinfo>"""
NAMES = {
    "en": ("Media", "Talk", "File", "Category"),
    "de": ("Medium", "Diskussion", "Datei", "Kategorie"),
    "fr": ("Média", "Discussion", "Fichier", "Catégorie"),
    "ja": ("メディア", "ノート", "ファイル", "カテゴリ"),
}


def page(number, title, text, ns="0", more=""):
    space = f"<ns>{ns}</ns>" if ns else ""
    return (
        f"<page><title>{title}</title>{space}<id>{number}</id>{more}<revision>"
        f"<id>9{number}</id><timestamp>2026-01-01T00:00:00Z</timestamp>"
        f"<text>{text}</text></revision></page>"
    )


def dump(*pages, language="en"):
    names = dict(zip(("media", "talk", "file", "category"), NAMES[language],
                     strict=True))  # fmt: skip
    head = HEAD.format(language=language, **names)
    return (head + "".join(pages) + "</mediawiki>").encode()


def read(path, content=None, name="a.xml"):
    if content is not None:
        (path / name).write_bytes(content)
    skipped = []
    documents = wikipedia.make(path=str(path))(lambda *skip: skipped.append(skip))
    return list(documents), skipped


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("enwiki-20260101-pages-articles.xml", bytes),
        ("enwiki-20260101-pages-articles.xml.bz2", bz2.compress),
        ("enwiki-20260101-pages-articles1.xml-p1p41242.bz2", bz2.compress),
        ("dewiki-latest-pages-articles-multistream3.xml-p1598p2000.bz2", bz2.compress),
        ("simplewiki-latest-pages-meta-current.xml.gz", gzip.compress),
        ("frwiki-20260101-pages-articles27.xml-p9999p12345", bytes),
    ],
)
def test_dumps_have_their_real_names(tmp_path, name, pack):
    (tmp_path / "enwiki-20260101-pages-articles-multistream-index.txt.bz2").write_bytes(
        bz2.compress(b"600:7:Tide")
    )
    content = pack(dump(page(7, "Tide", "It rises.")))
    (document,), skipped = read(tmp_path, content, name)
    assert document.text == "Tide\n\nIt rises.\n" and not skipped


def test_a_folder_without_a_dump_is_refused(tmp_path):
    (tmp_path / "a.xmlx").write_bytes(dump())
    with pytest.raises(InputError, match="no XML of Wikipedia"):
        read(tmp_path)


@pytest.mark.parametrize(
    "title",
    ["Alien: Covenant", "Talk: The Film", "2001: A Space Odyssey", "C:", "Re:Zero"],
)
@pytest.mark.parametrize("ns", ["0", ""])
def test_titles_with_a_colon_are_articles(tmp_path, title, ns):
    """Where the dump says no namespace, the title is all that is known."""
    content = dump(page(1, title, "Text."), page(2, "Talk:Tide", "No.", ns and "1"))
    documents, skipped = read(tmp_path, content.replace(b"<ns>0", f"<ns>{ns}".encode()))
    if ns or not title.startswith("Talk"):
        (document,) = documents
        assert document.text == f"{title}\n\nText.\n"
        address = title.replace(" ", "_").replace(":", "%3A")
        assert document.meta["url"] == f"https://en.wikipedia.org/wiki/{address}"
    assert skipped[-1][0] in (
        "not an article: namespace Talk", "not an article: namespace talk"
    )  # fmt: skip


@pytest.mark.parametrize("text", ["#REDIRECT [[Tide]]", "#WEITERLEITUNG [[Ebbe]]\n"])
def test_redirects_are_counted_with_and_without_the_element(tmp_path, text):
    content = dump(
        page(1, "A", text), page(2, "B", text, more='<redirect title="Tide" />')
    )
    documents, skipped = read(tmp_path, content)
    assert not documents
    assert skipped == [("not an article: a redirect", f"a.xml:{n}") for n in (1, 2)]


def test_of_a_history_the_last_revision_is_read(tmp_path):
    first = (
        "<revision><id>1</id><timestamp>2001</timestamp><text>Old.</text></revision>"
    )
    content = dump(page(7, "Tide", "New.", more=first))
    (document,), skipped = read(tmp_path, content)
    assert document.text == "Tide\n\nNew.\n" and not skipped
    assert document.id == "en.wikipedia.org/7"
    assert document.meta["timestamp"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("language", NAMES)
def test_hidden_links_are_those_of_the_dump(tmp_path, language):
    media, _, file, category = NAMES[language]
    text = (
        f"a[[{file}:x.jpg|thumb|of [[b]] and [http://c.org d]]] [[Alien: Covenant]] "
        f"b[[{category}:C]][[{category.lower()}:D|*]] [[:{category}:E]]c"
        f"[[{media}:m.ogg]][[File:y.png]][[Category:F]]"
    )
    (document,), _ = read(tmp_path, dump(page(1, "T", text), language=language))
    assert document.text == f"T\n\na Alien: Covenant b {category}:Ec\n"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("see [[Alien: Covenant]].", "see Alien: Covenant."),
        ("see [[Alien: Covenant|it]].", "see it."),
        ("the [[2001: A Space Odyssey (film)|film]]", "the film"),
        ("[[Wikipedia:About|about]] us", "about us"), ("x[[Template:Y]]", "x"),
        ("x\n[[de:Gezeiten]]\n[[fr:Marée]]", "x"), ("[[:de:Gezeiten]]", "de:Gezeiten"),
        ("[[File:a.jpg|thumb|[[a|b [[c]]]] d [1] e]]f", "f"),
        ("[[Image:a.png|x [http://a.org y] z]]f", "f"), ("[[ file : a.jpg ]]f", "f"),
        ("[[a|b]] [[c", "b [[c"), ("a]] [[b]]", "a]] b"),
        # tags between words
        ("a<br>b<br/>c<br />d<BR clear=all>e", "a\nb\nc\nd\ne"),
        ("a<hr>b<p>c</p><div class=x>d</div>e", "a\nb\nc\n\nd\ne"),
        ("H<sub>2</sub>O and <b>b</b><i>i</i>", "H2O and bi"),
        ("a < b and c > d; <stdio.h> <T> x<y", "a < b and c > d; <stdio.h> <T> x<y"),
        # formulas and code
        (r"so <math>\frac{{a}}{b} ''x''</math> is", r"so \frac{{a}}{b} ''x'' is"),
        ('<math display="block">x^{2}</math>', "x^{2}"), ("<ce>H2O</ce>", "H2O"),
        ("<chem>CO2</chem>, <math>\\left|{x}\\right|</math>",
         "CO2, \\left|{x}\\right|"),
        ('<syntaxhighlight lang="c">\n#include <a.h>\n\n\n\n* p = [[0]];\n'
         "</syntaxhighlight>", "#include <a.h>\n\n\n\n* p = [[0]];"),
        ("a\n<pre>\n  # x ''y''\n  * {{z}} &lt;\n</pre>\nb",
         "a\n\n  # x ''y''\n  * {{z}} <\n\nb"),
        ("<source lang=py>x = {'a': [[1]]}  # ==</source>",
         "x = {'a': [[1]]}  # =="),
        ("<nowiki>[[a]] ''b''</nowiki>", "[[a]] ''b''"), ("a<nowiki/>b", "ab"),
        ('<syntaxhighlight lang="c" inline>a[[0]]</syntaxhighlight> is', "a[[0]] is"),
        ("{{code|<nowiki>}}</nowiki>}}x", "}}x"), ("a<!-- <pre> -->b</pre>", "ab"),
        ("<ref>a<math>x</math></ref>b<ref name=x />c", "bc"),
        ("<gallery>\nFile:a.jpg|''b''\n</gallery>c", "c"),
        ("a\x000\x00b", "a0b"),
    ],
)  # fmt: skip
def test_markup_of_real_pages(markup, text):
    assert wikipedia.plain(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("It is {{convert|330|m|ft}} tall.", "It is 330 m tall."),
        ("It weighs {{cvt|10|to|20|t|abbr=on}}.", "It weighs 10 to 20 t."),
        ("a {{nowrap|[[sea level|level]] of 3}} m", "a level of 3 m"),
        ("the {{lang|fr|café}} and {{lang-de|x}}.", "the café and ."),
        ("{{formatnum:1234567}} people", "1234567 people"),
        ("{{val|1.5|u=km}} or {{frac|1|2}}, {{frac|3}}, {{frac|2|1|2}}",
         "1.5 km or 1/2, 1/3, 2 1/2"),
        ("{{nowrap|{{lang|de|a}} b}}{{Infobox|a=b|c}}", "a b"),
        ("since {{circa|1900}}{{citation needed|date=May 2020}}", "since 1900"),
        ("{| class=x\n| {{lang|fr|a}}\n|}z", "z"),
        ("{{nowrap}} {{convert|}} {{frac|}}x", "x"),
    ],
)  # fmt: skip
def test_templates_that_show_words(markup, text):
    assert wikipedia.plain(markup) == text


@pytest.mark.parametrize("part", ["[[", "]]", "[[a|", "<math>", "<ref>", "<br>", "{{",
                                  "<!--", "[[File:", "<pre", "\0"])  # fmt: skip
def test_no_markup_takes_long(part):
    assert isinstance(wikipedia.plain(part * 20_000), str)
