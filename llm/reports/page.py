"""Pages: Jinja2 templates of `templates/`, each rendered into one self-contained file.

System fonts, no scripts, nothing fetched; light and dark by the reader's setting; made
to be read on a phone as well. Templates escape all text; `parts.html.j2` has what pages
share, `frame.html.j2` is what they extend.
"""

import itertools
import pathlib
import re
from typing import Any

import jinja2
from pygments.lexers.python import PythonLexer
from pygments.token import Token

from llm import units

# Control characters, which HTML forbids, are shown as their pictures (␀).
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}

_COLOURS = {
    Token.Comment: "comment",
    Token.Keyword: "keyword",
    Token.Literal.Number: "number",
    Token.Literal.String: "string",
    Token.Name.Builtin: "builtin",
    Token.Name.Class: "defined",
    Token.Name.Decorator: "decorator",
    Token.Name.Exception: "builtin",
    Token.Name.Function: "defined",
    Token.Operator.Word: "keyword",
}
_PYTHON = re.compile(
    r"^\s*(def \w+\(|class \w+|import \w|from [\w.]+ import |async def )", re.MULTILINE
)


def render(template: str, **data: Any) -> str:
    """A template of this folder with its data filled in."""
    return _TEMPLATES.get_template(template).render(**data).translate(_PICTURES)


def coloured(prompt: str, completion: str) -> tuple[str, list[tuple[str, bool, str]]]:
    """What a text is, code or prose, and its pieces: (colour, in the prompt, text).

    A token that begins in the prompt and ends in the completion is two pieces.
    """
    text = prompt + completion
    colours = [""] * len(text)
    is_code = _PYTHON.search(text) is not None
    if is_code:
        for start, kind, word in PythonLexer().get_tokens_unprocessed(text):
            colour = next((_COLOURS[k] for k in kind.split() if k in _COLOURS), "")
            colours[start : start + len(word)] = [colour] * len(word)
    marks = [(colour, n < len(prompt)) for n, colour in enumerate(colours)]
    pieces, start = [], 0
    for mark, run in itertools.groupby(marks):
        end = start + len(list(run))
        pieces.append((*mark, text[start:end]))
        start = end
    return "code" if is_code else "prose", pieces


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    forms = {
        "form": format, "short": units.count, "size": units.size,
        "duration": units.duration, "quantity": units.quantity,
    }  # fmt: skip
    environment.filters |= {name: _of_some(form) for name, form in forms.items()}
    environment.filters["anchor"] = lambda heading: re.sub(r"\W+", "-", heading.lower())
    environment.globals["coloured"] = coloured
    return environment


def _of_some(form):
    """A filter that leaves None, which is a value that is not there."""
    return lambda value, *how: None if value is None else form(value, *how)


_TEMPLATES = _environment()
