"""The frame of a self-contained HTML page: style, cards, facts, tables, code.

Every function takes plain text and escapes it; what is named `html` is finished HTML.
System fonts, no scripts, nothing fetched; light and dark by the reader's setting; made
to be read on a phone as well.
"""

import builtins
import keyword
import re
from collections.abc import Iterable, Sequence
from html import escape as _escaped


def escape(text: str) -> str:
    """Text as HTML; control characters, which HTML forbids, as their pictures (␀)."""
    return _escaped(text.translate(_PICTURES))


_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}


def page(title: str, header_html: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole page: a header, then (heading, html) sections with links to each."""
    links, body = [], []
    for heading, html in sections:
        anchor = re.sub(r"\W+", "-", heading.lower())
        links.append(f'<a href="#{anchor}">{escape(heading)}</a>')
        body.append(
            f'<section id="{anchor}"><h2>{escape(heading)}</h2>{html}</section>'
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header>{header_html}</header>
<nav aria-label="Sections">{"".join(links)}</nav>
<main>
{"".join(body)}
</main>
</body>
</html>
"""


def cards(items: Iterable[tuple[str, str, str]]) -> str:
    """Headline figures: (label, value, note)."""
    return f'<div class="cards">{"".join(_card(*item) for item in items)}</div>'


def _card(label: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><div class="label">{escape(label)}</div>'
        f'<div class="figure">{escape(value)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
    )


def facts(items: Iterable[tuple[str, str | None]]) -> str:
    """Small labelled values in a flowing grid; a value of None is left out."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in items
        if value is not None
    )
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def legend(items: Iterable[tuple[str, str]]) -> str:
    """What the colours of a plot or bar stand for: (text, c1 .. c4)."""
    keys = (f'<span class="key {css}">{escape(text)}</span>' for text, css in items)
    return f'<div class="legend">{"".join(keys)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the first column is text, the others are numbers; lines stay lines."""

    def cells(kind: str, row: Sequence[str]) -> str:
        lines = (escape(cell).replace("\n", "<br>") for cell in row)
        return f"<tr>{''.join(f'<{kind}>{line}</{kind}>' for line in lines)}</tr>"

    heading, body = cells("th", head), "".join(cells("td", row) for row in rows)
    return (
        f'<div class="scroll"><table><thead>{heading}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def details(summary: str, html: str) -> str:
    """A part that is folded until asked for."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def panel(html: str) -> str:
    """A framed part of a section; nothing for nothing."""
    return f'<div class="panel">{html}</div>' if html else ""


def pieces(words: Iterable[str]) -> str:
    """Text cut in pieces, each on its own ground; spaces show as dots."""
    shown = (escape(word.replace(" ", "·")) for word in words)
    return f'<div class="pieces">{"".join(f"<i>{word}</i>" for word in shown)}</div>'


def badge(text: str, kind: str) -> str:
    """A small coloured label; `kind` is good, bad, warn or plain."""
    return f'<span class="badge {kind}">{escape(text)}</span>'


def sample(prompt: str, completion: str, badge_html: str, note: str = "") -> str:
    """A prompt and what the model wrote after it, coloured if it looks like Python."""
    text = prompt + completion
    code = _is_python(text)
    words = _python(text) if code else [("", text)]
    html, place = [], 0
    for css, text in words:
        # A word may begin in the prompt and end in the completion.
        inside = text[: max(len(prompt) - place, 0)]
        for part, in_prompt in ((inside, True), (text[len(inside) :], False)):
            if part:
                shown = (
                    f'<span class="{css}">{escape(part)}</span>'
                    if css
                    else escape(part)
                )
                html.append(f"<b>{shown}</b>" if in_prompt else shown)
        place += len(text)
    caption = f"{badge_html}<span>{escape(note)}</span>"
    return (
        f'<figure class="sample"><figcaption>{caption}</figcaption>'
        f"<pre class={'code' if code else 'prose'}>{''.join(html)}</pre></figure>"
    )


_WORDS = re.compile(
    r"""(?P<comment>\#[^\n]*)
    |(?P<string>[rbfuRBFU]{0,2}(?:\"{3}[\s\S]*?(?:\"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)
       |"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))
    |(?P<number>\b\d[\w.]*)
    |(?P<decorator>(?<=\n)[ ]*@[\w.]+)
    |(?P<name>[^\W\d]\w*)""",
    re.VERBOSE,
)
_BUILTINS = frozenset(dir(builtins)) | {"self", "cls"}


def _is_python(text: str) -> bool:
    start = r"(def \w+\(|class \w+|import \w|from [\w.]+ import |async def )"
    return re.search(rf"^\s*{start}", text, re.MULTILINE) is not None


def _python(text: str) -> list[tuple[str, str]]:
    """(CSS class, text) pieces that join up to `text`, which need not parse."""
    pieces, end, defines = [], 0, False
    for match in _WORDS.finditer(text):
        if match.start() > end:
            pieces.append(("", text[end : match.start()]))
        word, kind = match.group(), match.lastgroup
        if kind == "name":
            kind = "defined" if defines else ""
            if keyword.iskeyword(word):
                kind = "keyword"
            elif word in _BUILTINS and not defines:
                kind = "builtin"
            defines = word in ("def", "class")
        pieces.append((kind, word))
        end = match.end()
    return [*pieces, ("", text[end:])]


_CSS = """
:root {
  --bg: #f6f6f4; --panel: #fff; --ink: #1b1d22; --soft: #565b66; --line: #e4e4df;
  --c1: #3b5bdb; --c2: #e8590c; --c3: #099268; --c4: #9c36b5;
  --good: #087f5b; --bad: #c92a2a; --warn: #a8590a; --code: #fafaf8;
  --prompt: rgba(59, 91, 219, .10);
  --mono: ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas,
    "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #0f1115; --panel: #171a21; --ink: #e7e9ee; --soft: #9ba3b1; --line: #292e38;
    --c1: #7f9cff; --c2: #ff9f5a; --c3: #46d3a4; --c4: #d58cf0;
    --good: #4fd6a2; --bad: #ff8080; --warn: #f5b75c; --code: #12151b;
    --prompt: rgba(127, 156, 255, .16);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth;
  scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--bg); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Noto Sans", "Liberation Sans", sans-serif; }
header, main { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 44px; }
h1 { margin: 0; font-size: 2rem; font-weight: 680; letter-spacing: -.022em;
  line-height: 1.15; }
header p { margin: .45rem 0 0; color: var(--soft); }
nav { position: sticky; top: 0; z-index: 1; display: flex; gap: 4px 20px;
  margin-top: 24px; padding: 11px max(24px, calc(50vw - 536px)); overflow-x: auto;
  background: var(--bg); border-bottom: 1px solid var(--line); scrollbar-width: none; }
nav a { color: var(--soft); text-decoration: none; white-space: nowrap;
  font-size: .9rem; }
nav a:hover { color: var(--c1); }
section { margin: 40px 0 0; }
main { padding-bottom: 72px; }
h2 { margin: 0; font-size: 1.22rem; font-weight: 660; letter-spacing: -.012em; }
h3 { margin: 14px 0 6px; font-size: .95rem; font-weight: 640; }
p { margin: 0; max-width: 80ch; }
.soft { color: var(--soft); }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 12px;
  padding: 18px 20px; }
section > * + * { margin-top: 14px; }
.cards { display: grid; gap: 12px; margin-top: 28px;
  grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 12px;
  padding: 14px 16px 13px; }
.label, dt, th { color: var(--soft); font-size: .8rem; font-weight: 500; }
.figure { font-size: 1.72rem; font-weight: 660; letter-spacing: -.025em;
  line-height: 1.25; font-variant-numeric: tabular-nums; white-space: nowrap; }
.note { color: var(--soft); font-size: .8rem; min-height: 1.2em; }
.card:first-child .figure { color: var(--c1); }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.facts { display: grid; gap: 14px 24px; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); }
dd { margin: 0; font-weight: 560; font-variant-numeric: tabular-nums; }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: .88rem;
  font-weight: 600; margin-bottom: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-weight: 500;
  color: var(--soft); font-size: .8rem; }
figcaption .legend { margin-left: auto; }
.legend + svg { margin: 8px 0 10px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px;
  border-radius: 2px; background: var(--k); margin-right: 6px; vertical-align: 3px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.c1 { --k: var(--c1); } .c2 { --k: var(--c2); }
.c3 { --k: var(--c3); } .c4 { --k: var(--c4); }
polyline { fill: none; stroke: var(--k); stroke-width: 1.9; stroke-linejoin: round;
  stroke-linecap: round; }
polyline.faint { stroke-width: 1; opacity: .32; }
polyline.dots { stroke-width: 1.4; }
.dot { fill: var(--panel); stroke: var(--k); stroke-width: 1.9; }
line.grid { stroke: var(--line); stroke-width: 1; }
line.axis { stroke: var(--soft); stroke-width: 1; opacity: .5; }
line.rule { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
svg text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.value { fill: var(--ink); font-size: 11.5px; font-weight: 560; }
.hit rect { fill: transparent; }
.on-hover { visibility: hidden; pointer-events: none; }
.hit:hover .on-hover { visibility: visible; }
.narrow { display: none; }
.bar { height: 10px; border-radius: 5px; background: var(--line); overflow: hidden; }
.bar rect { fill: var(--k); }
.bar rect.lost { fill: var(--k, var(--c2)); opacity: .55; }
.flow { max-width: 1000px; }
.flow path { fill: var(--k); } .flow .kept { opacity: .82; }
.flow .lost { opacity: .4; }
q { quotes: none; }
.rows > * + * { margin-top: 14px; padding-top: 14px;
  border-top: 1px solid var(--line); }
.row-head { display: flex; flex-wrap: wrap; gap: 0 14px; align-items: baseline;
  margin-bottom: 7px; }
.row-head b { font-weight: 620; }
.row-head span { color: var(--soft); font-size: .86rem;
  font-variant-numeric: tabular-nums; }
.row-head span:last-child { margin-left: auto; }
.reasons { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 9px; }
h3:first-child { margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: right; white-space: nowrap;
  vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
td { border-top: 1px solid var(--line); }
.badge { display: inline-block; padding: 1px 9px; border-radius: 99px;
  font-size: .78rem; font-weight: 550; line-height: 1.55; color: var(--k);
  border: 1px solid currentColor; max-width: 100%; }
.good { --k: var(--good); } .bad { --k: var(--bad); }
.warn { --k: var(--warn); } .plain { --k: var(--soft); }
.events { margin: 0; padding: 0; list-style: none; }
.events li { display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap;
  padding: 8px 0; }
.events li + li { border-top: 1px solid var(--line); }
.events .at { color: var(--soft); font-variant-numeric: tabular-nums;
  min-width: 6.5em; }
.samples { columns: 2; column-gap: 16px; }
.sample { break-inside: avoid; margin: 0 0 16px; background: var(--panel);
  border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.sample figcaption { margin: 0; padding: 9px 14px; align-items: center;
  font-weight: 500; color: var(--soft); font-size: .82rem;
  border-bottom: 1px solid var(--line); }
pre { margin: 0; padding: 12px 14px; overflow-x: auto; background: var(--code);
  font: 12.5px/1.55 var(--mono); tab-size: 4; }
.sample pre { max-height: 420px; }
.sample pre.prose { white-space: pre-wrap; }
pre b { font-weight: 600; background: var(--prompt); border-radius: 3px;
  box-shadow: 0 0 0 1px var(--prompt); }
.keyword { color: var(--c4); } .string { color: var(--c3); }
.comment { color: var(--soft); font-style: italic; }
.number, .decorator { color: var(--c2); } .builtin { color: var(--c1); }
.defined { color: var(--c1); font-weight: 600; }
details { margin-top: 12px; }
details:first-child { margin-top: 0; }
summary { cursor: pointer; color: var(--soft); font-size: .88rem; font-weight: 560; }
summary:hover { color: var(--c1); }
details > *:not(summary) { margin-top: 10px; }
.config { columns: 3 280px; column-gap: 28px; font-size: .86rem; }
.config div { break-inside: avoid; }
.config h3 { margin: 0 0 4px; font: 600 .86rem var(--mono); color: var(--c1); }
.config dl { margin: 0 0 18px; }
.config dl > div { display: flex; gap: 12px; justify-content: space-between;
  border-top: 1px solid var(--line); padding: 3px 0; }
.config dd { text-align: right; font: 12.5px/1.5 var(--mono); }
.config dt { font: 12.5px/1.5 var(--mono); }
.pieces { font: 12.5px/1.9 var(--mono); }
.pieces i { font-style: normal; white-space: pre-wrap; border-radius: 3px;
  padding: 1px 1px; margin-right: 2px; background: var(--prompt); }
.pieces i:nth-child(3n + 1) { background: rgba(9, 146, 104, .14); }
.pieces i:nth-child(3n + 2) { background: rgba(232, 89, 12, .13); }
.words { font: 12.5px/1.7 var(--mono); color: var(--soft); }
@media (max-width: 760px) {
  header, main { padding: 0 16px; }
  header { padding-top: 28px; }
  nav { padding: 10px 16px; margin-top: 18px; }
  h1 { font-size: 1.6rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card { padding: 12px 13px 11px; }
  .figure { font-size: 1.42rem; }
  .panel { padding: 15px 14px; }
  .samples { columns: 1; }
  .wide { display: none; }
  .narrow { display: block; }
}
@media print {
  nav { display: none; }
  .panel, .card, .sample { break-inside: avoid; }
}
"""
