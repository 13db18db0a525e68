"""The page of a look inside: heat maps of attention, the logit lens, near words.

A heat map is a picture of one pixel a (query, key), drawn large.
"""

import base64
import struct
import zlib
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
    maps = {
        name.replace("_", " ").capitalize(): [map(picture, heads) for heads in layers]
        for name, layers in attention.items()
    }
    near = [(e["word"], e["near"]) for e in result["neighbours"]]
    near += [(e["analogy"], e["near"]) for e in result["analogies"]]
    return page.render(
        "interpret.html.j2", result=result, maps=maps, near=near, shown=_shown
    )


def _shown(word: str) -> str:
    marked = word.replace(" ", "·").replace("\n", "⏎")
    # What does not print is written out, as in a program.
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in marked) or "∅"


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
