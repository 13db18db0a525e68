"""Answers on the page: Markdown as elements, never HTML; copied, made again, kept."""

import json

import chromium
import pytest
import served

pytestmark = chromium.NEEDED
SAID = "document.querySelector('.turn.assistant:last-child .said')"


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    service, _ = served.make_service(*served.model(), folder=str(folder), context=512)
    with served.running(service) as url, chromium.page(folder) as page:
        page.open(url)
        page.send("Browser.grantPermissions", permissions=["clipboardReadWrite"])
        yield page, url


def shown(page, source):
    """The HTML of a text, without the bars of code."""
    return page.run(
        "(() => { const x = document.createElement('div');"
        f"show_markdown(x, {json.dumps(source)}, (parent, chars, from, to) =>"
        " parent.append(chars.text.slice(from, to)));"
        "x.querySelectorAll('.bar').forEach(bar => bar.remove());"
        "return x.innerHTML })()"
    )


def code(text):
    return f'<div class="code"><pre tabindex="0"><code>{text}</code></pre></div>'


@pytest.mark.parametrize(
    "source, want",
    [
        ("one\n\ntwo", "<p>one</p><p>two</p>"),
        ("# One\ntext", "<h1>One</h1><p>text</p>"),
        ("### Three ###", "<h3>Three</h3>"),
        ("#tag", "<p>#tag</p>"),
        ("a **b** *c* _d_ ~~e~~", "<p>a <strong>b</strong> <em>c</em> <em>d</em> "
         "<del>e</del></p>"),
        ("***a***", "<p><strong><em>a</em></strong></p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("2 * 3 * 4, snake_case_name, **open", "<p>2 * 3 * 4, snake_case_name, "
         "**open</p>"),
        (r"\*a\* \\ \q", "<p>*a* \\ \\q</p>"),
        ("`a*b*` ``x`y`` `open", "<p><code>a*b*</code> <code>x`y</code> `open</p>"),
        ("---", "<hr>"),
        ("- a\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        ("1. a\n   - b\n2. c", "<ol><li><p>a</p><ul><li><p>b</p></li></ul></li>"
         "<li><p>c</p></li></ol>"),
        ("- a\n\n  b\n\nc", "<ul><li><p>a</p><p>b</p></li></ul><p>c</p>"),
        ("in\n2024. was", "<p>in\n2024. was</p>"),
        ("> a\n> - b\n\nc", "<blockquote><p>a</p><ul><li><p>b</p></li></ul>"
         "</blockquote><p>c</p>"),
        ("```py\na  <b>\n\n# c\n```\nd", code("a  &lt;b&gt;\n\n# c") + "<p>d</p>"),
        ("~~~\n```\n~~~", code("```")),
        ("````\n```\n````", code("```")),
        ("```\nopen **x**", code("open **x**")),
        ("```", code("")),
        ("1. a\n   ```\n   b\n     c\n   ```\n2. d", "<ol><li><p>a</p>"
         + code("b\n  c") + "</li><li><p>d</p></li></ol>"),
        ("a | b\n--|:-:\n1 | `x\\|y`\n", '<div class="table"><table><thead><tr><th>a'
         '</th><th class="center">b</th></tr></thead><tbody><tr><td>1</td><td '
         'class="center"><code>x\\|y</code></td></tr></tbody></table></div>'),
        ("a | b", "<p>a | b</p>"),
        ("<b>a</b> &amp; <!-- c -->", "<p>&lt;b&gt;a&lt;/b&gt; &amp;amp; "
         "&lt;!-- c --&gt;</p>"),
    ],
)  # fmt: skip
def test_markdown_becomes_elements(up, source, want):
    assert shown(up[0], source) == want


LINK = '<a href="{0}" rel="noopener noreferrer nofollow" target="_blank" title="{0}">'


@pytest.mark.parametrize(
    "source, want",
    [
        ("[a](https://b.org/c)", LINK.format("https://b.org/c") + "a</a>"),
        ("[*a* [b]](http://b.org/ 't')", LINK.format("http://b.org/")
         + "<em>a</em> [b]</a>"),
        ("<mailto:a@b.org>", LINK.format("mailto:a@b.org") + "mailto:a@b.org</a>"),
        ("see https://b.org/x_(y).", "see " + LINK.format("https://b.org/x_(y)")
         + "https://b.org/x_(y)</a>."),
        ("(https://b.org/)", "(" + LINK.format("https://b.org/")
         + "https://b.org/</a>)"),
        # A picture is not loaded: it is a link.
        ("![a](https://b.org/c.png)", LINK.format("https://b.org/c.png") + "a</a>"),
        # What leads elsewhere stays as it was written.
        *((text, text) for text in (
            "[a](javascript:alert(1))", "[a](JaVaScRiPt:alert(1))", "[a](/b)",
            "[a](data:text/html,b)", "[a](vbscript:b)", "[a](//b.org)",
            "[a](file:///etc/passwd)", "![a](data:image/svg+xml,b)", "[a](b",
            "[a]( )", "[a]")),
    ],
)  # fmt: skip
def test_links_lead_to_the_web_or_a_mailbox(up, source, want):
    assert shown(up[0], source) == f"<p>{want}</p>"


ATTACKS = [
    "<img src=x onerror=window.hit=1>",
    "<script>window.hit=1</script>",
    "</p></div><script src=https://evil.example/x.js></script>",
    "**<svg onload=window.hit=1>**",
    "[x](javascript:window.hit=1)",
    "[x](java\tscript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x](javascript&colon;window.hit=1)",
    "<javascript:window.hit=1>",
    "[<img src=x onerror=window.hit=1>](https://b.org)",
    "[a](https://b.org/\"onmouseover=window.hit=1)",
    "[![x](https://evil.example/a.png)](javascript:window.hit=1)",
    "![x](https://evil.example/track.png)",
    "![x\" onerror=\"window.hit=1](https://evil.example/a.png)",
    "```html\n<img src=x onerror=window.hit=1>\n</code></pre><script>window.hit=1"
    "</script>\n```\nafter",
    "```\"><script>window.hit=1</script>\n<b>\n```",
    "| <img src=x onerror=window.hit=1> | b |\n|---|---|\n| <iframe srcdoc=x> | c |",
    "> - 1. **_`<object data=x>`_** <style>*{top:0}</style>\n>   <form action=x>",
    "# <a href=javascript:window.hit=1 onclick=window.hit=1>a</a>",
    "<https://b.org/'onclick='window.hit=1>",
    "`<base href=https://evil.example>` <link rel=stylesheet href=//evil.example/a>",
    "\\<img src=x onerror=window.hit=1\\> <<b>>",
]  # fmt: skip

# Elements that an answer may have, and attributes of them.
NAMES = (
    "P H1 H2 H3 H4 H5 H6 HR UL OL LI BLOCKQUOTE DIV SPAN BUTTON PRE CODE TABLE THEAD "
    "TBODY TR TH TD A STRONG EM DEL I"
)
ATTRIBUTES = "class tabindex type aria-label href rel target title start"
CHECK = """
((source, tokens) => {
  const x = document.createElement("div"), wrong = [];
  document.body.append(x);
  const put = tokens ? put_tokens([...source].reduce((all, char) => {
    all.push({ to: (all.at(-1)?.to ?? 0) + char.length, likely: null });
    return all;
  }, [])) : (parent, chars, from, to) => parent.append(chars.text.slice(from, to));
  const plain = () => x.innerHTML;
  for (let size = 0; size <= source.length; size++) {
    show_markdown(x, source.slice(0, size), put);
    for (const one of x.querySelectorAll("*")) {
      const fine = "NAMES".split(" ").includes(one.tagName) &&
        [...one.attributes].every(x => "ATTRIBUTES".split(" ").includes(x.name)) &&
        (one.tagName !== "A" ||
         /^(https?|mailto):/.test(one.href) && one.rel.includes("noopener"));
      if (!fine) wrong.push(one.outerHTML);
    }
  }
  const piecemeal = plain();
  x.blocks = null;
  x.replaceChildren();
  show_markdown(x, source, put);
  if (plain() !== piecemeal) wrong.push(piecemeal + " is not " + plain());
  x.remove();
  return wrong;
})""".replace("NAMES", NAMES).replace("ATTRIBUTES", ATTRIBUTES)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("source", ATTACKS)
def test_nothing_of_an_answer_becomes_html(up, source, tokens):
    """However much of it has come; and pieces give what the whole gives."""
    page = up[0]
    call = f"{CHECK}({json.dumps(source)}, {json.dumps(tokens)})"
    assert page.run(call) == []
    assert page.run("window.hit === undefined")
    loaded = page.run("performance.getEntriesByType('resource').map(x => x.name)")
    assert not [one for one in loaded if "evil" in one]


@pytest.mark.parametrize(
    "source",
    ["*" * 20_000, "[" * 20_000, "`a" * 10_000, "> " * 5_000 + "a", "*a " * 10_000,
     "- " * 5_000 + "a", "_a* " * 8_000, "[a](" * 5_000,
     "|" * 5_000 + "\n" + "-|" * 5_000],
    ids=lambda source: source[:4],
)  # fmt: skip
def test_odd_answers_take_no_time(up, source):
    took = up[0].run(
        "(() => { const x = document.createElement('div'), start = performance.now();"
        f"show_markdown(x, {json.dumps(source)}, (parent, chars, from, to) =>"
        " parent.append(chars.text.slice(from, to)));"
        "return performance.now() - start })()"
    )
    assert took < 2000


ANSWER = "A **b** <i>c</i>\n\n```py\nx = 1\n\ny = 2\n```\nend"


def ask(page, url, answer, *, clear=True, **values):
    """Asks for an answer that is these words, by a grammar."""
    page.open(url)
    if clear:
        page.run("document.getElementById('clear').click()")
    for name, value in {"max_tokens": 200, **values}.items():
        page.run(
            f"{{const x = document.getElementById('{name}'); x.value = '{value}';"
            "x.dispatchEvent(new Event('input'))}"
        )
    say(page, answer)
    page.run("document.getElementById('say').focus()")
    page.write("hello")
    page.press("Enter")
    page.wait(f"{SAID}?.source && {chromium.IDLE}")


def say(page, *answers):
    form = json.dumps({"choice": answers})
    page.run(
        "{ window.own ??= wanted; wanted = () =>"
        f" ({{ ...own(), structured_outputs: {form} }}) }}"
    )


def click(page, text, within="document"):
    page.run(
        f"[...{within}.querySelectorAll('button')].find(x => x.textContent == "
        f"'{text}' && x.offsetHeight).click()"
    )


def test_an_answer_is_copied_made_again_and_kept(up):
    page, url = up
    ask(page, url, ANSWER)
    assert page.run(f"{SAID}.source") == ANSWER
    assert page.run(f"{SAID}.querySelector('strong').textContent") == "b"
    assert page.run(f"{SAID}.querySelector('p').textContent") == "A b <i>c</i>"
    click(page, "Copy", f"{SAID}.querySelector('.bar')")
    page.wait(f"{SAID}.querySelector('.copy').textContent == 'Copied'")
    assert page.run("navigator.clipboard.readText()") == "x = 1\n\ny = 2"
    click(page, "Copy", "document.querySelector('.thumbs')")
    page.wait("document.querySelector('.thumbs .copy').textContent == 'Copied'")
    assert page.run("navigator.clipboard.readText()") == ANSWER
    # Another one in its place.
    say(page, "# other")
    click(page, "Again")
    page.wait(f"{SAID}?.source == '# other' && {chromium.IDLE}")
    assert page.run(f"{SAID}.querySelector('h1').textContent") == "other"
    assert page.run("document.querySelectorAll('.turn').length") == 2
    # One that cannot be made leaves the one before.
    page.run("wanted = () => ({ ...own(), temperature: 'hot' })")
    click(page, "Again")
    page.wait("document.getElementById('status').className == 'bad'")
    assert page.run(f"{SAID}.source") == "# other" and page.run(f"!{SAID}.hidden")
    page.open(url)
    kept = page.run("JSON.parse(localStorage.getItem('llm.messages'))")
    assert [one["content"] for one in kept] == ["hello", "# other"]
    assert page.run(f"{SAID}.querySelector('h1').textContent") == "other"
    assert page.run("document.querySelectorAll('.again').length") == 1
    assert not page.errors


def test_the_odds_of_tokens_are_reached_by_keys(up):
    page, url = up
    ask(page, url, "a **bc**")
    page.run("document.getElementById('settings-button').focus()")
    for _ in range(9):
        page.press("Tab")
        if page.run(f"document.activeElement === {SAID}"):
            break
    assert page.run(f"document.activeElement === {SAID}")
    assert "Enter" in page.run(f"{SAID}.getAttribute('aria-label')")
    box = "document.getElementById('likely')"
    assert page.run(f"{box}.hidden && {box}.role == 'status'")
    page.press("Enter")
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        assert page.run(f"!{box}.hidden")
        seen.append(page.run(f"{box}.querySelector('.own').innerText")[0])
        page.press(key)
    assert seen == ["a", "␣", "b", "c", "c"]
    assert page.run(f"{box}.querySelector('.own').innerText")[0] == "b"
    assert page.run(f"{box}.innerText").count("%") >= 5
    page.press("Escape")
    assert page.run(f"{box}.hidden && document.activeElement === {SAID}")
    page.press("Enter")
    page.press("Tab")
    assert page.run(f"{box}.hidden && document.activeElement !== {SAID}")


THROWS = (
    "Object.defineProperty(window, 'localStorage',"
    " { get() { throw new DOMException('no', 'SecurityError') } })"
)
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'Quota') }"
KEPT = "localStorage.setItem('llm.{}', {})"
GARBAGE = "\n".join(
    KEPT.format(name, json.dumps(value))
    for name, value in {
        "messages": '[{"role":"user"},null,7]', "mode": '"sideways"', "text": "{}",
        "temperature": "{broken", "max_tokens": '"many"', "stop": "[1]",
        "probabilities": '"perhaps"', "seed": "null", "system": "{}",
    }.items()
)  # fmt: skip


@pytest.mark.parametrize("script", [THROWS, FULL, GARBAGE], ids=["off", "full", "bad"])
def test_a_broken_storage_breaks_nothing(up, script):
    page, url = up
    page.open(url)
    page.run("localStorage.clear()")
    page.send("Page.enable")
    added = page.send(
        "Page.addScriptToEvaluateOnNewDocument",
        source="if (!location.href.startsWith('about:')) {" + script + "}",
    )
    page.errors.clear()
    try:
        page.open(url)
        assert page.run("document.getElementById('max_tokens').value") == "256"
        assert page.run("document.getElementById('system').value") == ""
        assert page.run("document.getElementById('probabilities').checked")
        ask(page, url, "**fine**", clear=script is not GARBAGE)
        assert page.run(f"{SAID}.querySelector('strong').textContent") == "fine"
        assert not page.errors
    finally:
        page.send(
            "Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"]
        )
