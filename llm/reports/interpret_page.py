"""The page of a look inside: heat maps of attention, the logit lens, near words.

One self-contained file, as `llm/reports/page.py` makes them; a heat map is a picture of
one pixel a (query, key), drawn large.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm.reports import page

_WHITE, _DARK = np.array([250, 251, 253]), np.array([18, 60, 140])


def write(result: dict[str, Any], attention: dict[str, np.ndarray]) -> str:
    """The page as HTML.

    Args:
      result: what interpret.json holds.
      attention: {name: LNTS}, of `llm.inference.interpretation.Look`.
    """
    words = result["tokens"]
    header = (
        f"<h1>A look inside</h1><p>{page.escape(result['model_dir'])}, "
        f"step {result['step']}</p>{page.pieces(words)}"
    )
    if result["read"]:
        header += f"<p>The encoder read:</p>{page.pieces(result['read'])}"
    sections = [("Logit lens", _lens(words, result["lens"]))]
    for name, shares_LNTS in attention.items():
        title = name.replace("_", " ").capitalize()
        sections.append((title, _maps(shares_LNTS)))
    near = [(e["word"], e["near"]) for e in result["neighbours"]]
    near += [(e["analogy"], e["near"]) for e in result["analogies"]]
    if near:
        sections.append(("Near words", _near(near)))
    return page.page("A look inside", header, sections)


def _lens(words: Sequence[str], lens: list[list[list[list]]]) -> str:
    """A row a layer, a column a token: what the layer would say, and how surely."""
    lead = (
        "What each layer would say after the token at the head of its column, if it "
        "were the last; darker is surer."
    )
    head = "".join(f"<th>{_shown(word)}</th>" for word in words)
    rows = []
    for number, layer in reversed(list(enumerate(lens, start=1))):
        cells = []
        for choices in layer:
            word, share = choices[0]
            color = ",".join(map(str, _color(share)))
            ink = "#fff" if share > 0.5 else "#111"
            title = ", ".join(f"{w!r} {p:.0%}" for w, p in choices)
            cells.append(
                f'<td style="background:rgb({color});color:{ink}" '
                f'title="{page.escape(title)}">{_shown(word)}</td>'
            )
        rows.append(f"<tr><th>{number}</th>{''.join(cells)}</tr>")
    table = f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    return (
        f'<p class="soft">{lead}</p>'
        f'<div style="overflow-x:auto;font-size:12px;white-space:pre">{table}</div>'
    )


def _shown(word: str) -> str:
    marked = word.replace(" ", "·").replace("\n", "⏎")
    # What does not print is written out, as in a program.
    marks = (x if x.isprintable() else repr(x)[1:-1] for x in marked)
    return page.escape("".join(marks)) or "∅"


def _maps(shares_LNTS: np.ndarray) -> str:
    """A heat map a head: queries down, keys across."""
    lead = "One map a head: a row is a query, a column the key that it looks at."
    figures = []
    for layer, shares_NTS in enumerate(shares_LNTS, start=1):
        for head, shares_TS in enumerate(shares_NTS, start=1):
            figures.append(
                '<figure style="margin:0">'
                f'<img alt="layer {layer}, head {head}" src="{picture(shares_TS)}" '
                'style="width:100%;image-rendering:pixelated;border:1px solid #8884">'
                f'<figcaption class="soft">layer {layer}, head {head}</figcaption>'
                "</figure>"
            )
    grid = "display:grid;gap:14px;grid-template-columns:repeat(auto-fill,150px)"
    return f'<p class="soft">{lead}</p><div style="{grid}">{"".join(figures)}</div>'


def _near(rows: list[tuple[str, list]]) -> str:
    body = [
        (what, ", ".join(f"{w!r} {cosine:.2f}" for w, cosine in near))
        for what, near in rows
    ]
    return page.panel(page.table(("word", "nearest, by cosine"), body))


def _color(share: float) -> list[int]:
    mixed = _WHITE + (_DARK - _WHITE) * float(share) ** 0.5  # small shares show
    return [int(x) for x in mixed]


def picture(shares_TS: np.ndarray) -> str:
    """A PNG of one pixel a share, as a data URI (PNG specification, ISO/IEC 15948)."""
    T, S = shares_TS.shape
    mix_TS1 = np.sqrt(np.clip(shares_TS, 0, 1))[..., None]
    rgb_TS3 = (_WHITE + (_DARK - _WHITE) * mix_TS1).astype(np.uint8)
    # Each line of pixels begins with the number of its filter, 0 for none.
    lines = np.concatenate([np.zeros((T, 1), np.uint8), rgb_TS3.reshape(T, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        size, check = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", size) + kind + data + struct.pack(">I", check)

    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", S, T, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()
