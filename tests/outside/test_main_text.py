"""The default extractor keeps what is of the text, short lists above all."""

import html
import re

import pytest

from llm.corpus import extract

pytest.importorskip("resiliparse")

SAYS = "<p>These pancakes are light and quick to make on a Sunday morning.</p>"
MENU = (
    "<nav><ul><li><a href=/>Home</a></li><li><a href=/r>Recipes</a></li></ul></nav>"
    "<ul class=menu><li><a href=/>Start</a></li><li><a href=/m>More of it</a></li></ul>"
)
LISTS = {
    "bare": "<ul><li>2 eggs</li><li>salt</li><li>milk</li></ul>",
    "classes": "<ul class=ingredients><li class=ingredient>2 eggs</li><li>salt</li>"
               "<li>milk</li></ul>",
    "links": "<ul><li>2 <a href=/e>eggs</a></li><li>1 pinch of <a href=/s>salt</a></li>"
             "<li>300 ml <a href=/m>milk</a></li></ul>",
    "labels": "<ul><li><label><input type=checkbox>2 eggs</label></li><li><label>"
              "<input type=checkbox> salt</label></li><li>milk</li></ul>",
    "spans": "<ul><li><span>2</span> <span>eggs</span></li><li><b>salt</b></li>"
             "<li>milk</li></ul>",
    "nested": "<ul><li>Batter<ul><li>2 eggs</li><li>salt</li></ul></li>"
              "<li>milk</li></ul>",
    "ordered": "<ol><li>2 eggs</li><li>salt</li><li>milk</li></ol>",
    "long": "<ul><li>2 eggs that are fresh and come from a farm near your house</li>"
            "<li>salt from the sea, as coarse as you can get it anywhere</li>"
            "<li>milk</li></ul>",
    "terms": "<dl><dt>2 eggs</dt><dd>salt</dd><dd>milk</dd></dl>",
    "all links": "<ul><li><a href=/e>2 eggs</a></li><li><a href=/s>salt</a></li>"
                 "<li><a href=/m>milk</a></li></ul>",
    "buttons": "<ul><li><button>2 eggs</button></li><li><button>salt</button></li>"
               "<li>milk</li></ul>",
    "in a form": "<form><ul><li><label><input type=checkbox>2 eggs</label></li>"
                 "<li>salt</li><li>milk</li></ul></form>",
    "aside": "<aside class=ingredients><ul><li>2 eggs</li><li>salt</li><li>milk</li>"
             "</ul></aside>",
    "table": "<table><tr><td>2</td><td>eggs</td></tr><tr><td>salt</td></tr>"
             "<tr><td>milk</td></tr></table>",
}  # fmt: skip


@pytest.fixture(scope="module")
def page():
    with extract.pages("resiliparse", 10) as read_page:
        yield read_page


@pytest.mark.parametrize("depth", range(7))
@pytest.mark.parametrize("name", LISTS)
def test_short_lists_stay_at_any_depth(page, name, depth):
    source = (
        f"<html><body>{MENU}{'<div>' * depth}<h1>Pancakes</h1>{SAYS}<h2>Contents</h2>"
        f"{LISTS[name]}{SAYS}{'</div>' * depth}"
        "<footer><ul><li>Imprint</li></ul></footer></body></html>"
    )
    text = page(source.encode())["text"]
    for item in ("eggs", "salt", "milk"):
        assert text.count(item) == 1, text
    assert not any(word in text for word in ("Home", "Start", "More of it", "Imprint"))


# In a box of their own, without a paragraph, these are as lists of a site are.
NEED_A_PARAGRAPH = ("long", "all links", "in a form")


@pytest.mark.parametrize("name", [n for n in LISTS if n not in NEED_A_PARAGRAPH])
def test_a_list_in_a_box_of_its_own_stays(page, name):
    source = (
        f"<html><body>{MENU}<main>{SAYS}<div class=ingredients><h2>Ingredients</h2>"
        f"{LISTS[name]}</div>{SAYS}</main></body></html>"
    )
    text = page(source.encode())["text"]
    assert all(item in text for item in ("eggs", "salt", "milk")), text


BEHIND = {
    "a paragraph": SAYS,
    "two paragraphs": SAYS + "<p>Then another one follows the list here.</p>",
    "a heading": f"<h2>Method</h2>{SAYS}",
    "bare text": f"and so on{SAYS}",
    "lists": "".join(f"{LISTS['bare']}<h2>Part {n}</h2>{SAYS}" for n in range(3)),
    "an ordered list": f"<ol><li>Stir it</li><li>Bake it</li></ol>{SAYS}",
}


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", [n for n in LISTS if LISTS[n].startswith("<ul")])
def test_what_stands_behind_a_list_is_as_without_one(page, name, behind, spaced):
    """Against the whole text as resiliparse writes it where it looks for no menus."""
    from resiliparse.extract.html2text import extract_plain_text

    source = (
        f"<html><body><main>{SAYS}{LISTS[name]}{BEHIND[behind]}</main></body></html>"
    )
    source = source.replace("><", ">\n<") if spaced else source
    words = re.sub("</?(button|label)>", "", source)  # which it drops
    whole = extract_plain_text(words, main_content=False, alt_texts=False)
    assert page(source.encode())["text"] == whole


@pytest.mark.parametrize(
    "word", ["盐", "糖", "塩", "&#30416;", "&#x76D0;", " 盐 ", "A", "가"]
)
@pytest.mark.parametrize(
    "place",
    ["<ul><li>{}</li><li>牛奶</li></ul>", "<ol><li>{}</li></ol>", "<p>{}</p>",
     "<h2>{}</h2>", "<table><tr><td>{}</td><td>5</td></tr></table>",
     "<ul><li><b>{}</b></li></ul>", "<p>有<b>{}</b>吗</p>", "<div>{}</div>"],
)  # fmt: skip
def test_words_of_one_character_stay(page, word, place):
    says = "<p>今天天气很好，我们去公园散步，然后回家做饭。</p>"
    text = page(f"<body><main>{says}{place.format(word)}{says}".encode())["text"]
    assert html.unescape(word).strip() in text
    assert all(char.isprintable() or char in "\n\t" for char in text)


def test_icons_stay_out(page):
    text = page(
        f"<body><main>{SAYS}<p><i>\ue00a</i></p><p><i>&#xf00d;</i></p>".encode()
    )
    assert text["text"] == SAYS[3:-4]


@pytest.mark.parametrize(
    "junk",
    [
        "<div><h3>Trending</h3><ul><li><a href=/1>A storm came over the town</a></li>"
        "<li><a href=/2>Two boats were lost at sea</a></li></ul></div>",
        "<aside><ul><li>Sign up</li><li>Log in</li></ul></aside>",
        "<form><ul><li><label>Name</label></li></ul></form>",
        "<form><ul><li><input type=text>Search</li></ul></form>",
        "<form><ul><li><label><input type=checkbox>Red</label></li></ul></form>",
        "<ul><li><a href=/1>Storm</a></li><li><a href=/2>Boats</a></li></ul>",
        "<div><ul><li>Jan 5 <a href=/1>A storm came over the town and went</a></li>"
        "<li>Jan 6 <a href=/2>Two boats were lost at sea that day</a></li></ul></div>",
    ],
)
def test_lists_of_the_site_stay_out(page, junk):
    source = f"<html><body><main>{SAYS * 3}</main>{junk}</body></html>"
    text = page(source.encode())["text"]
    # resiliparse keeps the heading of such a box.
    assert set(text.split("\n\n")) - {"Trending"} == {SAYS[3:-4]}, text


@pytest.mark.parametrize(
    "part", ["<ul>", "<ul><li>", "<ul><li>a</li></ul>", "<li><label>", "<ul><a>"]
)
def test_no_list_takes_long(page, part):
    assert "refused" not in page(f"<body>{SAYS}{part * 3000}".encode())
