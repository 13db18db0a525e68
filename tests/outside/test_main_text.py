"""The default extractor keeps what is of the text, short lists above all."""

import pytest

from llm import extract

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
    html = (
        f"<html><body>{MENU}{'<div>' * depth}<h1>Pancakes</h1>{SAYS}<h2>Contents</h2>"
        f"{LISTS[name]}{SAYS}{'</div>' * depth}"
        "<footer><ul><li>Imprint</li></ul></footer></body></html>"
    )
    text = page(html.encode())["text"]
    for item in ("eggs", "salt", "milk"):
        assert text.count(item) == 1, text
    assert not any(word in text for word in ("Home", "Start", "More of it", "Imprint"))


@pytest.mark.parametrize("name", [n for n in LISTS if n not in ("long",)])
def test_a_list_in_a_box_of_its_own_stays(page, name):
    html = (
        f"<html><body>{MENU}<main>{SAYS}<div class=ingredients><h2>Ingredients</h2>"
        f"{LISTS[name]}</div>{SAYS}</main></body></html>"
    )
    text = page(html.encode())["text"]
    assert all(item in text for item in ("eggs", "salt", "milk")), text


@pytest.mark.parametrize(
    "junk",
    [
        "<div><h3>Trending</h3><ul><li><a href=/1>A storm came over the town</a></li>"
        "<li><a href=/2>Two boats were lost at sea</a></li></ul></div>",
        "<aside><ul><li>Sign up</li><li>Log in</li></ul></aside>",
        "<form><ul><li><label>Name</label></li></ul></form>",
        "<div><ul><li>Jan 5 <a href=/1>A storm came over the town and went</a></li>"
        "<li>Jan 6 <a href=/2>Two boats were lost at sea that day</a></li></ul></div>",
    ],
)
def test_lists_of_the_site_stay_out(page, junk):
    html = f"<html><body><main>{SAYS * 3}</main>{junk}</body></html>"
    text = page(html.encode())["text"]
    # resiliparse keeps the heading of such a box.
    assert set(text.split("\n\n")) - {"Trending"} == {SAYS[3:-4]}, text


@pytest.mark.parametrize(
    "part", ["<ul>", "<ul><li>", "<ul><li>a</li></ul>", "<li><label>", "<ul><a>"]
)
def test_no_list_takes_long(page, part):
    assert "refused" not in page(f"<body>{SAYS}{part * 3000}".encode())
